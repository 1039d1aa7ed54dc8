//! Where a client comes from: the country and the autonomous system of its address, and what they weigh.
//!
//! Files in MaxMind's format say so (GeoLite2, DB-IP and others write it). They are read whole when weir starts or reloads
//! and asked once per client; what a file does not know, or is broken at, is not known. Origin alone proves nothing: it
//! is a weight beside others, and the number by which [`super::history`] sums up a provider.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use maxminddb::{PathElement, Reader};

/// A country's two letters (ISO 3166-1).
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Country([u8; 2]);

impl Country {
    pub const fn letters(self) -> [u8; 2] {
        self.0
    }
}

impl FromStr for Country {
    type Err = ();

    fn from_str(text: &str) -> Result<Country, ()> {
        let letters: [u8; 2] = text.as_bytes().try_into().map_err(|_| ())?;
        let fits = letters.iter().all(u8::is_ascii_uppercase);
        fits.then_some(Country(letters)).ok_or(())
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.0.map(char::from);
        write!(f, "{first}{second}")
    }
}

/// What is known of an address.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Place {
    /// 0: not known.
    pub asn: u32,
    pub country: Option<Country>,
}

/// The files, as far as there are any. Read once, shared by all shards, replaced whole on reload.
#[derive(Default)]
pub struct Places {
    country: Option<Reader<Vec<u8>>>,
    asn: Option<Reader<Vec<u8>>>,
}

/// What a file is for.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Kind {
    Country,
    Asn,
}

impl Places {
    /// Takes a file's content in. Its type has to fit, so that one file taken for the other is found out.
    pub fn add(&mut self, kind: Kind, content: Vec<u8>) -> Result<(), String> {
        let reader = Reader::from_source(content).map_err(|why| why.to_string())?;
        let at = match kind {
            Kind::Country => &mut self.country,
            Kind::Asn => &mut self.asn,
        };
        let about = &reader.metadata().database_type;
        let word = match kind {
            Kind::Country => ["country", "city"],
            Kind::Asn => ["asn", "isp"],
        };
        let lower = about.to_ascii_lowercase();
        if !word.iter().any(|word| lower.contains(word)) {
            return Err(format!("its type is {about:?}, which knows none"));
        }
        *at = Some(reader);
        Ok(())
    }

    /// Some microseconds: to be asked once per client.
    pub fn find(&self, ip: IpAddr) -> Place {
        let ip = ip.to_canonical();
        let country = |reader: &Reader<Vec<u8>>| {
            let path = [PathElement::Key("country"), PathElement::Key("iso_code")];
            let found: Option<&str> = reader.lookup(ip).ok()?.decode_path(&path).ok()?;
            found?.parse().ok()
        };
        let asn = |reader: &Reader<Vec<u8>>| -> Option<u32> {
            let path = [PathElement::Key("autonomous_system_number")];
            reader.lookup(ip).ok()?.decode_path(&path).ok()?
        };
        Place {
            asn: self.asn.as_ref().and_then(asn).unwrap_or_default(),
            country: self.country.as_ref().and_then(country),
        }
    }
}

/// What a weight is for.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Origin {
    Asn(u32),
    Country(Country),
}

impl Origin {
    const fn is(self, place: Place) -> bool {
        match (self, place.country) {
            (Origin::Asn(asn), _) => asn == place.asn,
            (Origin::Country(Country([a, b])), Some(Country([c, d]))) => a == c && b == d,
            (Origin::Country(_), None) => false,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Asn(asn) => write!(f, "AS{asn}"),
            Origin::Country(country) => write!(f, "{country}"),
        }
    }
}

/// One `--origin AS64500*3`.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Weight {
    pub origin: Origin,
    pub weight: i16,
}

/// The range of a weight.
const WEIGHT_MAX: i16 = super::actions::WEIGHT_MAX as i16;

impl FromStr for Weight {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Weight, &'static str> {
        let (origin, weight) = text.split_once('*').unwrap_or((text, "1"));
        let asn = origin
            .strip_prefix("AS")
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit()));
        let origin = match (asn, origin.parse()) {
            (Some(digits), _) => {
                let asn = digits.parse().ok().filter(|asn| *asn != 0);
                Origin::Asn(asn.ok_or("numbers of autonomous systems are 1 to 4294967295")?)
            }
            (None, Ok(country)) => Origin::Country(country),
            (None, Err(())) => return Err("neither AS and a number nor two capital letters"),
        };
        let weight: i16 = weight.parse().map_err(|_| "a weight is a whole number")?;
        match weight.unsigned_abs() <= WEIGHT_MAX as u16 {
            true => Ok(Weight { origin, weight }),
            false => Err("weights are -100 to 100"),
        }
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*{}", self.origin, self.weight)
    }
}

