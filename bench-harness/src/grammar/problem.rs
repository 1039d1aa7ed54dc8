//! What is wrong with a command line, all of it at once: which flag, which value, and what to write instead.

use std::fmt;

/// One wrong value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// As the operator wrote it: `--rate`, or `--stream good: rate`.
    pub flag: String,
    pub value: String,
    pub remedy: String,
}

/// All wrong values of a command line. As an error it makes the exit code of bad usage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub fn add(
        &mut self,
        flag: impl Into<String>,
        value: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Problem {
            flag: flag.into(),
            value: value.into(),
            remedy: remedy.into(),
        });
    }

    /// The value, or none and a problem more.
    pub fn take<T>(&mut self, flag: &str, value: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|remedy| self.add(flag, value, remedy)).ok()
    }

    /// `whole`, if nothing is wrong.
    pub fn end<T>(self, whole: Option<T>) -> Result<T, Problems> {
        match whole {
            Some(whole) if self.0.is_empty() => Ok(whole),
            _ => Err(self),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this command line cannot be used:")?;
        for problem in &self.0 {
            write!(f, "\n  {}", problem.flag)?;
            if !problem.value.is_empty() {
                write!(f, " '{}'", problem.value)?;
            }
            write!(f, ": {}", problem.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
