//! What the sink does wrong on purpose, and the grammar of it.
//!
//! ```text
//! faults  = fault *( blank fault )  |  "none"
//! fault   = place ":delay=" delay              reply later; `all` delays a flight, as a long way would
//!         | place ":" code "=" rate            4xx or 5xx; after 421 and 521 the connection is closed
//!         | place ":" deed [ "=" rate ]        deed = reset | close | stall | garbage, in place of the reply
//!         | "body:" ( "reset" | "stall" ) "@" ( octet | "random" ) [ "=" rate ]      in the midst of a message
//!         | "connections=" number              further ones hear 421 and are closed
//!         | "read=" octets "/s"                no connection is read faster
//! place   = all | greeting | ehlo | mail | rcpt | data | bdat | final | rset | noop | quit
//! rate    = number "%"                         100% where it is left out
//! octets  = number [ "k" | "m" ]
//! ```
//! `final` is the reply that accepts a message, to the dot or to BDAT LAST; `bdat` the reply to other chunks. See [`Delay`] for delays.
//! Of several faults for one reply the first that comes up is taken. A random octet is one of the size that MAIL or BDAT has stated, else of
//! the first 16 KiB; a message that ends before it meets its fault at its end.

use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};

use super::delay::Delay;

/// What a reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Final,
    Rset,
    Noop,
    Quit,
}

const PLACES: [(&str, Place); 10] = [
    ("greeting", Place::Greeting),
    ("ehlo", Place::Ehlo),
    ("mail", Place::Mail),
    ("rcpt", Place::Rcpt),
    ("data", Place::Data),
    ("bdat", Place::Bdat),
    ("final", Place::Final),
    ("rset", Place::Rset),
    ("noop", Place::Noop),
    ("quit", Place::Quit),
];

/// What happens in place of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Reply(u16),
    /// RST.
    Reset,
    /// FIN.
    Close,
    /// No reply, now or later; the connection stays.
    Stall,
    /// Something that is no reply.
    Garbage,
}

impl Deed {
    /// For counters.
    pub fn word(self) -> &'static str {
        match self {
            Deed::Reply(421 | 521) => "turned_away",
            Deed::Reply(code) if code < 500 => "deferred",
            Deed::Reply(_) => "rejected",
            Deed::Reset => "reset",
            Deed::Close => "closed",
            Deed::Stall => "stalled",
            Deed::Garbage => "garbage",
        }
    }
}

/// The faults of one kind of reply.
#[derive(Debug, Clone, Default, PartialEq)]
struct Rules {
    delay: Option<Delay>,
    deeds: Vec<(Deed, f64)>,
}

/// A fault in the midst of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
struct BodyRule {
    deed: Deed,
    /// None: a random one.
    octet: Option<u64>,
    rate: f64,
}

/// Where a random octet lies if nobody has stated a size.
const UNSTATED_OCTETS: u64 = 16 * 1024;

/// All faults in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// As they were written.
    text: String,
    /// Of every flight.
    flight: Option<Delay>,
    places: [Rules; PLACES.len()],
    body: Vec<BodyRule>,
    pub connections_max: Option<usize>,
    pub read_per_second: Option<u32>,
}

impl Faults {
    /// What happens to the reply for `place`, if it is not what should happen.
    pub fn deed(&self, place: Place, rng: &mut fastrand::Rng) -> Option<Deed> {
        let rules = &self.places[place as usize];
        let hit = rules.deeds.iter().find(|(_, rate)| rng.f64() < *rate);
        hit.map(|(deed, _)| *deed)
    }

    pub fn delay(&self, place: Place) -> Option<Delay> {
        self.places[place as usize].delay
    }

    /// The delay of every flight.
    pub fn flight_delay(&self) -> Option<Delay> {
        self.flight
    }

    /// What is to happen at which octet of a message whose size may have been stated.
    pub fn trap(&self, stated: Option<u64>, rng: &mut fastrand::Rng) -> Option<(u64, Deed)> {
        let rule = self.body.iter().find(|rule| rng.f64() < rule.rate)?;
        let octet = rule
            .octet
            .unwrap_or_else(|| rng.u64(0..stated.unwrap_or(UNSTATED_OCTETS).max(1)));
        Some((octet, rule.deed))
    }

