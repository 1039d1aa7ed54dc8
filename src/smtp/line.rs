//! Framing of command lines. A line ends at LF; whether a CR stood before it is told to the caller, who decides what a bare LF costs.
//! Bodies are framed by `body`, replies by `reply`: their rules are stricter.

use memchr::memchr;

/// How a line ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Terminator {
    CrLf,
    /// LF without CR: RFC 5321, 2.3.8 forbids it.
    BareLf,
}

/// The first line of `input`: its length without terminator, the bytes it takes with terminator, and the terminator. None: no line end yet.
pub fn split_line(input: &[u8]) -> Option<(usize, usize, Terminator)> {
    let lf = memchr(b'\n', input)?;
    if lf > 0 && input[lf - 1] == b'\r' {
        return Some((lf - 1, lf + 1, Terminator::CrLf));
    }
    Some((lf, lf + 1, Terminator::BareLf))
}

#[cfg(test)]
mod tests {
    use super::Terminator::{BareLf, CrLf};
    use super::*;

    #[test]
    fn lines() {
        type Row<'a> = (&'a [u8], Option<(usize, usize, Terminator)>);
        let table: &[Row<'_>] = &[
            (b"", None),
            (b"NOOP", None),
            (b"NOOP\r", None),
            (b"NOOP\r\n", Some((4, 6, CrLf))),
            (b"NOOP\r\nQUIT\r\n", Some((4, 6, CrLf))),
            (b"NOOP\n", Some((4, 5, BareLf))),
            (b"\n", Some((0, 1, BareLf))),
            (b"\r\n", Some((0, 2, CrLf))),
            (b"a\r\r\n", Some((2, 4, CrLf))),
            (b"a\rb\n", Some((3, 4, BareLf))),
        ];
        for (input, want) in table {
            assert_eq!(split_line(input), *want, "{input:?}");
        }
    }
}
