//! Limits per client address (IPv4 /32, IPv6 /64, or --client-prefix), and what is shed under overload.

use clap::Args;

use crate::cli::{
    reader::{Reader, Zero},
    units::Fault,
};
use crate::net::ClientPrefix;
use crate::policy::{
    bytes::ByteRate,
    concurrency, errors,
    overload::{self, Watermarks},
    rate::Rate,
};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Clients")]
pub struct Flags {
    /// How many bits of an IPv4 and of an IPv6 address make one client
    ///
    /// For all limits per client address, and for which shard it comes to: all of one prefix share them. 32/64: an IPv4 address
    /// and what one customer has of IPv6. 24/56 counts by small networks instead, of a sender that has many addresses.
    ///
    /// Range: V4/V6 with V4 from 8 to 32 and V6 from 16 to 64. Cost: none; short prefixes spread unevenly over shards.
    #[arg(long, value_name = "V4/V6", default_value = "32/64")]
    pub client_prefix: String,

    /// Connections at a time per client address
    ///
    /// Parked ones count. Beyond it: finding concurrency. An address is an IPv4 address or an IPv6 /64 (--client-prefix).
    ///
    /// Range: 1 to 1000000, or 0: no limit. Cost: none.
    #[arg(long, value_name = "N", default_value = "0")]
    pub client_concurrency: String,

    /// New connections per client address
    ///
    /// N at once, then one each UNIT/N. Beyond it: finding rate-connections.
    ///
    /// Range: N/UNIT with UNIT s, m, h, d or a number of them, as in 30/m or 5/60s; 0: no limit. Cost: none.
    #[arg(long, value_name = "N/UNIT", default_value = "0")]
    pub rate_connections: String,

    /// Messages per client address
    ///
    /// Counted at MAIL. Beyond it: finding rate-messages.
    ///
    /// Range: N/UNIT as above; 0: no limit. Cost: none.
    #[arg(long, value_name = "N/UNIT", default_value = "0")]
    pub rate_messages: String,

    /// Recipients per client address
    ///
    /// Counted at RCPT. Beyond it: finding rate-recipients.
    ///
    /// Range: N/UNIT as above; 0: no limit. Cost: none.
    #[arg(long, value_name = "N/UNIT", default_value = "0")]
    pub rate_recipients: String,

    /// Message bytes per client address
    ///
    /// Beyond it weir reads more slowly: finding rate-bytes, action delay.
    ///
    /// Range: SIZE/UNIT, as in 64K/s or 10M/m; 0: no limit. Cost: a body takes longer, up to --hold-size each.
    #[arg(long, value_name = "SIZE/UNIT", default_value = "0")]
    pub rate_bytes: String,

    /// Errors of a session beyond which its replies are delayed
    ///
    /// 4xx and 5xx replies to commands. Finding errors-soft. The address is remembered: who comes back begins slow.
    ///
    /// Range: 1 to 10000, or 0: never. Cost: none.
    #[arg(long, value_name = "N", default_value = "10")]
    pub errors_soft: String,

    /// Errors of a session at which it ends
    ///
    /// Finding errors-hard: 421.
    ///
    /// Range: 1 to 10000, above --errors-soft, or 0: never. Cost: none.
    #[arg(long, value_name = "N", default_value = "20")]
    pub errors_hard: String,

    /// Commands without mail in a row at which a session ends
    ///
    /// NOOP, RSET, VRFY and their like, between accepted messages. Finding junk: 421.
    ///
    /// Range: 1 to 10000, or 0: never. Cost: none.
    #[arg(long, value_name = "N", default_value = "100")]
    pub junk_max: String,

    /// Client addresses that are remembered, per shard
    ///
    /// With their rates, errors and temper. When full, the least interesting one makes room.
    ///
    /// Range: 1024 to 16777216. Cost: 69 bytes each: at the default 17 MiB per shard once seen.
    #[arg(long, value_name = "N", default_value = "262144")]
    pub clients_max: String,

