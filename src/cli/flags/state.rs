//! Where what is learnt outlives a restart, and where hosts share it.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::{reader::Reader, units::Fault};
use crate::state::Server;

#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
#[command(next_help_heading = "State")]
pub struct Flags {
    /// Where what is learnt is kept: PATH, redis://HOST:PORT
    ///
    /// PATH: greylisted tuples, networks that have passed, and the history of networks are written to this file every 2 seconds
    /// and read at the start, beside the mail. A crash costs what was learnt in the last seconds; a full disk costs nothing until
    /// weir ends. A file that is damaged, of another version or of another --network-prefix is put aside as PATH.aside, and a new one is begun. Its folder
    /// has to be there, and writable for the user that weir runs as (--user). One weir has it at a time.
    ///
    /// redis://USER:PASSWORD@HOST:PORT/DB, of which only HOST is needed: Valkey or Redis, by which hosts tell each other what they
    /// learn, within a second or two, and share --rate-connections, --rate-messages and --rate-recipients. No mail waits for it; while it is away each
    /// host goes by what it knows itself. Hosts with another --network-prefix are not heard, which is logged; rates are shared by
    /// hosts with the same --client-prefix, and should be the same on all. Who can write to it is believed: keep it on a network
    /// of your own.
    ///
    /// Range: repeatable, one path and one server. Default: none, what is learnt is forgotten at the end. Cost: about 90 bytes on disk per
    /// tuple, 130 per network, at --greylist-max and --history-max at most; 56 MiB of memory at most.
    #[arg(long, value_name = "WHERE")]
    pub state: Vec<String>,
}

/// What lasts, and who shares.
#[derive(Clone, Debug, Default)]
pub struct Lasting {
    pub file: Option<PathBuf>,
    pub server: Option<Server>,
}

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Lasting {
        let mut lasting = Lasting::default();
        for typed in &self.state {
            let double = match place(typed.trim()) {
                Ok(Place::File(path)) => lasting.file.replace(path).is_some(),
                Ok(Place::Server(server)) => lasting.server.replace(server).is_some(),
                Err(fault) => {
                    reader.wrong("--state", hidden(typed), fault);
                    false
                }
            };
            if double {
                let fault = Fault::new(
                    "is the second of its kind",
                    "name one file and one server at most",
                );
                reader.wrong("--state", hidden(typed), fault);
            }
        }
        lasting
    }
}

enum Place {
    File(PathBuf),
    Server(Server),
}

fn place(typed: &str) -> Result<Place, Fault> {
    if typed.starts_with("redis://") {
        return Server::parse(typed)
            .map(Place::Server)
            .map_err(|why| Fault::new(why, "write redis://HOST:PORT or redis://HOST:PORT/DB"));
    }
    if typed.contains("://") {
        return Err(Fault::new(
            "is neither a path nor redis://",
            "Valkey and Redis are both redis://HOST:PORT; without TLS, on a network of your own",
        ));
    }
    let path = Path::new(typed);
    let names_a_file = path.file_name().is_some() && !typed.ends_with('/');
    match names_a_file && !path.is_dir() {
        true => Ok(Place::File(path.into())),
        false => Err(Fault::new(
            "is no file name",
            "write the path of a file, as in /var/lib/weir/state",
        )),
    }
}

/// Without a password: errors go to logs.
fn hidden(typed: &str) -> String {
    match typed.rsplit_once('@') {
        Some((_, host)) if typed.contains("://") => format!("redis://...@{host}"),
        _ => typed.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<Lasting, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn nothing_lasts_by_default() {
        let lasting = read(&[]).unwrap();
        assert!(lasting.file.is_none() && lasting.server.is_none());
    }

    #[test]
    fn a_file_and_a_server() {
        let url = "redis://weir:secret@127.0.0.1:6380/2";
        let lasting = read(&["--state", "/var/lib/weir/state", "--state", url]).unwrap();
        assert_eq!(lasting.file, Some("/var/lib/weir/state".into()));
        let shown = lasting.server.unwrap().to_string();
        assert_eq!(shown, "redis://127.0.0.1:6380/2");
    }

    #[test]
    fn one_of_each_and_nothing_else() {
        let wrong: [&[&str]; 6] = [
            &["--state", "a", "--state", "b"],
            &["--state", "redis://a", "--state", "redis://b"],
            &["--state", "http://127.0.0.1"],
            &["--state", "/var/lib/weir/"],
            &["--state", "/tmp"],
            &["--state", "redis://:x@/y"],
        ];
        for args in wrong {
            assert_eq!(testing::blamed(read(args)), ["--state"], "{args:?}");
        }
        let told = read(&["--state", "redis://:hunter2@host/y"]).unwrap_err();
        assert!(!format!("{told:?}").contains("hunter2"), "{told:?}");
    }
}
