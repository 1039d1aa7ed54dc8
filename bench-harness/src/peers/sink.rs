//! Our own sink as a child process, so that its work is nobody else's.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::child::{self, Child};
use super::folder::Folder;
use super::kind::loopback;

pub struct Sink {
    pub smtp: SocketAddr,
    pub control: SocketAddr,
    /// Whether it announces CHUNKING, as Postfix (since 3.4) and Exim (since 4.88) do.
    pub chunking: bool,
    pub child: Child,
}

impl Sink {
    pub fn start(folder: &Folder, chunking: bool) -> Result<Sink> {
        let (smtp, control) = (loopback(child::free_port()?), loopback(child::free_port()?));
        let mut command = own_command("sink")?;
        command.args([
            "--listen",
            &smtp.to_string(),
            "--control",
            &control.to_string(),
        ]);
        if !chunking {
            command.arg("--no-chunking");
        }
        let mut child = Child::spawn("sink", command, folder.path())?;
        child.wait_listening(smtp)?;
        child.wait_listening(control)?;
        Ok(Sink {
            smtp,
            control,
            chunking,
            child,
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
