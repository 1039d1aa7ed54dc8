//! One value of `--listen` or `--listen-tls`: an address, and what is special about it.

use std::{fmt, net::SocketAddr};

use crate::cli::{reader::Reader, units::Fault};
use crate::net::{ClientTls, Service};

/// An address clients connect to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listener {
    pub address: SocketAddr,
    /// None: as the general flag says.
    pub tls: Option<ClientTls>,
    /// Peers of `--trust` begin with a PROXY header.
    pub proxy: bool,
}

pub const LISTENERS_MAX: usize = 16;

impl Listener {
    /// One without options.
    pub fn plain(address: SocketAddr) -> Listener {
        Listener {
            address,
            tls: None,
            proxy: false,
        }
    }

    /// What it does with its clients; `tls`: what the general flag says.
    pub fn service(&self, tls: ClientTls) -> Service {
        Service {
            tls: self.tls.unwrap_or(tls),
            proxy: self.proxy,
            intercept: None,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match self.tls {
            None => {}
            Some(ClientTls::Off) => f.write_str(" (plaintext)")?,
            Some(ClientTls::May) => f.write_str(" (STARTTLS)")?,
            Some(ClientTls::Require) => f.write_str(" (STARTTLS required)")?,
            Some(ClientTls::Implicit) => f.write_str(" (TLS)")?,
        }
        if self.proxy {
            f.write_str(" (PROXY)")?;
        }
        Ok(())
    }
}

/// All listeners, those of `--listen` first.
pub fn listeners(reader: &mut Reader, listen: &[String], listen_tls: &[String]) -> Vec<Listener> {
    let mut found: Vec<Listener> = Vec::new();
    for (flag, all, parser) in [
        ("--listen", listen, plaintext as Parser),
        ("--listen-tls", listen_tls, implicit),
    ] {
        for typed in all.iter().filter(|typed| !typed.is_empty()) {
            let Some(listener) = reader.parse(flag, typed, parser) else {
                continue;
            };
            let is_same = |other: &Listener| other.address == listener.address;
            if found.iter().any(is_same) && listener.address.port() != 0 {
                let fault = Fault::new("stands twice", "name each address once");
                reader.wrong(flag, typed, fault);
            }
            found.push(listener);
        }
    }
    if found.len() > LISTENERS_MAX {
        let fault = Fault::new(
            format!("has {} addresses", found.len()),
            format!("name at most {LISTENERS_MAX}"),
        );
        reader.wrong("--listen", "", fault);
    }
    found
}

type Parser = fn(&str) -> Result<Listener, Fault>;

fn plaintext(typed: &str) -> Result<Listener, Fault> {
    let (address_typed, options) = parts(typed);
    let mut listener = Listener::plain(address(address_typed)?);
    for option in options {
        match option {
            "tls=off" => listener.tls = Some(ClientTls::Off),
            "tls=may" => listener.tls = Some(ClientTls::May),
            "tls=require" => listener.tls = Some(ClientTls::Require),
            "proxy" => listener.proxy = true,
            other => {
                return Err(unknown(
                    other,
                    "options are ,tls=off ,tls=may ,tls=require and ,proxy; TLS from the first byte has --listen-tls",
                ));
            }
        }
    }
    Ok(listener)
}

fn implicit(typed: &str) -> Result<Listener, Fault> {
    let (address_typed, options) = parts(typed);
    let mut listener = Listener::plain(address(address_typed)?);
    listener.tls = Some(ClientTls::Implicit);
    for option in options {
        match option {
            "proxy" => listener.proxy = true,
            other => return Err(unknown(other, "the only option is ,proxy")),
        }
    }
    Ok(listener)
}

fn parts(typed: &str) -> (&str, impl Iterator<Item = &str>) {
    let mut parts = typed.split(',').map(str::trim);
    (parts.next().unwrap_or_default(), parts)
}

fn unknown(option: &str, remedy: &str) -> Fault {
    Fault::new(format!("has the unknown option {option:?}"), remedy)
}

/// ADDR:PORT; a name would need a lookup before the configuration is valid.
pub fn address(typed: &str) -> Result<SocketAddr, Fault> {
    typed.parse().map_err(|_| {
        Fault::new(
            "is no address with a port",
            "write ADDR:PORT, as in 0.0.0.0:25 or [::]:25",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(listen: &[&str], listen_tls: &[&str]) -> Result<Vec<Listener>, Vec<String>> {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let mut reader = Reader::default();
        let found = listeners(&mut reader, &owned(listen), &owned(listen_tls));
        let wrong = reader.finish().err();
        wrong.map_or(Ok(found), |wrong| {
            Err(wrong.iter().map(ToString::to_string).collect())
        })
    }

    #[test]
    fn options_stand_behind_the_address() {
        for (typed, tls, proxy) in [
            ("0.0.0.0:25", None, false),
            ("[::]:25,tls=off", Some(ClientTls::Off), false),
            ("[::1]:25,tls=may,proxy", Some(ClientTls::May), true),
            (
                "127.0.0.1:25, proxy ,tls=require",
                Some(ClientTls::Require),
                true,
            ),
        ] {
            let listener = read(&[typed], &[]).unwrap()[0];
            assert_eq!((listener.tls, listener.proxy), (tls, proxy), "{typed}");
        }
        let listener = read(&[], &["0.0.0.0:465,proxy"]).unwrap()[0];
        assert_eq!(
            (listener.tls, listener.proxy),
            (Some(ClientTls::Implicit), true)
        );
    }

    #[test]
    fn an_option_overrules_the_general_flag() {
        let of = |typed: &str, general| read(&[typed], &[]).unwrap()[0].service(general).tls;
        assert_eq!(of("0.0.0.0:25", ClientTls::May), ClientTls::May);
        assert_eq!(of("0.0.0.0:25,tls=off", ClientTls::May), ClientTls::Off);
        let tls = read(&[], &["0.0.0.0:465"]).unwrap()[0];
        assert_eq!(tls.service(ClientTls::Off).tls, ClientTls::Implicit);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (listen, listen_tls, flag) in [
            ("25", "", "--listen"),
            ("0.0.0.0:25,tls=perhaps", "", "--listen"),
            ("0.0.0.0:25,", "", "--listen"),
            ("", "465", "--listen-tls"),
            ("", "0.0.0.0:465,tls=may", "--listen-tls"),
            ("127.0.0.1:25", "127.0.0.1:25", "--listen-tls"),
        ] {
            let wrong = read(&[listen], &[listen_tls]).unwrap_err();
            assert!(
                wrong.len() == 1 && wrong[0].starts_with(&format!("{flag} ")),
                "{listen} {listen_tls}: {wrong:?}"
            );
        }
        let many: Vec<String> = (1..=17).map(|port| format!("127.0.0.1:{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(read(&many, &[]).unwrap_err().len(), 1);
    }

    #[test]
    fn the_plan_tells_what_is_special() {
        let shown = |typed: &str| read(&[typed], &[]).unwrap()[0].to_string();
        assert_eq!(shown("0.0.0.0:25"), "0.0.0.0:25");
        assert_eq!(
            shown("0.0.0.0:25,tls=require,proxy"),
            "0.0.0.0:25 (STARTTLS required) (PROXY)"
        );
    }
}
