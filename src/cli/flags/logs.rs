//! What is written where.

use std::path::PathBuf;

use clap::Args;

use crate::cli::reader::Reader;
use crate::maillog::{self, Format};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Logs")]
pub struct Flags {
    /// Form of log lines: text or json
    ///
    /// One line per session end and per transaction, with the client, HELO name, sender, recipients, size, upstream, reply and
    /// durations; bytes of peers escaped and cut.
    ///
    /// Range: text, json. Cost: none.
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub log_format: String,

    /// File to append the log to
    ///
    /// Opened again at SIGHUP, for logrotate. If the disk or the reader of a pipe is too slow, lines are dropped and counted
    /// (weir_log_lines_dropped_total); no session waits.
    ///
    /// Range: a path in a writable folder. Default: standard error. Cost: up to 768 KiB of memory per shard.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// Least important operational lines to write: error, warn, info or debug
    ///
    /// About weir itself: start, reload, upstreams, drain. Session and transaction lines are always written.
    ///
    /// Range: error, warn, info, debug. Cost: none.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Logging {
    pub log: maillog::Config,
    pub level: log::LevelFilter,
}

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Logging {
        use log::LevelFilter::{Debug, Error, Info, Warn};
        Logging {
            log: maillog::Config {
                format: reader.choice(
                    "--log-format",
                    &self.log_format,
                    &[("text", Format::Text), ("json", Format::Json)],
                ),
                file: self.log_file.clone(),
            },
            level: reader.choice(
                "--log-level",
                &self.log_level,
                &[
                    ("error", Error),
                    ("warn", Warn),
                    ("info", Info),
                    ("debug", Debug),
                ],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<Logging, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn defaults() {
        let meant = read(&[]).unwrap();
        assert_eq!(meant.log, maillog::Config::default());
        assert_eq!(meant.level, log::LevelFilter::Info);
    }

    #[test]
    fn set_and_wrong() {
        let meant = read(&[
            "--log-format",
            "json",
            "--log-file",
            "/var/log/weir.log",
            "--log-level",
            "debug",
        ])
        .unwrap();
        assert_eq!(
            (meant.log.format, meant.log.file),
            (Format::Json, Some("/var/log/weir.log".into()))
        );
        assert_eq!(
            testing::blamed(read(&["--log-format", "xml", "--log-level", "loud"])),
            ["--log-format", "--log-level"]
        );
    }
}
