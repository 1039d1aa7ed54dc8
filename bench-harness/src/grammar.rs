//! The small languages of flag values: `2000/s`, `100/s..2000/s over 30s`, `4k*9,100k*1`, `127.4.0.1+50`; and of whole streams ([`stream`]).
//!
//! Every parser returns the value, or the remedy: what to write instead. Which flag the value was given to is the caller's business; what
//! is wrong with all of them gathers in [`problem::Problems`].

pub mod problem;
#[cfg(test)]
pub(crate) mod samples;
pub mod stream;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::plan::{Bodies, Pattern, Sources, Step};

pub type Parsed<T> = Result<T, String>;

/// A made message holds its id, a header and a line.
const SIZE_MIN: u32 = crate::source::MADE_OCTETS_MIN as u32;
const SIZE_MAX: u32 = 64 << 20;
/// Faster than a machine can open connections; a slip of the keyboard rather than a wish.
const RATE_MAX: f64 = 1e6;

/// `60000`, `60k`, `2m`: thousands and millions.
pub fn count(text: &str) -> Parsed<u64> {
    let remedy = || "a whole number of at least 1, as 500, 60k or 2m".to_owned();
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1_000_000),
            None => (text, 1),
        },
    };
    let number: u64 = digits.parse().map_err(|_| remedy())?;
    match number.checked_mul(factor) {
        Some(number) if number > 0 => Ok(number),
        _ => Err(remedy()),
    }
}

/// As [`count`], for what is kept in 32 bits.
pub fn count32(text: &str) -> Parsed<u32> {
    count(text)?
        .try_into()
        .map_err(|_| format!("at most {}", u32::MAX))
}

/// `10s`, `250ms`, `1m 30s`.
pub fn duration(text: &str) -> Parsed<Duration> {
    let time =
        humantime::parse_duration(text).map_err(|_| "a time with its unit, as 250ms, 10s or 2m")?;
    match time {
        time if time <= DURATION_MAX => Ok(time),
        _ => Err("at most a year".to_owned()),
    }
}

/// Times are added up and added to clocks, which have an end.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// As [`duration`], but not nothing.
pub fn duration_some(text: &str) -> Parsed<Duration> {
    match duration(text)? {
        Duration::ZERO => Err("more than nothing, as 250ms, 10s or 2m".to_owned()),
        some => Ok(some),
    }
}

/// `2000/s`, `0.5/s`, `120k/m`, `10/h`; in starts per second.
pub fn rate(text: &str) -> Parsed<f64> {
    let remedy = || "a rate with its unit, as 2000/s, 0.5/s or 120k/m".to_owned();
    let (number, unit) = text.trim().rsplit_once('/').ok_or_else(remedy)?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(remedy()),
    };
    let (number, factor) = match number.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1e3),
        None => (number, 1.0),
    };
    let rate = number.parse::<f64>().map_err(|_| remedy())? * factor / seconds;
    match rate {
        rate if (0.0..=RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!("from 0/s to {RATE_MAX}/s")),
    }
}

/// `2000/s`: how fast kept connections are opened, at least one a second.
pub fn opening(text: &str) -> Parsed<u32> {
    match rate(text)? {
        rate if rate >= 1.0 => Ok(rate as u32),
        _ => Err("at least 1/s".to_owned()),
    }
}

/// A piece of a planned rate whose length may be left to the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece {
    pub from: f64,
    pub to: f64,
    pub over: Option<Duration>,
}

/// `2000/s`, or pieces: `100/s..2000/s over 30s, 2000/s over 1m, 500/s`. Only the last may lack its `over`: it fills the run.
pub fn pieces(text: &str) -> Parsed<Vec<Piece>> {
    let pieces: Vec<Piece> = text.split(',').map(piece).collect::<Parsed<_>>()?;
    if pieces
        .iter()
        .rev()
        .skip(1)
        .any(|piece| piece.over.is_none())
    {
        return Err("every piece but the last says how long: 100/s over 10s, 2000/s".to_owned());
    }
    if pieces
        .iter()
        .all(|piece| piece.from == 0.0 && piece.to == 0.0)
    {
        return Err("at least one piece starts something".to_owned());
    }
    Ok(pieces)
}

fn piece(text: &str) -> Parsed<Piece> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let (rates, over) = match words.as_slice() {
        [rates] => (*rates, None),
        [rates, "over", length] => (*rates, Some(duration_some(length)?)),
        _ => return Err("write 2000/s, or 100/s..2000/s over 30s".to_owned()),
    };
    let (from, to) = match rates.split_once("..") {
        Some((from, to)) => (rate(from)?, rate(to)?),
        None => (rate(rates)?, rate(rates)?),
    };
    Ok(Piece { from, to, over })
}

/// How long the pieces say they last, without an open end.
pub fn pieces_last(pieces: &[Piece]) -> Duration {
    pieces.iter().filter_map(|piece| piece.over).sum()
}

/// Fits pieces into a run: an open end takes what is left.
pub fn fit(pieces: &[Piece], lasts: Duration) -> Parsed<Vec<Step>> {
    let fixed = pieces_last(pieces);
    let open_end = pieces.iter().any(|piece| piece.over.is_none());
    let left = lasts.checked_sub(fixed).ok_or_else(|| {
        format!(
            "its pieces last {}, the run {}: make --for longer",
            humantime::format_duration(fixed),
            humantime::format_duration(lasts)
        )
    })?;
    if open_end && left.is_zero() {
        return Err("nothing is left for the last piece: make --for longer".to_owned());
    }
    Ok(pieces
        .iter()
        .map(|piece| Step {
            from: piece.from,
            to: piece.to,
            lasts: piece.over.unwrap_or(left),
        })
        .collect())
}