    /// Adds one fault.
    fn add(&mut self, fault: &str) -> anyhow::Result<()> {
        if let Some(number) = fault.strip_prefix("connections=") {
            let number = number
                .parse()
                .with_context(|| format!("`{number}` is no number of connections"))?;
            self.connections_max = Some(number);
            return Ok(());
        }
        if let Some(rate) = fault.strip_prefix("read=") {
            let octets = rate
                .strip_suffix("/s")
                .context("a reading speed is octets a second, as read=10k/s")?;
            let octets = u32::try_from(octets_of(octets)?).context("so fast is nobody read")?;
            ensure!(octets > 0, "a sink that reads nothing is body:stall@0");
            self.read_per_second = Some(octets);
            return Ok(());
        }
        let (place, what) = fault
            .split_once(':')
            .context("a fault is place:what, connections=N or read=N/s")?;
        match place {
            "body" => self.add_to_body(what),
            "all" => self.add_to_all(what),
            _ => {
                let row = PLACES.iter().find(|row| row.0 == place);
                let (_, place) = row.with_context(|| {
                    let known: Vec<&str> = PLACES.iter().map(|row| row.0).collect();
                    format!("`{place}` is none of all, body, {}", known.join(", "))
                })?;
                self.add_to(*place, what)
            }
        }
    }

    fn add_to(&mut self, place: Place, what: &str) -> anyhow::Result<()> {
        let rules = &mut self.places[place as usize];
        match what.strip_prefix("delay=") {
            Some(delay) => rules.delay = Some(delay.parse()?),
            None => rules.deeds.push(deed_of(what)?),
        }
        Ok(())
    }

    fn add_to_all(&mut self, what: &str) -> anyhow::Result<()> {
        if let Some(delay) = what.strip_prefix("delay=") {
            self.flight = Some(delay.parse()?);
            return Ok(());
        }
        let deed = deed_of(what)?;
        for rules in &mut self.places {
            rules.deeds.push(deed);
        }
        Ok(())
    }

    fn add_to_body(&mut self, what: &str) -> anyhow::Result<()> {
        let (what, rate) = with_rate(what)?;
        let (word, octet) = what
            .split_once('@')
            .context("a fault of a body says where: body:reset@1000, body:reset@random=5%")?;
        let deed = match word {
            "reset" => Deed::Reset,
            "stall" => Deed::Stall,
            _ => bail!("`{word}` is none of reset, stall"),
        };
        let octet = match octet {
            "random" => None,
            octet => Some(octets_of(octet)?),
        };
        self.body.push(BodyRule { deed, octet, rate });
        Ok(())
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.text.is_empty() {
            "none"
        } else {
            &self.text
        })
    }
}

impl FromStr for Faults {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Faults> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut faults = Faults::default();
        if words == ["none"] {
            return Ok(faults);
        }
        for word in &words {
            faults
                .add(word)
                .with_context(|| format!("fault `{word}`"))?;
        }
        faults.text = words.join(" ");
        Ok(faults)
    }
}

fn deed_of(what: &str) -> anyhow::Result<(Deed, f64)> {
    let (word, rate) = with_rate(what)?;
    let deed = match word {
        "reset" => Deed::Reset,
        "close" => Deed::Close,
        "stall" => Deed::Stall,
        "garbage" => Deed::Garbage,
        code => {
            let code: u16 = code.parse().ok().with_context(|| {
                format!("`{word}` is none of delay=, reset, close, stall, garbage, or a reply code")
            })?;
            ensure!((400..600).contains(&code), "a refusal is 400 to 599");
            Deed::Reply(code)
        }
    };
    Ok((deed, rate))
}

/// `what[=rate%]`, the rate as a fraction.
fn with_rate(text: &str) -> anyhow::Result<(&str, f64)> {
    let Some((what, rate)) = text.split_once('=') else {
        return Ok((text, 1.0));
    };
    let percent: f64 = rate
        .strip_suffix('%')
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("`{rate}` is no rate, as 1% or 0.05%"))?;
    ensure!((0.0..=100.0).contains(&percent), "a rate is 0% to 100%");
    Ok((what, percent / 100.0))
}

