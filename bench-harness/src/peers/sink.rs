//! Our own sink as a child process, so that its work is nobody else's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::child::{self, Child};
use super::folder::Folder;
use super::kind::loopback;
use super::workload::Setting;
use crate::plan::{Tls, Trust, Versions, Way};
use crate::tls::certificate::Certificate;

pub struct Sink {
    pub smtp: SocketAddr,
    pub smtp_tls: SocketAddr,
    pub smtp_proxied: SocketAddr,
    pub control: SocketAddr,
    /// Whether it announces CHUNKING, as Postfix (since 3.4) and Exim (since 4.88) do.
    pub chunking: bool,
    pub shown: Shown,
    pub child: Child,
}

/// The files of one certificate, which sink and peers alike show to clients.
pub struct Shown {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub both: PathBuf,
}

impl Sink {
    /// `setting` decides whether it offers STARTTLS: in plaintext a proxy is not to be compared with one more line of EHLO.
    pub fn start(folder: &Folder, chunking: bool, setting: Setting) -> Result<Sink> {
        let shown = Shown::make(folder)?;
        let smtp = loopback(child::free_port()?);
        let smtp_tls = loopback(child::free_port()?);
        let smtp_proxied = loopback(child::free_port()?);
        let control = loopback(child::free_port()?);
        let mut command = own_command("sink")?;
        for (flag, address) in [
            ("--listen", smtp),
            ("--listen-tls", smtp_tls),
            ("--listen-proxied", smtp_proxied),
            ("--control", control),
        ] {
            command.arg(flag).arg(address.to_string());
        }
        command.arg("--tls-cert").arg(&shown.certificate);
        command.arg("--tls-key").arg(&shown.key);
        if !chunking {
            command.arg("--no-chunking");
        }
        if setting == Setting::Tunnel {
            command.arg("--starttls");
        }
        let mut child = Child::spawn("sink", command, folder.path())?;
        child.wait_listening(smtp)?;
        child.wait_listening(control)?;
        Ok(Sink {
            smtp,
            smtp_tls,
            smtp_proxied,
            control,
            chunking,
            shown,
            child,
        })
    }

    /// What clients of a workload want of TLS: 1.3, and a full handshake each, since a client that comes once has no ticket.
    pub fn tls(&self, setting: Setting) -> Option<Tls> {
        let way = match setting {
            Setting::Plain | Setting::Identity => return None,
            Setting::Tls => Way::Implicit,
            Setting::Tunnel => Way::Starttls,
        };
        Some(Tls {
            way,
            versions: Versions::Tls13,
            resumption: false,
            trust: Trust::Authority(self.shown.certificate.clone()),
            name: NAME.to_owned(),
        })
    }
}

/// Whom the certificate is for.
const NAME: &str = "mail.weir.test";

impl Shown {
    pub fn make(folder: &Folder) -> Result<Shown> {
        let made = Certificate::make(NAME)?;
        Ok(Shown {
            both: folder.write("both.pem", &format!("{}{}", made.chain, made.key))?,
            certificate: folder.write("certificate.pem", &made.chain)?,
            key: folder.write("key.pem", &made.key)?,
        })
    }
}

/// This program with another command.
pub fn own_command(name: &str) -> Result<Command> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(own);
    command.arg(name);
    Ok(command)
}