/// All weights.
#[derive(Clone, Eq, PartialEq, Default, Debug)]
pub struct Weights(pub Vec<Weight>);

impl Weights {
    pub fn of(&self, place: Place) -> impl Iterator<Item = Weight> {
        self.0
            .iter()
            .copied()
            .filter(move |weight| weight.origin.is(place))
    }

    /// Which files it takes.
    pub fn asks(&self, kind: Kind) -> bool {
        let is = |weight: &Weight| match weight.origin {
            Origin::Asn(_) => kind == Kind::Asn,
            Origin::Country(_) => kind == Kind::Country,
        };
        self.0.iter().any(is)
    }
}

#[cfg(test)]
pub mod fixtures;

#[cfg(test)]
mod tests {
    use super::fixtures::{Record, database};
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn places() -> Places {
        let mut places = Places::default();
        let countries = database(
            "Test-Country",
            &[
                ("192.0.2.0/24", Record::Country("XX")),
                ("198.51.100.0/25", Record::Country("YY")),
                ("2001:db8::/32", Record::Country("XX")),
                ("203.0.113.0/24", Record::Country("not one")),
            ],
        );
        let asns = database("Test-ASN", &[("192.0.2.128/25", Record::Asn(64500))]);
        places.add(Kind::Country, countries).expect("a file");
        places.add(Kind::Asn, asns).expect("a file");
        places
    }

    #[test]
    fn an_address_has_a_place_or_none() {
        let places = places();
        let table = [
            ("192.0.2.1", 0, Some("XX")),
            ("192.0.2.200", 64500, Some("XX")),
            ("::ffff:192.0.2.200", 64500, Some("XX")),
            ("198.51.100.127", 0, Some("YY")),
            ("198.51.100.128", 0, None),
            ("2001:db8:1::1", 0, Some("XX")),
            ("2001:db9::1", 0, None),
            ("203.0.113.1", 0, None),
        ];
        for (text, asn, country) in table {
            let country = country.map(|it| it.parse().expect("two letters"));
            assert_eq!(places.find(ip(text)), Place { asn, country }, "{text}");
        }
        assert_eq!(Places::default().find(ip("192.0.2.1")), Place::default());
    }

    #[test]
    fn files_that_are_none_are_found_out() {
        let mut places = Places::default();
        let country = || database("Test-Country", &[("10.0.0.0/8", Record::Country("XX"))]);
        for content in [Vec::new(), b"PK\x03\x04".to_vec(), vec![0; 100_000]] {
            assert!(places.add(Kind::Asn, content).is_err());
        }
        let mistaken = places.add(Kind::Asn, country());
        assert_eq!(
            mistaken,
            Err("its type is \"Test-Country\", which knows none".into())
        );
        assert_eq!(places.find(ip("10.0.0.1")), Place::default());
        // Cut or damaged anywhere: an error, or nothing is known; never more than that.
        let whole = country();
        for at in 0..whole.len() {
            let mut cut = Places::default();
            if cut.add(Kind::Country, whole[..at].to_vec()).is_ok() {
                cut.find(ip("10.0.0.1"));
            }
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            if cut.add(Kind::Country, damaged).is_ok() {
                cut.find(ip("10.0.0.1"));
            }
        }
    }

    #[test]
    fn weights_are_read_and_found() {
        let table = [
            ("AS64500*3", Ok("AS64500*3")),
            ("XX", Ok("XX*1")),
            ("YY*-100", Ok("YY*-100")),
            // American Samoa.
            ("AS", Ok("AS*1")),
            (
                "AS0",
                Err("numbers of autonomous systems are 1 to 4294967295"),
            ),
            (
                "AS4294967296",
                Err("numbers of autonomous systems are 1 to 4294967295"),
            ),
            (
                "AS+1",
                Err("neither AS and a number nor two capital letters"),
            ),
            (
                "xx*2",
                Err("neither AS and a number nor two capital letters"),
            ),
            ("XX*", Err("a weight is a whole number")),
            ("XX*101", Err("weights are -100 to 100")),
            ("XX*-32768", Err("weights are -100 to 100")),
        ];
        for (text, want) in table {
            let got = text.parse::<Weight>().map(|weight| weight.to_string());
            assert_eq!(got, want.map(String::from), "{text}");
        }
        let read = |text: &str| Weights(text.split(' ').map(|it| it.parse().unwrap()).collect());
        let weights = read("AS64500*3 XX*2 YY*-1 XX*4");
        let found: Vec<_> = weights.of(places().find(ip("192.0.2.200"))).collect();
        let words: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["AS64500*3", "XX*2", "XX*4"]);
        assert_eq!(weights.of(Place::default()).count(), 0);
        assert!(weights.asks(Kind::Asn) && !read("XX").asks(Kind::Asn));
    }
}
