//! The configuration of each peer: the files of bench-harness/peers/ with their gaps filled.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::sink::Sink;
use super::template::fill;
use super::workload::Setting;

/// Where nginx may write, and where its modules are.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    pub folder: &'a Path,
    pub modules: &'a str,
}

pub fn haproxy(port: u16, sink: &Sink, setting: Setting, threads: u32) -> Result<String> {
    let (bind, upstream, server) = match setting {
        Setting::Plain => (String::new(), sink.smtp, ""),
        Setting::Tls => {
            let both = sink.shown.both.display();
            let bind = format!("ssl crt {both} ssl-min-ver TLSv1.3");
            (bind, sink.smtp, "")
        }
        Setting::Identity | Setting::Tunnel => (String::new(), sink.smtp_proxied, "send-proxy-v2"),
    };
    fill(
        "haproxy.cfg",
        include_str!("../../peers/haproxy.cfg"),
        &[
            ("port", port.to_string()),
            ("upstream", upstream.port().to_string()),
            ("threads", threads.to_string()),
            ("bind", bind),
            ("server", server.to_owned()),
        ],
    )
}

pub fn nginx_stream(
    port: u16,
    sink: &Sink,
    setting: Setting,
    threads: u32,
    places: Places<'_>,
) -> Result<String> {
    fill(
        "nginx-stream.conf",
        include_str!("../../peers/nginx-stream.conf"),
        &[
            ("port", port.to_string()),
            ("upstream", sink.smtp.port().to_string()),
            ("threads", threads.to_string()),
            ("modules", places.modules.to_owned()),
            ("folder", places.folder.display().to_string()),
            (
                "ssl",
                if setting == Setting::Tls { "ssl" } else { "" }.to_owned(),
            ),
            ("certificate", sink.shown.certificate.display().to_string()),
            ("key", sink.shown.key.display().to_string()),
        ],
    )
}

/// `auth` is the port of the HTTP server that says where mail goes: [`nginx_auth`].
pub fn nginx_mail(
    port: u16,
    auth: u16,
    chunking: bool,
    threads: u32,
    places: Places<'_>,
) -> Result<String> {
    let chunking = if chunking { "CHUNKING" } else { "" };
    fill(
        "nginx-mail.conf",
        include_str!("../../peers/nginx-mail.conf"),
        &[
            ("port", port.to_string()),
            ("auth", auth.to_string()),
            ("chunking", chunking.to_owned()),
            ("threads", threads.to_string()),
            ("modules", places.modules.to_owned()),
            ("folder", places.folder.display().to_string()),
        ],
    )
}

pub fn nginx_auth(auth: u16, upstream: SocketAddr, folder: &Path) -> Result<String> {
    fill(
        "nginx-auth.conf",
        include_str!("../../peers/nginx-auth.conf"),
        &[
            ("auth", auth.to_string()),
            ("upstream", upstream.port().to_string()),
            ("folder", folder.display().to_string()),
        ],
    )
}

pub fn postfix_main(queue: &str, data: &str, upstream: SocketAddr) -> Result<String> {
    fill(
        "postfix-main.cf",
        include_str!("../../peers/postfix-main.cf"),
        &[
            ("queue", queue.to_owned()),
            ("data", data.to_owned()),
            ("upstream", upstream.port().to_string()),
        ],
    )
}

pub fn postfix_master(port: u16) -> Result<String> {
    fill(
        "postfix-master.cf",
        include_str!("../../peers/postfix-master.cf"),
        &[("port", port.to_string())],
    )
}

/// Where weir listens: for plaintext, for TLS, for questions.
#[derive(Clone, Copy)]
pub struct Ports {
    pub smtp: u16,
    pub tls: u16,
    pub admin: u16,
}

