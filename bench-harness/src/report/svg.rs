//! Colours that follow the reader.
//!
//! plotters writes fixed colours into its SVG. So that one drawing serves a dark and a light page, charts are drawn in *inks*: colours
//! that no eye is meant to see and that each stand for a part of a chart. [`Svg::of`] then turns every ink into a class
//! (`stroke="#010003"` becomes `class="k c3"`), and the stylesheet of the page says what a class looks like, by `prefers-color-scheme`.
//! Lines are told apart by colour, dash and marker, so that the colour alone never carries meaning.

use plotters::style::RGBColor;

/// What a stroke or a filling is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    Text,
    Axis,
    Grid,
    LightGrid,
    /// A line or its marker, by number of colour and dash.
    Line(Look),
}

/// How one line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// The colour and the marker: of a run, of a peer.
    pub number: u8,
    pub dash: Dash,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dash {
    #[default]
    Solid,
    Dashed,
    Dotted,
}

/// Colours of the stylesheet; lines beyond them start again with other markers.
pub const COLOURS: u8 = 8;
/// Shapes [`super::charts`] draws; with the colours 24 lines differ in one of both.
pub const MARKERS: u8 = 6;

const KIND_OF_INK: u8 = 1;

impl Ink {
    pub fn colour(self) -> RGBColor {
        match self {
            Ink::Text => RGBColor(KIND_OF_INK, 1, 0),
            Ink::Axis => RGBColor(KIND_OF_INK, 2, 0),
            Ink::Grid => RGBColor(KIND_OF_INK, 3, 0),
            Ink::LightGrid => RGBColor(KIND_OF_INK, 4, 0),
            Ink::Line(look) => RGBColor(KIND_OF_INK, 16 + look.dash as u8, look.number % COLOURS),
        }
    }
}

impl Look {
    pub fn new(number: usize, dash: Dash) -> Look {
        Look {
            number: (number % usize::from(COLOURS * MARKERS)) as u8,
            dash,
        }
    }

    pub fn marker(self) -> u8 {
        self.number % MARKERS
    }
}

/// A finished drawing: numbers and our own labels, escaped by plotters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svg(String);

impl Svg {
    /// The drawing, its inks made classes, with its text alternative. `title` and `says` come from us and from peers alike.
    pub fn of(drawing: &str, title: &str, says: &str) -> Svg {
        let mut alternative = super::html::Html::new();
        alternative
            .wrap("<title>", title, "</title>")
            .wrap("<desc>", says, "</desc>");
        let inner = drawing
            .split_once('>')
            .map_or("", |(_, inner)| inner)
            .replace(" opacity=\"1\"", "")
            .replace(" font-family=\"sans-serif\"", "")
            .replace(" \"/>", "\"/>");
        Svg(format!(
            "{} role=\"img\">{}{}",
            opening(drawing),
            alternative.into_string(),
            classed(&inner)
        ))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `<svg` with its viewBox alone: how wide it is, the page decides.
fn opening(drawing: &str) -> String {
    let head = drawing.split_once('>').map_or(drawing, |(head, _)| head);
    let view = head
        .split_once("viewBox=\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("0 0 1 1", |(view, _)| view);
    format!("<svg viewBox=\"{view}\"")
}

/// Turns `stroke="#01RRNN"` and `fill="#01RRNN"` into classes. An element of plotters has one colour.
fn classed(drawing: &str) -> String {
    let mut out = String::with_capacity(drawing.len());
    let mut rest = drawing;
    while let Some(at) = rest.find("=\"#01") {
        let (before, after) = rest.split_at(at);
        let (name, is_stroke) = match before.strip_suffix("stroke") {
            Some(name) => (name, true),
            None => (before.strip_suffix("fill").unwrap_or(before), false),
        };
        out.push_str(name);
        out.push_str(&class(&after[5..9], is_stroke));
        rest = &after[10..];
    }
    out.push_str(rest);
    out
}

fn class(ink: &str, is_stroke: bool) -> String {
    let part = u8::from_str_radix(&ink[..2], 16).unwrap_or(0);
    let number = u8::from_str_radix(&ink[2..], 16).unwrap_or(0);
    match (part, is_stroke) {
        (1, _) => "class=\"t\"".to_owned(),
        (2, _) => "class=\"a\"".to_owned(),
        (3, _) => "class=\"g\"".to_owned(),
        (4, _) => "class=\"g l\"".to_owned(),
        (17, true) => format!("class=\"k c{number} d1\""),
        (18, true) => format!("class=\"k c{number} d2\""),
        (_, true) => format!("class=\"k c{number}\""),
        (_, false) => format!("class=\"f c{number}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inks_become_classes() {
        let drawing = "<svg width=\"9\" height=\"5\" viewBox=\"0 0 9 5\" xmlns=\"http://www.w3.org/2000/svg\">\n\
            <line opacity=\"1\" stroke=\"#011103\" stroke-width=\"2\"/>\n<text fill=\"#010100\">\n1 ms\n</text>\n\
            <circle fill=\"#011007\" stroke=\"none\"/>\n</svg>\n";
        let svg = Svg::of(drawing, "<b>", "says");
        assert_eq!(
            svg.as_str(),
            "<svg viewBox=\"0 0 9 5\" role=\"img\"><title>&lt;b&gt;</title><desc>says</desc>\n\
             <line class=\"k c3 d1\" stroke-width=\"2\"/>\n<text class=\"t\">\n1 ms\n</text>\n\
             <circle class=\"f c7\" stroke=\"none\"/>\n</svg>\n"
        );
    }

    #[test]
    fn every_ink_is_another_colour() {
        let mut colours: Vec<_> = [Ink::Text, Ink::Axis, Ink::Grid, Ink::LightGrid]
            .map(Ink::colour)
            .to_vec();
        for number in 0..usize::from(COLOURS) {
            for dash in [Dash::Solid, Dash::Dashed, Dash::Dotted] {
                colours.push(Ink::Line(Look::new(number, dash)).colour());
            }
        }
        let mut texts: Vec<_> = colours.iter().map(|c| (c.0, c.1, c.2)).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), colours.len());
    }
}
