//! Lists of client addresses in DNS: which are asked, what their answers weigh, how often they are tested.

use std::time::Duration;

use clap::Args;

use crate::cli::{
    reader::{Reader, Zero},
    units::Fault,
};
use crate::policy::dnsbl::{Config, Spec, SpecError, zones};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "DNS lists")]
pub struct Flags {
    /// A block list or allow list in DNS, and what being on it weighs (repeatable)
    ///
    /// The address of each client is looked up in ZONE (RFC 5782), IPv4 and IPv6. FILTER: the answers that count, as in 127.0.0.2,
    /// 127.0.0.[2..11], 127.0.0.[2;4;10..11], or several with | between; none: all. WEIGHT is added to the client's score: a positive
    /// one is finding dnsbl, a negative one dnswl. The same ZONE may be named again with other filters: it is asked once, and the
    /// weights of all that match add up. as=NAME: what the list is called in replies and logs; without it ZONE, less a first label of
    /// 16 or more letters and digits, as customers' keys are. txt: a client refused for this list is told the list's own reason.
    ///
    /// Answers outside 127.0.0.0/8, in 127.255.255.0/24, and 127.0.0.1 are faults of the list or of the resolver, never listings.
    ///
    /// Range: up to 64 zones; WEIGHT from -100 to 100, default 1. Default: none. Cost: a question per zone and client address, unless the
    /// answer is cached; with txt another for those listed.
    #[arg(
        long,
        value_name = "ZONE[=FILTER][*WEIGHT][,as=NAME][,txt]",
        value_delimiter = ' '
    )]
    pub dnsbl: Vec<String>,

    /// Time between two tests of a DNS list
    ///
    /// At start and from then on, each list has to list 127.0.0.2 and must not list 127.0.0.1 (RFC 5782, 5; for IPv6 clients
    /// ::FFFF:7F00:2 and ::FFFF:7F00:1). One that says nothing about a client, or what is no listing, is tested before its time. One
    /// that fails is suspended: it is not asked, it counts for nothing, the log and the status page say so, and it is tested again
    /// every minute.
    ///
    /// Range: 1m to 1d, or 0: lists are believed untested. Cost: four questions per list.
    #[arg(long, value_name = "DURATION", default_value = "30m")]
    pub dnsbl_recheck: String,
}

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Config {
        let parse = |typed: &str| typed.parse::<Spec>().map_err(fault);
        let typed: Vec<&String> = self
            .dnsbl
            .iter()
            .filter(|typed| !typed.is_empty())
            .collect();
        let specs: Vec<Spec> = typed
            .iter()
            .filter_map(|typed| reader.parse("--dnsbl", typed, parse))
            .collect();
        let zones = zones(specs).unwrap_or_else(|why| {
            let last = typed.last().map_or("", |typed| typed.as_str());
            let fault = Fault::new(
                format!("does not go with the others: {why}"),
                "name each zone once, and no more than that",
            );
            reader.wrong("--dnsbl", last, fault);
            Config::default().zones
        });
        Config {
            zones,
            recheck: reader.duration(
                "--dnsbl-recheck",
                &self.dnsbl_recheck,
                Duration::from_secs(60)..=Duration::from_secs(86_400),
                Zero::Lifts,
            ),
        }
    }
}

fn fault(why: SpecError) -> Fault {
    Fault::new(
        format!("cannot be used: {why}"),
        "write a zone, as in bl.example=127.0.0.[2..11]*3",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<Config, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn no_list_is_asked_until_named() {
        let meant = read(&[]).unwrap();
        assert!(meant.zones.is_empty());
        assert_eq!(meant.recheck, Config::default().recheck);
    }

    #[test]
    fn lists_have_filters_weights_and_names() {
        let meant = read(&[
            "--dnsbl",
            "zen.example=127.0.0.[2..3]*3,txt",
            "--dnsbl=zen.example=127.0.0.[10..11] wl.example*-5,as=Good",
            "--dnsbl-recheck",
            "0",
        ])
        .unwrap();
        let shown: Vec<(&str, Vec<String>)> = meant
            .zones
            .iter()
            .map(|zone| (&**zone.public(), zone.rules().collect()))
            .collect();
        let rules = |rules: &[&str]| rules.iter().map(|rule| (*rule).into()).collect();
        assert_eq!(
            shown,
            [
                (
                    "zen.example",
                    rules(&["=127.0.0.[2..3]*3", "=127.0.0.[10..11]*1"])
                ),
                ("Good", rules(&["*-5"])),
            ]
        );
        assert_eq!(meant.recheck, Duration::ZERO);
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let args = [
            "--dnsbl",
            "bl.example*many",
            "--dnsbl",
            "127.0.0.2=",
            "--dnsbl",
            "x.example,as=X",
            "--dnsbl",
            "x.example,as=Y",
            "--dnsbl-recheck",
            "5s",
        ];
        assert_eq!(
            testing::blamed(read(&args)),
            ["--dnsbl", "--dnsbl", "--dnsbl", "--dnsbl-recheck"]
        );
    }
}
