//! How long weir waits for a client, and how long a client waits for weir.

use std::time::Duration;

use clap::Args;

use crate::cli::{
    reader::{Reader, Zero},
    units::{self, Fault},
};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Timeouts")]
pub struct Flags {
    /// Longest wait for a client's next command
    ///
    /// Inside a transaction; between transactions --timeout-idle counts. Then 421 and close. Also how long an upstream may take
    /// for its greeting and EHLO.
    ///
    /// Range: 1s to 1h; RFC 5321, 4.5.3.2.7 asks for 5m at least. Cost: an open session each.
    #[arg(long, value_name = "DURATION", default_value = "300s")]
    pub timeout_command: String,

    /// Longest time between transactions
    ///
    /// Then 421 and close.
    ///
    /// Range: 1s to 1d, or 0: no limit. Cost: 640 bytes and a socket per idle session.
    #[arg(long, value_name = "DURATION", default_value = "600s")]
    pub timeout_idle: String,

    /// Longest wait for the next bytes of a body
    ///
    /// Then 421 and close; nothing of the message was accepted.
    ///
    /// Range: 1s to 1h; RFC 5321, 4.5.3.2.5 lets a client take 3m per block. Cost: up to --hold-size each.
    #[arg(long, value_name = "DURATION", default_value = "180s")]
    pub timeout_body: String,

    /// Deadline for the reply to RCPT (and to MAIL)
    ///
    /// Spent by everything behind it: wait for a connection, connect, retry, the upstream's reply. Then 451.
    ///
    /// Range: 1s to 4m50s, so that the client, who waits 5m (RFC 5321, 4.5.3.2.3), hears it. Cost: none.
    #[arg(long, value_name = "DURATION", default_value = "4m")]
    pub deadline_rcpt: String,

    /// Deadline for the reply to DATA
    ///
    /// Range: 1s to 1m50s, so that the client, who waits 2m (RFC 5321, 4.5.3.2.4), hears it. Cost: none.
    #[arg(long, value_name = "DURATION", default_value = "100s")]
    pub deadline_data: String,

    /// Deadline for the final reply to a message
    ///
    /// From the client's end of data. Then 451; if the upstream had the whole message it may have accepted it, so a short
    /// deadline makes duplicates.
    ///
    /// Range: 1s to 9m50s, so that the client, who waits 10m (RFC 5321, 4.5.3.2.6), hears it. Cost: none.
    #[arg(long, value_name = "DURATION", default_value = "9m")]
    pub deadline_final: String,

    /// Silence of a client after which its upstream connection serves others
    ///
    /// Inside a transaction, when all replies are out. The envelope is replayed at the end of the message, at the upstream
    /// that accepted it (at another only if that one is ejected); a recipient refused in the replay makes it 451.
    ///
    /// Range: 100ms to 1h, or 0: never; then slow clients hold their connections. Cost: RSET, MAIL and RCPT once more for
    /// messages of slow clients.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub give_back: String,

    /// Longest drain after SIGTERM or SIGINT
    ///
    /// No new sessions; open transactions may finish until then. A final reply that is owed is waited for beyond it, up to
    /// --deadline-final. A second signal ends at once.
    ///
    /// Range: 1s to 1h, or 0: only owed replies are waited for. Cost: the service manager has to wait as long (TimeoutStopSec).
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub drain_timeout: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    pub command: Duration,
    /// Zero: no limit.
    pub idle: Duration,
    pub body: Duration,
    pub rcpt: Duration,
    pub data: Duration,
    pub end: Duration,
    /// Zero: never.
    pub give_back: Duration,
    pub drain: Duration,
}

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Timeouts {
        let seconds = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
        let meant = Timeouts {
            command: reader.duration(
                "--timeout-command",
                &self.timeout_command,
                seconds(1, 3600),
                Zero::Plain,
            ),
            idle: reader.duration(
                "--timeout-idle",
                &self.timeout_idle,
                seconds(1, 86_400),
                Zero::Lifts,
            ),
            body: reader.duration(
                "--timeout-body",
                &self.timeout_body,
                seconds(1, 3600),
                Zero::Plain,
            ),
            rcpt: reader.duration(
                "--deadline-rcpt",
                &self.deadline_rcpt,
                seconds(1, 290),
                Zero::Plain,
            ),
            data: reader.duration(
                "--deadline-data",
                &self.deadline_data,
                seconds(1, 110),
                Zero::Plain,
            ),
            end: reader.duration(
                "--deadline-final",
                &self.deadline_final,
                seconds(1, 590),
                Zero::Plain,
            ),
            give_back: reader.duration(
                "--give-back",
                &self.give_back,
                Duration::from_millis(100)..=Duration::from_secs(3600),
                Zero::Lifts,
            ),
            drain: reader.duration(
                "--drain-timeout",
                &self.drain_timeout,
                seconds(1, 3600),
                Zero::Lifts,
            ),
        };
        if meant.end < meant.data {
            let remedy = format!("make it at least {}", units::show(meant.data));
            reader.wrong(
                "--deadline-final",
                &self.deadline_final,
                Fault::new("is shorter than --deadline-data", remedy),
            );
        }
        meant
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<Timeouts, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn defaults_leave_the_client_time_to_hear_the_reply() {
        let meant = read(&[]).unwrap();
        assert_eq!(
            [meant.command, meant.idle, meant.body].map(|t| t.as_secs()),
            [300, 600, 180]
        );
        assert_eq!(
            [meant.rcpt, meant.data, meant.end, meant.drain].map(|t| t.as_secs()),
            [240, 100, 540, 60]
        );
    }

    #[test]
    fn a_deadline_beyond_the_clients_patience_is_refused() {
        let args = [
            "--deadline-rcpt",
            "5m",
            "--deadline-data",
            "2m",
            "--deadline-final",
            "10m",
            "--timeout-command",
            "0",
        ];
        let expected = [
            "--timeout-command",
            "--deadline-rcpt",
            "--deadline-data",
            "--deadline-final",
        ];
        assert_eq!(testing::blamed(read(&args)), expected);
    }

    #[test]
    fn zero_lifts_where_waiting_for_ever_is_meant() {
        let meant = read(&["--timeout-idle", "0", "--drain-timeout", "0"]).unwrap();
        assert_eq!((meant.idle, meant.drain), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn deadlines_agree_with_each_other() {
        assert_eq!(
            testing::blamed(read(&["--deadline-final", "30s"])),
            ["--deadline-final"]
        );
    }
}
