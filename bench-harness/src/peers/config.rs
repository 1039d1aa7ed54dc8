//! The configuration of each peer: the files of bench-harness/peers/ with their gaps filled.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::template::fill;

/// Where nginx may write, and where its modules are.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    pub folder: &'a Path,
    pub modules: &'a str,
}

pub fn haproxy(port: u16, upstream: SocketAddr, threads: u32) -> Result<String> {
    fill(
        "haproxy.cfg",
        include_str!("../../peers/haproxy.cfg"),
        &[
            ("port", port.to_string()),
            ("upstream", upstream.port().to_string()),
            ("threads", threads.to_string()),
        ],
    )
}

pub fn nginx_stream(
    port: u16,
    upstream: SocketAddr,
    threads: u32,
    places: Places<'_>,
) -> Result<String> {
    fill(
        "nginx-stream.conf",
        include_str!("../../peers/nginx-stream.conf"),
        &[
            ("port", port.to_string()),
            ("upstream", upstream.port().to_string()),
            ("threads", threads.to_string()),
            ("modules", places.modules.to_owned()),
            ("folder", places.folder.display().to_string()),
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

pub fn weir(
    smtp: SocketAddr,
    admin: SocketAddr,
    upstream: SocketAddr,
    threads: u32,
    folder: &Path,
) -> Result<String> {
    fill(
        "weir.flags",
        include_str!("../../peers/weir.flags"),
        &[
            ("port", smtp.port().to_string()),
            ("admin", admin.port().to_string()),
            ("upstream", upstream.port().to_string()),
            ("threads", threads.to_string()),
            ("folder", folder.display().to_string()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_fills_in_completely() {
        let sink = SocketAddr::from(([127, 0, 0, 1], 2525));
        let folder = Path::new("/tmp/x");
        let places = Places {
            folder,
            modules: "/usr/lib/nginx/modules",
        };
        for (text, want) in [
            (haproxy(10_025, sink, 2), "bind 127.0.0.1:10025 "),
            (
                nginx_stream(10_025, sink, 2, places),
                "proxy_pass 127.0.0.1:2525;",
            ),
            (
                nginx_mail(10_025, 80, true, 2, places),
                "8BITMIME CHUNKING;",
            ),
            (nginx_mail(10_025, 80, false, 2, places), "8BITMIME ;"),
            (nginx_auth(80, sink, folder), "Auth-Port 2525;"),
            (
                postfix_main("/q", "/d", sink),
                "smtpd_proxy_filter = 127.0.0.1:2525",
            ),
            (postfix_master(10_025), "127.0.0.1:10025 "),
            (weir(sink, sink, sink, 2, folder), "--shards 2"),
        ] {
            let text = text.unwrap();
            assert!(text.contains(want), "{want}\n{text}");
        }
    }
}
