//! Configuration files with gaps: `{port}`, `{folder}`. The files are bench-harness/peers/*, so that everybody can read what is compared.

use anyhow::{Result, bail};

/// The text with every gap filled. A gap that nobody fills, or a value that no gap asks for, is an error.
pub fn fill(name: &str, text: &str, values: &[(&str, String)]) -> Result<String> {
    let mut filled = text.to_owned();
    for (gap, value) in values {
        let gap = format!("{{{gap}}}");
        if !text.contains(&gap) {
            bail!("{name} has no {gap}");
        }
        filled = filled.replace(&gap, value);
    }
    match gap_of(&filled) {
        Some(gap) => bail!("{name}: nothing to put for {gap}"),
        None => Ok(filled),
    }
}

/// The first `{word}` of the text: braces of the configuration languages themselves have blanks or line ends inside.
fn gap_of(text: &str) -> Option<&str> {
    text.match_indices('{').find_map(|(at, _)| {
        let word = text[at + 1..].split_once('}')?.0;
        let is_gap = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
        is_gap.then(|| &text[at..at + word.len() + 2])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_and_braces_stay() {
        let text = "listen {port};\nevents { }\nevents {\n}\nagain {port}";
        let filled = fill("x", text, &[("port", "25".to_owned())]).unwrap();
        assert_eq!(filled, "listen 25;\nevents { }\nevents {\n}\nagain 25");
    }

    #[test]
    fn a_gap_without_value_and_a_value_without_gap_are_errors() {
        let error = fill("x.cfg", "a {port} {folder}", &[("port", "25".to_owned())]).unwrap_err();
        assert_eq!(error.to_string(), "x.cfg: nothing to put for {folder}");
        let error = fill("x.cfg", "a", &[("port", "25".to_owned())]).unwrap_err();
        assert_eq!(error.to_string(), "x.cfg has no {port}");
    }
}
