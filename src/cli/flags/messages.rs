//! What one message and one connection may carry, and how bodies are held and checked.

use clap::Args;

use crate::cli::{
    reader::{Reader, Zero},
    units::Fault,
};
use weir_smtp::body::BareNewline;

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Messages")]
pub struct Flags {
    /// Largest message
    ///
    /// Announced as SIZE (or what the smallest upstream announces, if less); a larger one gets 552.
    ///
    /// Range: 64KiB to 4GiB, or 0: no limit of weir's own. Cost: none, bodies beyond --hold-size are streamed.
    #[arg(long, value_name = "SIZE", default_value = "50MiB")]
    pub max_message_size: String,

    /// Most recipients of one message
    ///
    /// One more gets 452. Announced as LIMITS RCPTMAX.
    ///
    /// Range: 100 (RFC 5321, 4.5.3.1.8) to 32000, or 0: the most there can be. Cost: up to 600 bytes per recipient while the
    /// transaction is open.
    #[arg(long, value_name = "N", default_value = "1000")]
    pub max_recipients: String,

    /// Messages per connection
    ///
    /// One more gets 421. Announced as LIMITS MAILMAX.
    ///
    /// Range: 1 to 1000000, or 0: no limit. Cost: none.
    #[arg(long, value_name = "N", default_value = "100")]
    pub max_messages: String,

    /// What happens to a bare LF or CR in a message: reject, normalize or pass
    ///
    /// reject: 550 at the end of data. normalize: it becomes CRLF. pass: bytes stay as they are, but only towards upstreams with
    /// CHUNKING, where no byte of a body can be taken for its end; others reject.
    ///
    /// Range: reject, normalize, pass. Cost: none.
    #[arg(long, value_name = "HOW", default_value = "reject")]
    pub bare_newline: String,

    /// Body bytes held of one message before it is streamed
    ///
    /// A message up to this size goes up in one flight after its end, so a slow client holds no upstream. A larger one holds an
    /// upstream and has to keep --min-data-rate.
    ///
    /// Range: 16KiB to 64MiB. Cost: memory, see --hold-memory.
    #[arg(long, value_name = "SIZE", default_value = "256KiB")]
    pub hold_size: String,

    /// Body bytes held of all messages together
    ///
    /// Over all shards. When used up, bodies are streamed from their first byte.
    ///
    /// Range: 1MiB to 1TiB. Cost: that much memory under load, kept for the next load.
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub hold_memory: String,

    /// Slowest body that may hold an upstream
    ///
    /// For bodies that outgrew --hold-size. A slower one ends in 451, and the upstream connection is closed.
    ///
    /// Range: 1B/s to 100MB/s, or 0: only --timeout-body counts. Cost: none.
    #[arg(long, value_name = "SIZE/s", default_value = "500B/s")]
    pub min_data_rate: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Messages {
    /// 0: no limit.
    pub size_max: u64,
    pub recipients_max: u32,
    /// 0: no limit.
    pub messages_max: u32,
    pub bare_newline: BareNewline,
    pub hold_size: u64,
    pub hold_memory: u64,
    /// Bytes per second; 0: none.
    pub data_rate_min: u64,
}

/// More would not fit a transaction's index of recipients.
pub const RECIPIENTS_MAX: u32 = 32_000;

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Messages {
        let meant = Messages {
            size_max: reader.size(
                "--max-message-size",
                &self.max_message_size,
                64 << 10..=4 << 30,
                Zero::Lifts,
            ),
            recipients_max: reader.count(
                "--max-recipients",
                &self.max_recipients,
                100..=RECIPIENTS_MAX,
                Zero::Lifts,
            ),
            messages_max: reader.count(
                "--max-messages",
                &self.max_messages,
                1..=1_000_000,
                Zero::Lifts,
            ),
            bare_newline: reader.choice(
                "--bare-newline",
                &self.bare_newline,
                &[
                    ("reject", BareNewline::Reject),
                    ("normalize", BareNewline::Normalize),
                    ("pass", BareNewline::Pass),
                ],
            ),
            hold_size: reader.size(
                "--hold-size",
                &self.hold_size,
                16 << 10..=64 << 20,
                Zero::Plain,
            ),
            hold_memory: reader.size(
                "--hold-memory",
                &self.hold_memory,
                1 << 20..=1 << 40,
                Zero::Plain,
            ),
            data_rate_min: reader.byte_rate(
                "--min-data-rate",
                &self.min_data_rate,
                1..=100_000_000,
            ),
        };
        if meant.hold_memory < meant.hold_size {
            let fault = Fault::new("is below --hold-size", "raise it, or lower --hold-size");
            reader.wrong("--hold-memory", &self.hold_memory, fault);
        }
        Messages {
            recipients_max: if meant.recipients_max == 0 {
                RECIPIENTS_MAX
            } else {
                meant.recipients_max
            },
            ..meant
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<Messages, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn defaults() {
        let meant = read(&[]).unwrap();
        assert_eq!(
            (meant.size_max, meant.recipients_max, meant.messages_max),
            (50 << 20, 1000, 100)
        );
        assert_eq!(
            (meant.hold_size, meant.hold_memory, meant.data_rate_min),
            (256 << 10, 256 << 20, 500)
        );
        assert_eq!(meant.bare_newline, BareNewline::Reject);
    }

    #[test]
    fn zero_lifts() {
        let meant = read(&[
            "--max-message-size",
            "0",
            "--max-recipients",
            "0",
            "--max-messages",
            "0",
            "--min-data-rate",
            "0",
        ])
        .unwrap();
        assert_eq!(
            (
                meant.size_max,
                meant.recipients_max,
                meant.messages_max,
                meant.data_rate_min
            ),
            (0, RECIPIENTS_MAX, 0, 0)
        );
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let args = [
            "--max-message-size",
            "1KiB",
            "--max-recipients",
            "50",
            "--bare-newline",
            "keep",
            "--hold-size",
            "0",
            "--min-data-rate",
            "fast",
        ];
        let expected = [
            "--max-message-size",
            "--max-recipients",
            "--bare-newline",
            "--hold-size",
            "--min-data-rate",
        ];
        assert_eq!(testing::blamed(read(&args)), expected);
        assert_eq!(
            testing::blamed(read(&["--hold-size", "8MiB", "--hold-memory", "4MiB"])),
            ["--hold-memory"]
        );
    }
}
