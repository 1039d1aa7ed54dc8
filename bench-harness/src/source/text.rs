//! The paths of a plan, in which `{}` stands for the number of the start.

use std::io::Write as _;

/// A path cut at its `{}`.
pub struct Template {
    before: Vec<u8>,
    after: Option<Vec<u8>>,
}

impl Template {
    pub fn new(text: &str) -> Template {
        match text.split_once("{}") {
            Some((before, after)) => Template {
                before: before.into(),
                after: Some(after.into()),
            },
            None => Template {
                before: text.into(),
                after: None,
            },
        }
    }

    /// Appends it for the start `number`. Further places (the second recipient of a message is 1) get `number.place`, so that they differ.
    pub fn put(&self, out: &mut Vec<u8>, number: u64, place: u32) {
        out.extend_from_slice(&self.before);
        let Some(after) = &self.after else { return };
        let written = match place {
            0 => write!(out, "{number}"),
            _ => write!(out, "{number}.{place}"),
        };
        written.expect("a Vec takes everything");
        out.extend_from_slice(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_goes_where_the_braces_are() {
        for (text, place, want) in [
            ("a{}@b.example", 0, "a7@b.example"),
            ("a{}@b.example", 2, "a7.2@b.example"),
            ("{}", 0, "7"),
            ("a@b.example", 3, "a@b.example"),
            ("", 0, ""),
        ] {
            let mut out = Vec::new();
            Template::new(text).put(&mut out, 7, place);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}