    /// When load is shed: a rung of the ladder and its two watermarks (repeatable)
    ///
    /// In percent of connections, file-table slots and buffers, whichever is scarcest. A rung is entered at HIGH and left below LOW.
    /// stress: timeouts are shorter. known-only: no clients that never had a message accepted. shed: parked clients are cut, and
    /// nobody new is let in but those of --allow-list.
    ///
    /// Range: stress, known-only, shed; 1 to 100, LOW below HIGH, both rising with the rungs.
    /// Default: stress=70:55 known-only=85:70 shed=95:85. Cost: none.
    #[arg(long, value_name = "RUNG=HIGH:LOW", value_delimiter = ' ')]
    pub overload: Vec<String>,
}

#[derive(Clone)]
pub struct Clients {
    pub prefix: ClientPrefix,
    pub concurrency: concurrency::Limit,
    pub rate_connections: Rate,
    pub rate_messages: Rate,
    pub rate_recipients: Rate,
    pub rate_bytes: ByteRate,
    pub errors: errors::Limits,
    pub clients_max: u32,
    pub overload: overload::Config,
}

impl Clients {
    /// Whether any of the rates that hosts share is limited.
    pub fn limits_rates(&self) -> bool {
        let rates = [
            self.rate_connections,
            self.rate_messages,
            self.rate_recipients,
        ];
        rates.iter().any(|rate| !rate.is_unlimited())
    }
}

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Clients {
        Clients {
            prefix: reader
                .parse("--client-prefix", &self.client_prefix, prefix)
                .unwrap_or_default(),
            concurrency: concurrency::Limit(reader.count(
                "--client-concurrency",
                &self.client_concurrency,
                1..=1_000_000,
                Zero::Lifts,
            )),
            rate_connections: rate(reader, "--rate-connections", &self.rate_connections),
            rate_messages: rate(reader, "--rate-messages", &self.rate_messages),
            rate_recipients: rate(reader, "--rate-recipients", &self.rate_recipients),
            rate_bytes: self.bytes(reader),
            errors: self.errors(reader),
            clients_max: reader.count(
                "--clients-max",
                &self.clients_max,
                1024..=1 << 24,
                Zero::Plain,
            ),
            overload: self.ladder(reader),
        }
    }

    fn bytes(&self, reader: &mut Reader) -> ByteRate {
        let parse = |typed: &str| {
            typed
                .parse::<ByteRate>()
                .map_err(|why| Fault::new("is no rate", why.to_string()))
        };
        reader
            .parse("--rate-bytes", &self.rate_bytes, parse)
            .unwrap_or_default()
    }

    fn errors(&self, reader: &mut Reader) -> errors::Limits {
        let mut count = |flag, typed| reader.count(flag, typed, 1..=10_000, Zero::Lifts) as u16;
        let limits = errors::Limits {
            soft: count("--errors-soft", &self.errors_soft),
            hard: count("--errors-hard", &self.errors_hard),
            junk: count("--junk-max", &self.junk_max),
        };
        if limits.hard != 0 && limits.soft >= limits.hard {
            let fault = Fault::new(
                "is not above --errors-soft",
                format!("make it more than {}, or 0", limits.soft),
            );
            reader.wrong("--errors-hard", &self.errors_hard, fault);
        }
        limits
    }

    fn ladder(&self, reader: &mut Reader) -> overload::Config {
        let mut config = overload::Config::default();
        for typed in self.overload.iter().filter(|typed| !typed.is_empty()) {
            if let Some((rung, marks)) = reader.parse("--overload", typed, rung) {
                config.0[rung] = marks;
            }
        }
        if !config.is_sound() {
            let fault = Fault::new(
                "has rungs out of order",
                "keep LOW below HIGH, and let both rise from stress to known-only to shed",
            );
            reader.wrong("--overload", self.overload.join(" "), fault);
        }
        config
    }
}

/// N/UNIT; no limit after an error.
pub fn rate(reader: &mut Reader, flag: &str, typed: &str) -> Rate {
    let parse = |typed: &str| {
        typed
            .parse::<Rate>()
            .map_err(|why| Fault::new("is no rate", why.to_string()))
    };
    reader.parse(flag, typed, parse).unwrap_or_default()
}

