//! Reads typed values one after the other and remembers everything that is wrong, so that all of it is reported at once.

use std::{fmt, ops::RangeInclusive, time::Duration};

use super::units::{self, Fault};

/// One thing wrong with the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// `--flag`, or empty where no single flag is to blame.
    pub flag: String,
    pub value: String,
    pub why: String,
    pub remedy: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.flag)?;
        if !self.value.is_empty() {
            write!(f, " {:?}", self.value)?;
        }
        if !self.flag.is_empty() {
            f.write_str(" ")?;
        }
        write!(f, "{}; {}", self.why, self.remedy)
    }
}

/// The collector. Where a value is wrong its methods return a stand-in, which nobody uses: a configuration with
/// errors is never handed out.
#[derive(Default, Debug)]
pub struct Reader {
    wrong: Vec<Wrong>,
}

/// Whether 0 has a meaning of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zero {
    /// 0 lifts the limit or turns the thing off; it is inside the range whatever that says.
    Lifts,
    /// 0 is a number like others.
    Plain,
}

impl Reader {
    pub fn wrong(&mut self, flag: &str, value: impl Into<String>, fault: Fault) {
        let Fault { why, remedy } = fault;
        self.wrong.push(Wrong {
            flag: flag.into(),
            value: value.into(),
            why,
            remedy,
        });
    }

    pub fn finish(self) -> Result<(), Vec<Wrong>> {
        if self.wrong.is_empty() {
            Ok(())
        } else {
            Err(self.wrong)
        }
    }

    /// Runs a parser; None after an error.
    pub fn parse<T>(
        &mut self,
        flag: &str,
        typed: &str,
        parser: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        parser(typed.trim())
            .map_err(|fault| self.wrong(flag, typed, fault))
            .ok()
    }

    pub fn duration(
        &mut self,
        flag: &str,
        typed: &str,
        range: RangeInclusive<Duration>,
        zero: Zero,
    ) -> Duration {
        self.ranged(
            flag,
            typed,
            units::duration,
            range,
            zero,
            Duration::ZERO,
            units::show,
        )
    }

    pub fn size(&mut self, flag: &str, typed: &str, range: RangeInclusive<u64>, zero: Zero) -> u64 {
        self.ranged(flag, typed, units::size, range, zero, 0, units::show_size)
    }

    pub fn byte_rate(&mut self, flag: &str, typed: &str, range: RangeInclusive<u64>) -> u64 {
        self.ranged(flag, typed, units::byte_rate, range, Zero::Lifts, 0, |n| {
            units::show_size(n) + "/s"
        })
    }

    pub fn count(
        &mut self,
        flag: &str,
        typed: &str,
        range: RangeInclusive<u32>,
        zero: Zero,
    ) -> u32 {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        let n = self.ranged(flag, typed, units::count, wide, zero, 0, |n| n.to_string());
        u32::try_from(n).expect("the range is one of 32 bits")
    }

    /// One of some words.
    pub fn choice<T: Copy>(&mut self, flag: &str, typed: &str, words: &[(&str, T)]) -> T {
        let found = words.iter().find(|(word, _)| *word == typed.trim());
        if found.is_none() {
            let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(
                flag,
                typed,
                Fault::new(
                    "is none of the choices",
                    format!("write {}", list.join(" or ")),
                ),
            );
        }
        found.unwrap_or(&words[0]).1
    }

    #[allow(clippy::too_many_arguments)] // one private body behind the typed faces above
    fn ranged<T: PartialOrd + Copy>(
        &mut self,
        flag: &str,
        typed: &str,
        parser: impl FnOnce(&str) -> Result<T, Fault>,
        range: RangeInclusive<T>,
        zero: Zero,
        nothing: T,
        show: impl Fn(T) -> String,
    ) -> T {
        let (low, high) = (*range.start(), *range.end());
        let Some(value) = self.parse(flag, typed, parser) else {
            return low;
        };
        if range.contains(&value) || (zero == Zero::Lifts && value == nothing) {
            return value;
        }
        let or_zero = if zero == Zero::Lifts && low > nothing {
            ", or 0 to lift it"
        } else {
            ""
        };
        self.wrong(
            flag,
            typed,
            Fault::new(
                "is out of range",
                format!("write {} to {}{or_zero}", show(low), show(high)),
            ),
        );
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_remembered() {
        let mut reader = Reader::default();
        reader.duration(
            "--a",
            "soon",
            Duration::from_secs(1)..=Duration::from_secs(60),
            Zero::Lifts,
        );
        reader.count("--b", "70000", 1..=64, Zero::Plain);
        reader.choice("--c", "maybe", &[("yes", true), ("no", false)]);
        reader.size("--d", "2KiB", 0..=1024, Zero::Plain);
        let wrong = reader.finish().unwrap_err();
        let lines: Vec<String> = wrong.iter().map(Wrong::to_string).collect();
        assert_eq!(
            lines,
            [
                "--a \"soon\" is no duration; write a number and a unit, as in 250ms, 30s, 10m or 1h",
                "--b \"70000\" is out of range; write 1 to 64",
                "--c \"maybe\" is none of the choices; write yes or no",
                "--d \"2KiB\" is out of range; write 0 B to 1.0 KiB",
            ]
        );
    }

    #[test]
    fn zero_is_inside_only_where_it_lifts() {
        let mut reader = Reader::default();
        assert_eq!(reader.count("--a", "0", 1..=9, Zero::Lifts), 0);
        reader.count("--b", "0", 1..=9, Zero::Plain);
        reader.count("--c", "10", 1..=9, Zero::Lifts);
        let wrong = reader.finish().unwrap_err();
        assert_eq!(
            wrong.iter().map(|w| w.flag.as_str()).collect::<Vec<_>>(),
            ["--b", "--c"]
        );
        assert!(wrong[1].remedy.ends_with("or 0 to lift it"));
    }
}
