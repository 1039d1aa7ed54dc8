//! HTML that cannot be injected into.
//!
//! What peers and operators said enters a page by [`Html::text`], which escapes it; [`Html::raw`] takes literals of this program only.
//! A page also forbids itself everything from elsewhere and every script, by its content security policy.

use std::fmt::Write as _;

/// A piece of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Html(String);

impl Html {
    pub fn new() -> Html {
        Html::default()
    }

    /// Markup of our own.
    pub fn raw(&mut self, markup: &'static str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    /// Anything else: between tags, or in an attribute with quotes.
    pub fn text(&mut self, text: impl AsRef<str>) -> &mut Html {
        for character in text.as_ref().chars() {
            match character {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c if is_misleading(c) => {
                    write!(self.0, "\\u{{{:x}}}", u32::from(c)).expect("a String takes everything")
                }
                c => self.0.push(c),
            }
        }
        self
    }

    /// Text between two tags.
    pub fn wrap(
        &mut self,
        open: &'static str,
        text: impl AsRef<str>,
        close: &'static str,
    ) -> &mut Html {
        self.raw(open).text(text).raw(close)
    }

    pub fn html(&mut self, other: &Html) -> &mut Html {
        self.0.push_str(&other.0);
        self
    }

    /// A chart; [`super::svg`] vouches for what is in it.
    pub fn svg(&mut self, svg: &super::svg::Svg) -> &mut Html {
        self.0.push_str(svg.as_str());
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// Control characters and marks of direction, by which a reply could hide or turn around what stands beside it.
fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A whole page around its body.
pub fn page(title: &str, body: &Html) -> String {
    let mut page = Html::new();
    page.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
        .raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n")
        .raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
        .raw("<meta name=\"color-scheme\" content=\"light dark\">\n")
        .wrap("<title>", title, "</title>\n<style>\n")
        .raw(include_str!("style.css"))
        .raw("</style>\n</head>\n<body>\n<main>\n")
        .html(body)
        .raw("</main>\n</body>\n</html>\n");
    page.into_string()
}

/// One cell of a [`Table`].
pub enum Cell {
    Text(String),
    Number(String),
    /// A verdict: its words say it, its colour only underlines it.
    Good(String),
    Bad(String),
    Made(Html),
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    pub fn number(text: impl Into<String>) -> Cell {
        Cell::Number(text.into())
    }

    /// Bad if it is more than nothing.
    pub fn fault(count: u64) -> Cell {
        let text = crate::units::grouped(count);
        if count == 0 {
            Cell::Number(text)
        } else {
            Cell::Bad(text)
        }
    }
}

/// A table that scrolls by itself where the window is narrow. The first cell of a row names the row.
pub struct Table {
    pub caption: String,
    /// Heads over several columns, where there are some: text and how many.
    pub groups: Vec<(&'static str, usize)>,
    pub heads: Vec<&'static str>,
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(caption: impl Into<String>, heads: &[&'static str]) -> Table {
        Table {
            caption: caption.into(),
            groups: Vec::new(),
            heads: heads.to_vec(),
            rows: Vec::new(),
        }
    }

    pub fn write(&self, into: &mut Html) {
        into.raw("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"")
            .text(&self.caption)
            .raw("\">\n<table>\n")
            .wrap("<caption>", &self.caption, "</caption>\n<thead>\n");
        self.write_groups(into);
        into.raw("<tr>");
        for (column, head) in self.heads.iter().enumerate() {
            let is_number = self
                .rows
                .iter()
                .any(|row| matches!(row.get(column), Some(Cell::Number(_))));
            into.raw(if is_number {
                "<th scope=\"col\" class=\"n\">"
            } else {
                "<th scope=\"col\">"
            })
            .text(head)
            .raw("</th>");
        }
        into.raw("</tr>\n</thead>\n<tbody>\n");
        for row in &self.rows {
            write_row(row, into);
        }
        into.raw("</tbody>\n</table>\n</div>\n");
    }

    fn write_groups(&self, into: &mut Html) {
        if self.groups.is_empty() {
            return;
        }
        into.raw("<tr>");
        for (head, columns) in &self.groups {
            into.raw("<th scope=\"colgroup\" class=\"group\" colspan=\"")
                .text(columns.to_string())
                .raw("\">")
                .text(head)
                .raw("</th>");
        }
        into.raw("</tr>\n");
    }
}

fn write_row(row: &[Cell], into: &mut Html) {
    into.raw("<tr>");
    for (column, cell) in row.iter().enumerate() {
        if column == 0 {
            into.raw("<th scope=\"row\">");
            write_content(cell, into);
            into.raw("</th>");
            continue;
        }
        into.raw(match cell {
            Cell::Text(_) | Cell::Made(_) => "<td>",
            Cell::Number(_) => "<td class=\"n\">",
            Cell::Good(_) => "<td class=\"n good\">",
            Cell::Bad(_) => "<td class=\"n bad\">",
        });
        write_content(cell, into);
        into.raw("</td>");
    }
    into.raw("</tr>\n");
}

fn write_content(cell: &Cell, into: &mut Html) {
    match cell {
        Cell::Text(text) | Cell::Number(text) | Cell::Good(text) | Cell::Bad(text) => {
            into.text(text);
        }
        Cell::Made(html) => {
            into.html(html);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_said_stays_text() {
        for (said, want) in [
            ("<script>", "&lt;script&gt;"),
            ("\" onload='x'", "&quot; onload=&#39;x&#39;"),
            ("a&lt;", "a&amp;lt;"),
            ("\u{202e}evil\u{1b}[2J", "\\u{202e}evil\\u{1b}[2J"),
            ("Grüße", "Grüße"),
        ] {
            assert_eq!(Html::new().text(said).clone().into_string(), want);
        }
    }
}
