//! A network of our own, for workloads whose clients have to be led to a proxy without naming it: a rule of nftables does that, and it is
//! to concern nobody else. The namespace, with every rule in it, is gone with the last process in it.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::child;
use crate::sys;

/// As long as it lives this thread, and every process it starts, is in a network with nothing but loopback.
pub struct Namespace {
    before: File,
}

impl Namespace {
    /// The reason, where this machine or this user cannot have one.
    pub fn enter() -> Result<Result<Namespace, String>> {
        for (tool, package) in [("ip", "iproute2"), ("nft", "nftables")] {
            if child::program(tool).is_none() {
                return Ok(Err(format!("{tool} ({package}) is not installed")));
            }
        }
        let own = "/proc/thread-self/ns/net";
        let before = File::open(own).with_context(|| format!("cannot open {own}"))?;
        if let Err(error) = sys::leave_network() {
            return Ok(Err(format!("a network of its own needs root: {error}")));
        }
        let namespace = Namespace { before };
        run("ip", &["link", "set", "lo", "up"], "")?;
        Ok(Ok(namespace))
    }

    /// Whoever goes from `sources` to `target` is led to `port` of this host.
    pub fn redirect(&self, sources: &str, target: SocketAddr, port: u16) -> Result<()> {
        let rules = rules(sources, target, port);
        run("nft", &["-f", "-"], &rules)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // whatever comes after would be measured in the wrong place
        sys::enter_network(self.before.as_fd()).expect("a thread may go back where it came from");
    }
}

fn rules(sources: &str, target: SocketAddr, port: u16) -> String {
    format!(
        "table ip weir-bench {{
  chain output {{
    type nat hook output priority -100;
    ip saddr {sources} ip daddr {} tcp dport {} redirect to :{port}
  }}
}}
",
        target.ip(),
        target.port(),
    )
}

/// Runs a tool of the system with `input`; what it complains of is the error.
fn run(name: &str, arguments: &[&str], input: &str) -> Result<()> {
    let program = child::program(name).with_context(|| format!("{name} is not installed"))?;
    let mut tool = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    if let Some(mut to) = tool.stdin.take() {
        to.write_all(input.as_bytes())
            .with_context(|| format!("{name} does not listen"))?;
    }
    let done = tool.wait_with_output()?;
    let words = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{name} {arguments:?}: {words}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    /// Where root runs the tests; the reason otherwise.
    #[test]
    fn clients_are_led_elsewhere_in_a_network_of_its_own_only() {
        let outside = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = outside.local_addr().unwrap();
        match Namespace::enter().unwrap() {
            Err(why) => assert!(
                why.contains("root") || why.contains("not installed"),
                "{why}"
            ),
            Ok(namespace) => {
                assert!(TcpStream::connect(target).is_err(), "the network is empty");
                let inside = TcpListener::bind("127.0.0.1:0").unwrap();
                let port = inside.local_addr().unwrap().port();
                namespace.redirect("127.0.0.0/8", target, port).unwrap();
                let client = TcpStream::connect(target).unwrap();
                let (_, seen) = inside.accept().unwrap();
                assert_eq!(seen, client.local_addr().unwrap());
            }
        }
        TcpStream::connect(target).expect("back in the network from before");
    }
}