fn octets_of(text: &str) -> anyhow::Result<u64> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .with_context(|| format!("`{text}` is no number of octets, as 1000, 64k or 2m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Faults {
        text.parse().unwrap()
    }

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(3)
    }

    #[test]
    fn faults_are_read() {
        let all = faults(
            "rcpt:450=1%  final:reset mail:delay=5ms all:delay=50ms connections=7 read=2k/s",
        );
        assert_eq!(all.connections_max, Some(7));
        assert_eq!(all.read_per_second, Some(2048));
        assert!(all.flight_delay().is_some() && all.delay(Place::Mail).is_some());
        assert_eq!(all.delay(Place::Rcpt), None);
        assert_eq!(all.deed(Place::Final, &mut rng()), Some(Deed::Reset));
        assert_eq!(all.deed(Place::Mail, &mut rng()), None);
        assert_eq!(
            all.to_string(),
            "rcpt:450=1% final:reset mail:delay=5ms all:delay=50ms connections=7 read=2k/s"
        );
        assert_eq!(faults(&all.to_string()), all);
        assert_eq!(faults("none"), faults(""));
        assert_eq!(faults("").to_string(), "none");
    }

    #[test]
    fn rates_are_kept() {
        let some = faults("rcpt:450=5% rcpt:550=10%");
        let mut rng = rng();
        let (mut deferred, mut rejected) = (0, 0);
        for _ in 0..100_000 {
            match some.deed(Place::Rcpt, &mut rng) {
                Some(Deed::Reply(450)) => deferred += 1,
                Some(Deed::Reply(550)) => rejected += 1,
                None => {}
                other => panic!("{other:?}"),
            }
        }
        assert!((4_700..5_300).contains(&deferred), "{deferred}");
        assert!((9_100..9_900).contains(&rejected), "{rejected}");
    }

    #[test]
    fn the_same_seed_makes_the_same_faults() {
        let some = faults("rcpt:450=50%");
        let draw = || {
            let mut rng = rng();
            (0..64)
                .map(|_| some.deed(Place::Rcpt, &mut rng).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }

    #[test]
    fn all_is_every_reply() {
        let all = faults("all:421=100%");
        for (_, place) in PLACES {
            assert_eq!(all.deed(place, &mut rng()), Some(Deed::Reply(421)));
        }
    }

    #[test]
    fn traps_lie_within_the_message() {
        let chosen = faults("body:reset@1k");
        assert_eq!(chosen.trap(None, &mut rng()), Some((1024, Deed::Reset)));
        let random = faults("body:stall@random");
        let mut rng = rng();
        for _ in 0..1000 {
            let (octet, deed) = random.trap(Some(100), &mut rng).unwrap();
            assert!(octet < 100 && deed == Deed::Stall);
            assert!(random.trap(Some(0), &mut rng).unwrap().0 == 0);
            assert!(random.trap(None, &mut rng).unwrap().0 < UNSTATED_OCTETS);
        }
        assert_eq!(faults("body:reset@5=0%").trap(None, &mut rng), None);
    }

    #[test]
    fn what_is_no_fault_says_why() {
        for (text, want) in [
            ("rcpt", "place:what"),
            ("vrfy:450", "none of all, body, greeting"),
            ("rcpt:450=1", "no rate"),
            ("rcpt:450=101%", "0% to 100%"),
            ("rcpt:450=NaN%", "0% to 100%"),
            ("rcpt:250", "400 to 599"),
            ("rcpt:sulk", "none of delay="),
            ("rcpt:delay=x", "no time"),
            ("body:reset", "says where"),
            ("body:reset@x", "no number of octets"),
            ("body:close@1", "none of reset, stall"),
            ("connections=many", "no number of connections"),
            ("read=5", "octets a second"),
            ("read=0/s", "body:stall@0"),
            ("read=9999m/s", "so fast"),
            ("read=99999999999999999999m/s", "no number of octets"),
            ("none rcpt:450", "place:what"),
        ] {
            let error = format!("{:#}", text.parse::<Faults>().unwrap_err());
            assert!(
                error.contains(want) && error.contains("fault `"),
                "{text}: {error}"
            );
        }
    }
}