pub fn weir(
    ports: Ports,
    sink: &Sink,
    setting: Setting,
    threads: u32,
    folder: &Path,
) -> Result<String> {
    let common = fill(
        "weir.flags",
        include_str!("../../peers/weir.flags"),
        &[
            ("port", ports.smtp.to_string()),
            ("admin", ports.admin.to_string()),
            ("threads", threads.to_string()),
            ("folder", folder.display().to_string()),
        ],
    )?;
    Ok(common + &weir_setting(ports, sink, setting)?)
}

fn weir_setting(ports: Ports, sink: &Sink, setting: Setting) -> Result<String> {
    let upstream = |address: SocketAddr| ("upstream", address.port().to_string());
    match setting {
        Setting::Plain => fill(
            "weir-plain.flags",
            include_str!("../../peers/weir-plain.flags"),
            &[upstream(sink.smtp)],
        ),
        Setting::Tls => fill(
            "weir-tls.flags",
            include_str!("../../peers/weir-tls.flags"),
            &[
                upstream(sink.smtp),
                ("tls", ports.tls.to_string()),
                ("certificate", sink.shown.certificate.display().to_string()),
                ("key", sink.shown.key.display().to_string()),
            ],
        ),
        Setting::Identity => fill(
            "weir-identity.flags",
            include_str!("../../peers/weir-identity.flags"),
            &[upstream(sink.smtp_proxied)],
        ),
        Setting::Tunnel => fill(
            "weir-tunnel.flags",
            include_str!("../../peers/weir-tunnel.flags"),
            &[upstream(sink.smtp_proxied)],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::folder::Folder;
    use super::*;

    #[test]
    fn every_configuration_fills_in_completely() {
        let folder = Folder::new("test").unwrap();
        let sink = super::super::kind::tests::scripted_sink(&folder);
        let (upstream, at) = (sink.smtp.port(), SocketAddr::from(([127, 0, 0, 1], 2525)));
        let path = folder.path();
        let places = Places {
            folder: path,
            modules: "/usr/lib/nginx/modules",
        };
        let ports = Ports {
            smtp: 10_025,
            tls: 10_465,
            admin: 10_080,
        };
        for (text, want) in [
            (
                nginx_mail(10_025, 80, true, 2, places),
                "8BITMIME CHUNKING;".to_owned(),
            ),
            (
                nginx_mail(10_025, 80, false, 2, places),
                "8BITMIME ;".to_owned(),
            ),
            (nginx_auth(80, at, path), "Auth-Port 2525;".to_owned()),
            (
                postfix_main("/q", "/d", at),
                "smtpd_proxy_filter = 127.0.0.1:2525".to_owned(),
            ),
            (postfix_master(10_025), "127.0.0.1:10025 ".to_owned()),
        ] {
            let text = text.unwrap();
            assert!(text.contains(&want), "{want}\n{text}");
        }
        for (setting, haproxy_says, nginx_says, weir_says) in [
            (
                Setting::Plain,
                "backlog 4096 \n",
                "reuseport ;",
                "--upstream 127",
            ),
            (
                Setting::Tls,
                "ssl-min-ver TLSv1.3",
                "reuseport ssl;",
                "--listen-tls 127.0.0.1:10465",
            ),
            (
                Setting::Identity,
                "send-proxy-v2",
                "reuseport ;",
                "--identity proxy-v2",
            ),
            (
                Setting::Tunnel,
                "send-proxy-v2",
                "reuseport ;",
                "--transparent-starttls tunnel",
            ),
        ] {
            for (text, want) in [
                (haproxy(10_025, &sink, setting, 2), haproxy_says),
                (nginx_stream(10_025, &sink, setting, 2, places), nginx_says),
                (weir(ports, &sink, setting, 2, path), weir_says),
            ] {
                let text = text.unwrap();
                assert!(text.contains(want), "{setting:?} {want}\n{text}");
                if setting == Setting::Plain {
                    let is_there = text.contains(&format!("127.0.0.1:{upstream}"));
                    assert!(is_there, "{text}");
                }
            }
        }
    }
}