/// `known-only=85:70`
fn rung(typed: &str) -> Result<(usize, Watermarks), Fault> {
    let fault = || {
        Fault::new(
            "is no RUNG=HIGH:LOW",
            "write stress, known-only or shed and two percentages, as in shed=95:85",
        )
    };
    let (word, marks) = typed.split_once('=').ok_or_else(fault)?;
    let rung = ["stress", "known-only", "shed"]
        .iter()
        .position(|rung| *rung == word)
        .ok_or_else(fault)?;
    let (high, low) = marks.split_once(':').ok_or_else(fault)?;
    let percent = |typed: &str| {
        typed
            .parse::<u16>()
            .ok()
            .filter(|n| (1..=100).contains(n))
            .map(|n| n * 10)
            .ok_or_else(fault)
    };
    Ok((
        rung,
        Watermarks {
            high: percent(high)?,
            low: percent(low)?,
        },
    ))
}

/// V4/V6
pub fn prefix(typed: &str) -> Result<ClientPrefix, Fault> {
    let bits = typed.split_once('/').and_then(|(v4, v6)| {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(v4) && digits(v6)).then_some((v4.parse().ok()?, v6.parse().ok()?))
    });
    bits.and_then(|(v4, v6)| ClientPrefix::new(v4, v6))
        .ok_or_else(|| {
            Fault::new(
                "is not two prefix lengths",
                "write V4/V6, as in 32/64; V4 from 8 to 32, V6 from 16 to 64",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<Clients, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn a_client_is_as_much_of_an_address_as_one_likes() {
        for (typed, bits) in [("32/64", (32, 64)), ("24/48", (24, 48)), ("8/16", (8, 16))] {
            let meant = read(&["--client-prefix", typed]).ok().unwrap();
            assert_eq!(meant.prefix.bits(), bits);
        }
        for typed in [
            "", "24", "33/64", "7/64", "32/65", "32/15", "+24/64", "24/64/8",
        ] {
            let wrong = read(&["--client-prefix", typed]);
            assert_eq!(testing::blamed(wrong), ["--client-prefix"], "{typed}");
        }
    }

    #[test]
    fn limits_per_client_are_off_until_asked_for() {
        let meant = read(&[]).ok().unwrap();
        assert_eq!(meant.concurrency.0, 0);
        assert!(
            [
                meant.rate_connections,
                meant.rate_messages,
                meant.rate_recipients
            ]
            .iter()
            .all(|rate| rate.is_unlimited())
        );
        assert!(meant.rate_bytes.is_unlimited());
        assert_eq!(
            (meant.errors.soft, meant.errors.hard, meant.errors.junk),
            (10, 20, 100)
        );
        assert_eq!(meant.clients_max, 262_144);
        assert_eq!(meant.overload, overload::Config::default());
    }

    #[test]
    fn set() {
        let args = [
            "--client-concurrency",
            "20",
            "--rate-messages",
            "100/h",
            "--rate-bytes",
            "64K/s",
            "--overload",
            "stress=60:50 shed=99:90",
        ];
        let meant = read(&args).ok().unwrap();
        assert_eq!(
            (
                meant.concurrency.0,
                meant.rate_messages.to_string().as_str()
            ),
            (20, "100/h")
        );
        assert_eq!(
            (meant.overload.0[0].high, meant.overload.0[2].low),
            (600, 900)
        );
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let args = [
            "--client-concurrency",
            "-",
            "--rate-connections",
            "30",
            "--rate-messages",
            "1/fortnight",
            "--rate-recipients",
            "x",
            "--rate-bytes",
            "much",
            "--errors-soft",
            "30",
            "--junk-max",
            "100000",
            "--clients-max",
            "0",
            "--overload",
            "panic=1:2",
            "--overload",
            "shed=50:40",
        ];
        let expected = [
            "--client-concurrency",
            "--rate-connections",
            "--rate-messages",
            "--rate-recipients",
            "--rate-bytes",
            "--junk-max",
            "--errors-hard",
            "--clients-max",
            "--overload",
            "--overload",
        ];
        assert_eq!(testing::blamed(read(&args)), expected);
    }
}