pub fn pattern(text: &str) -> Parsed<Pattern> {
    match text {
        "constant" => Ok(Pattern::Constant),
        "poisson" => Ok(Pattern::Poisson),
        _ => Err("one of constant, poisson".to_owned()),
    }
}

/// `4k`, `100k`, `1m`, `4096`: octets, k being 1024.
pub fn size(text: &str) -> Parsed<u32> {
    let remedy = || format!("octets from {SIZE_MIN} to 64m, as 4k or 4096");
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1u32),
        },
    };
    let number: u32 = digits.parse().map_err(|_| remedy())?;
    match number.checked_mul(factor) {
        Some(octets) if (SIZE_MIN..=SIZE_MAX).contains(&octets) => Ok(octets),
        _ => Err(remedy()),
    }
}

/// `1k/s`, `500/s`: octets a second.
pub fn rate_of_octets(text: &str) -> Parsed<u32> {
    let remedy = || "octets a second, as 500/s or 1k/s".to_owned();
    let number = text.strip_suffix("/s").ok_or_else(remedy)?;
    let (digits, factor) = match number.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => (number, 1u32),
    };
    let number: u32 = digits.parse().map_err(|_| remedy())?;
    match number.checked_mul(factor) {
        Some(speed) if speed > 0 => Ok(speed),
        _ => Err(remedy()),
    }
}

/// `4k`, a mix `4k*9,100k*1`, or `@FILE` with a size and a weight on every line.
pub fn sizes(text: &str) -> Parsed<Bodies> {
    let weights: Vec<(u32, u32)> = match text.strip_prefix('@') {
        Some(path) => sizes_of_file(path)?,
        None => text.split(',').map(weighted).collect::<Parsed<_>>()?,
    };
    Ok(Bodies::Sizes { weights })
}

fn weighted(text: &str) -> Parsed<(u32, u32)> {
    match text.trim().split_once('*') {
        Some((octets, weight)) => Ok((size(octets)?, weight_of(weight)?)),
        None => Ok((size(text.trim())?, 1)),
    }
}

fn weight_of(text: &str) -> Parsed<u32> {
    match text.parse() {
        Ok(weight @ 1..=1_000_000) => Ok(weight),
        _ => Err(format!("'{text}' is no weight: write 4k*9,100k*1")),
    }
}

fn sizes_of_file(path: &str) -> Parsed<Vec<(u32, u32)>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let mut weights = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("");
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let at = |remedy: String| format!("{path}:{}: {remedy}", number + 1);
        match words.as_slice() {
            [] => {}
            [octets, weight] => {
                weights.push((size(octets).map_err(at)?, weight_of(weight).map_err(at)?))
            }
            _ => return Err(at("a line is a size and a weight: 4k 9".to_owned())),
        }
    }
    match weights.is_empty() {
        true => Err(format!("{path} has no sizes: write lines as 4k 9")),
        false => Ok(weights),
    }
}

/// A folder of messages, a Maildir or an mbox file that is there.
pub fn mail(text: &str) -> Parsed<Bodies> {
    let from = PathBuf::from(text);
    match Path::new(text).metadata() {
        Ok(_) => Ok(Bodies::Files { from }),
        Err(e) => Err(format!(
            "a folder of messages, a Maildir or an mbox file: {e}"
        )),
    }
}

/// `127.4.0.1`, `127.4.0.1+50` (so many from there), `127.4.0.1-127.4.0.50`, or `any`.
pub fn sources(text: &str) -> Parsed<Sources> {
    let remedy = || "an address, 127.4.0.1+50, 127.4.0.1-127.4.0.50, or any".to_owned();
    let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| remedy());
    if text == "any" {
        return Ok(Sources {
            first: IpAddr::from([0, 0, 0, 0]),
            count: 1,
        });
    }
    let (first, count) = if let Some((first, count)) = text.split_once('+') {
        (address(first)?, count32(count)?)
    } else if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (address(first)?, address(last)?);
        (first, distance(first, last).ok_or_else(remedy)?)
    } else {
        (address(text)?, 1)
    };
    let after_last = as_number(first).checked_add(u128::from(count) - 1);
    let width_max = if first.is_ipv4() {
        u128::from(u32::MAX)
    } else {
        u128::MAX
    };
    match after_last {
        Some(last) if last <= width_max => Ok(Sources { first, count }),
        _ => Err("so many addresses do not follow that one".to_owned()),
    }
}

/// How many addresses there are from one to the other, both included.
fn distance(first: IpAddr, last: IpAddr) -> Option<u32> {
    if first.is_ipv4() != last.is_ipv4() {
        return None;
    }
    let between = as_number(last).checked_sub(as_number(first))?;
    u32::try_from(between.checked_add(1)?).ok()
}

fn as_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// `127.0.0.1:2525`. Names are not looked up: a load test goes exactly where it was pointed.
pub fn address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| {
        "an address with its port, as 127.0.0.1:2525 or [::1]:2525; names are not looked up"
            .to_owned()
    })
}

/// A name or path that fits on a command line of SMTP.
pub fn word(text: &str) -> Parsed<String> {
    match text {
        "" => Err("some printable characters without spaces".to_owned()),
        text if text.len() > 250 => Err("at most 250 characters".to_owned()),
        text if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err("printable characters without spaces".to_owned()),
    }
}

#[cfg(test)]
#[path = "grammar/grammar_tests.rs"]
mod tests;
