//! Line charts as SVG, by plotters, in the inks of [`super::svg`].
//!
//! One frame ([`draw`]) serves them all: `latency` has the ones over percentiles, `timeline` the ones over time. A legend is HTML below
//! the drawing: it wraps, so it cannot overlap.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::axis::Axis;
use super::html::Html;
use super::svg::{Dash, Ink, Look, Svg};

/// One line of a chart. Values, not positions.
#[derive(Debug, Clone)]
pub struct Line {
    pub name: String,
    pub look: Look,
    pub points: Vec<(f64, f64)>,
    /// Where a marker stands.
    pub marks: Vec<(f64, f64)>,
}

/// What is drawn.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    /// The text alternative: the figures a reader would take from the drawing.
    pub says: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    /// Vertical lines: where, in values.
    pub marks: Vec<f64>,
    pub height: u32,
}

const WIDTH: u32 = 920;
const TEXT_SIZE: f64 = 16.0;
const Y_LABELS_WIDTH: u32 = 84;
const X_LABELS_HEIGHT: u32 = 50;

type Error = DrawingAreaErrorKind<std::io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Chart {
    /// Writes the figure: title, drawing, legend, and `note` below it.
    pub fn write(&self, note: &str, into: &mut Html) {
        into.raw("<figure>\n")
            .wrap("<figcaption>", &self.title, "</figcaption>\n")
            .raw("<div class=\"scroll chart\" tabindex=\"0\" role=\"region\" aria-label=\"")
            .text(&self.title)
            .raw("\">\n")
            .svg(&self.svg())
            .raw("</div>\n<ul class=\"legend\">\n");
        for line in &self.lines {
            into.raw("<li>")
                .svg(&swatch(line))
                .text(&line.name)
                .raw("</li>\n");
        }
        into.raw("</ul>\n");
        if !note.is_empty() {
            into.wrap("<p class=\"note\">", note, "</p>\n");
        }
        into.raw("</figure>\n");
    }

    fn svg(&self) -> Svg {
        let mut drawing = String::new();
        draw(self, &mut drawing).expect("a String takes every drawing");
        Svg::of(&drawing, &self.title, &self.says)
    }
}

fn draw(chart: &Chart, into: &mut String) -> Result<(), Error> {
    let area = SVGBackend::with_string(into, (WIDTH, chart.height)).into_drawing_area();
    let (x, y) = (&chart.x, &chart.y);
    let mut context = ChartBuilder::on(&area)
        .margin_top(12)
        .margin_right(34)
        .set_label_area_size(LabelAreaPosition::Left, Y_LABELS_WIDTH)
        .set_label_area_size(LabelAreaPosition::Bottom, X_LABELS_HEIGHT)
        .build_cartesian_2d(x.clone(), y.clone())?;
    let ink = Ink::Text.colour();
    let text = TextStyle::from(("sans-serif", TEXT_SIZE).into_font()).color(&ink);
    context
        .configure_mesh()
        .axis_style(Ink::Axis.colour())
        .bold_line_style(Ink::Grid.colour())
        .light_line_style(Ink::LightGrid.colour())
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_desc(&x.title)
        .y_desc(&y.title)
        .draw()?;
    for mark in &chart.marks {
        let at = x.at(*mark);
        let look = Ink::Axis.colour().stroke_width(1);
        context.draw_series([PathElement::new(vec![(at, y.from), (at, y.to)], look)])?;
    }
    for line in &chart.lines {
        let style = Ink::Line(line.look).colour().stroke_width(2);
        let points = line.points.iter().map(|(px, py)| (x.at(*px), y.at(*py)));
        context.draw_series(LineSeries::new(points, style))?;
    }
    let plot = context.plotting_area().strip_coord_spec();
    for line in &chart.lines {
        for (px, py) in &line.marks {
            let at = context.backend_coord(&(x.at(*px), y.at(*py)));
            let (left, top) = plot.get_base_pixel();
            mark(&plot, line.look, (at.0 - left, at.1 - top))?;
        }
    }
    area.present()
}

/// plotters asks an axis for pixels and ticks; ours has its ticks already.
impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, position: &f64, (low, high): (i32, i32)) -> i32 {
        let share = (position - self.from) / (self.to - self.from);
        low + (share * f64::from(high - low)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return self.light.clone();
        }
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(_: &f64) -> String {
        String::new()
    }

    fn format_ext(&self, position: &f64) -> String {
        let tick = self.ticks.iter().find(|(at, _)| at == position);
        tick.map_or_else(String::new, |(_, label)| label.clone())
    }
}

/// A marker of one of [`super::svg::MARKERS`] shapes around a pixel.
fn mark(area: &Area<'_>, look: Look, (x, y): (i32, i32)) -> Result<(), Error> {
    let ink = Ink::Line(Look {
        dash: Dash::Solid,
        ..look
    })
    .colour();
    let outline = |points: &[(i32, i32)]| {
        let points: Vec<_> = points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        Polygon::new(points, ink.filled())
    };
    match look.marker() {
        0 => area.draw(&Circle::new((x, y), 4, ink.filled())),
        1 => area.draw(&outline(&[(-4, -4), (4, -4), (4, 4), (-4, 4)])),
        2 => area.draw(&outline(&[(0, -5), (5, 4), (-5, 4)])),
        3 => area.draw(&outline(&[(0, -6), (6, 0), (0, 6), (-6, 0)])),
        4 => area.draw(&outline(&[(0, 5), (5, -4), (-5, -4)])),
        _ => area.draw(&Cross::new((x, y), 4, ink.stroke_width(2))),
    }
}

/// The line as its legend shows it.
fn swatch(line: &Line) -> Svg {
    let mut drawing = String::new();
    {
        let area = SVGBackend::with_string(&mut drawing, (40, 14)).into_drawing_area();
        let style = Ink::Line(line.look).colour().stroke_width(2);
        area.draw(&PathElement::new(vec![(1, 7), (39, 7)], style))
            .and_then(|()| match line.marks.is_empty() {
                true => Ok(()),
                false => mark(&area, line.look, (20, 7)),
            })
            .and_then(|()| area.present())
            .expect("a String takes every drawing");
    }
    Svg::of(&drawing, &line.name, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::axis::Steps;
    use crate::units;

    fn chart(lines: Vec<Line>) -> String {
        Chart {
            title: "t".to_owned(),
            says: "s".to_owned(),
            x: Axis::time(10.0),
            y: Axis::linear("y", 10.0, Steps::Decimal, units::short),
            lines,
            marks: vec![2.0],
            height: 300,
        }
        .svg()
        .as_str()
        .to_owned()
    }

    #[test]
    fn no_fixed_colour_is_left() {
        for number in 0..24 {
            let drawing = chart(vec![Line {
                name: "l".to_owned(),
                look: Look::new(number, Dash::Dashed),
                points: vec![(0.0, 1.0), (10.0, 100.0)],
                marks: vec![(5.0, 5.0)],
            }]);
            assert!(!drawing.contains("\"#"), "{drawing}");
            assert!(drawing.contains(&format!("class=\"k c{} d1\"", number % 8)));
        }
    }

    #[test]
    fn nothing_to_draw_still_has_axes() {
        assert!(chart(Vec::new()).contains("10 s"));
        let empty = Line {
            name: String::new(),
            look: Look::default(),
            points: Vec::new(),
            marks: Vec::new(),
        };
        assert!(chart(vec![empty]).contains("10 s"));
    }
}
