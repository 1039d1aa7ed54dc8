//! What messages are made of: made text of weighted sizes, or real messages.
//!
//! Everything is read and made once, before the first start; a message then is its stamp and a copy of one of these bodies. Line ends of
//! real messages become CRLF, and dots are doubled in advance. Nothing else is changed: lines longer than SMTP allows (RFC 5321, 4.5.3.1.6)
//! go out as they are, and relays that fold them are found out by the checksum.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, bail, ensure};

use crate::ledger::{MessageId, STAMP_OCTETS, stamp};
use crate::plan::Bodies;

/// The bodies of a stream, and the order they are used in.
pub struct Mail {
    /// One group of variants for every weight.
    groups: Vec<Vec<Rc<Body>>>,
    /// Running sums of the weights; none where there is one group.
    weights: Vec<u64>,
    /// Bodies of a group are used in turn.
    turn: usize,
}

/// One message without its stamp.
pub struct Body {
    rest: Vec<u8>,
    /// The same as DATA sends it: leading dots doubled, end of data behind it.
    dotted: Vec<u8>,
    pub has_eight_bits: bool,
}

/// Octets of messages a process keeps in memory.
const MAIL_OCTETS_MAX: usize = 256 << 20;

impl Mail {
    pub fn load(bodies: &Bodies) -> anyhow::Result<Mail> {
        match bodies {
            Bodies::Sizes { weights } => made(weights),
            Bodies::Files { from } => {
                real(from).with_context(|| format!("{} cannot be used as mail", from.display()))
            }
        }
    }

    pub fn next(&mut self, chance: &mut fastrand::Rng) -> Rc<Body> {
        let at = self.weights.last().map_or(0, |&sum| {
            let drawn = chance.u64(..sum);
            self.weights.partition_point(|&upto| upto <= drawn)
        });
        let group = &self.groups[at];
        self.turn = self.turn.wrapping_add(1);
        group[self.turn % group.len()].clone()
    }
}

impl Body {
    fn new(rest: Vec<u8>) -> Rc<Body> {
        Rc::new(Body {
            has_eight_bits: !rest.is_ascii(),
            dotted: dotted(&rest),
            rest,
        })
    }

    /// Octets of the message: what BDAT announces.
    pub fn octets(&self) -> usize {
        STAMP_OCTETS + self.rest.len()
    }

    /// Appends it as it is.
    pub fn put(&self, out: &mut Vec<u8>, id: MessageId) {
        stamp(out, id, &self.rest);
    }

    /// Appends it as DATA sends it.
    pub fn put_with_dots(&self, out: &mut Vec<u8>, id: MessageId) {
        self.put(out, id);
        out.truncate(out.len() - self.rest.len());
        out.extend_from_slice(&self.dotted);
    }

    /// What follows the stamp when DATA sends it.
    pub fn dotted(&self) -> &[u8] {
        &self.dotted
    }
}

/// Dot transparency (RFC 5321, 4.5.2).
fn dotted(text: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(text.len() + 64);
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
}

/// A whole header, so that no relay has a reason to add to it.
const HEADER: &[u8] = b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n\
    From: weir-bench <bench@client.example>\r\n\
    To: bench@upstream.example\r\n\
    Subject: made text\r\n\
    Message-ID: <made-text@client.example>\r\n\r\n";

/// The smallest made message: stamp, header, one line.
pub const MADE_OCTETS_MIN: usize = STAMP_OCTETS + HEADER.len() + 4;

/// Bodies of one size that differ in every line, so that a proxy which takes a piece of one message for a piece of another is found out.
const VARIANTS_MAX: usize = 16;
/// Fewer of large ones: two at least.
const VARIANTS_OCTETS: usize = 8 << 20;

fn made(weights: &[(u32, u32)]) -> anyhow::Result<Mail> {
    let mut groups = Vec::with_capacity(weights.len());
    let mut sums = Vec::with_capacity(weights.len());
    let (mut sum, mut octets) = (0, 0);
    for &(size, weight) in weights {
        let size = size as usize;
        ensure!(
            size >= MADE_OCTETS_MIN,
            "a made message of {size} octets has no room for its header: ask for {MADE_OCTETS_MIN} or more"
        );
        let variants = (VARIANTS_OCTETS / size).clamp(2, VARIANTS_MAX);
        octets += size * variants;
        ensure!(
            octets <= MAIL_OCTETS_MAX,
            "made messages come to more than {MAIL_OCTETS_MAX} octets: ask for smaller or fewer sizes"
        );
        sum += u64::from(weight);
        sums.push(sum);
        let texts = (0..variants).map(|variant| made_text(size - STAMP_OCTETS, variant));
        groups.push(texts.map(Body::new).collect());
    }
    ensure!(sum > 0, "no size of a message has a weight");
    Ok(Mail {
        groups,
        weights: sums,
        turn: 0,
    })
}

/// Header and numbered lines of `octets` together, different for every variant. Some lines begin with a dot, so that every run tries dot
/// transparency.
fn made_text(octets: usize, variant: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(octets);
    text.extend_from_slice(HEADER);
    for number in 0.. {
        let line = made_line(number, variant);
        // a rest shorter than an end of line and one octet could not be filled
        if text.len() + line.len() + 3 > octets {
            break;
        }
        text.extend_from_slice(line.as_bytes());
    }
    text.resize(octets - 2, b'A' + variant as u8);
    text.extend_from_slice(b"\r\n");
    text
}

fn made_line(number: usize, variant: usize) -> String {
    match number % 25 {
        0 => format!(".{variant:02} {number:06} So does this line, which begins with a dot.\r\n"),
        _ => format!(
            "{variant:02} {number:06} What flows over the weir is counted, and has flowed.\r\n"
        ),
    }
}

fn real(from: &Path) -> anyhow::Result<Mail> {
    let mut octets = 0;
    let mut bodies = Vec::new();
    let mut add = |text: &[u8]| {
        octets += text.len();
        ensure!(
            octets <= MAIL_OCTETS_MAX,
            "more than {MAIL_OCTETS_MAX} octets of mail: name a part of it"
        );
        bodies.push(Body::new(with_crlf(text)));
        Ok(())
    };
    if from.is_dir() {
        for path in files_of(from)? {
            add(&fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?)?;
        }
    } else {
        let text = fs::read(from).context("it cannot be read")?;
        if text.starts_with(b"From ") {
            mbox(&text).iter().try_for_each(|message| add(message))?;
        } else {
            add(&text)?;
        }
    }
    if bodies.is_empty() {
        bail!("it holds no message: neither *.eml files, nor a Maildir, nor an mbox");
    }
    Ok(Mail {
        groups: vec![bodies],
        weights: Vec::new(),
        turn: 0,
    })
}

/// The messages of a folder: all of `cur` and `new` where it is a Maildir, `*.eml` otherwise. By name, so that runs can be repeated.
fn files_of(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let maildir: Vec<PathBuf> = ["cur", "new"]
        .map(|name| folder.join(name))
        .into_iter()
        .filter(|part| part.is_dir())
        .collect();
    let is_maildir = !maildir.is_empty();
    let folders = if is_maildir {
        maildir
    } else {
        vec![folder.to_owned()]
    };
    let mut files = Vec::new();
    for folder in folders {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("{} has no list", folder.display()))?;
        for entry in entries {
            let path = entry.context("a folder's list breaks off")?.path();
            let is_mail = is_maildir || path.extension().is_some_and(|name| name == "eml");
            if is_mail && path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The messages of an mbox (RFC 4155; quoting of "From " lines as in mboxrd).
fn mbox(text: &[u8]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut after_blank = true;
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        let begins = after_blank && line.starts_with(b"From ");
        after_blank = matches!(line, b"\n" | b"\r\n");
        if begins {
            messages.push(Vec::new());
        } else if let Some(message) = messages.last_mut() {
            message.extend_from_slice(unquoted(line));
        }
    }
    messages
}

/// `>From ` was `From ` before it was put into an mbox, `>>From ` was `>From `.
fn unquoted(line: &[u8]) -> &[u8] {
    let quotes = line.iter().take_while(|&&octet| octet == b'>').count();
    if quotes > 0 && line[quotes..].starts_with(b"From ") {
        &line[1..]
    } else {
        line
    }
}

/// With CRLF where there was LF, CR or CRLF, and at the end.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let text = match text.contains(&b'\r') {
        true => Cow::Owned(without_cr(text)),
        false => Cow::Borrowed(text),
    };
    let mut lines = Vec::with_capacity(text.len() + text.len() / 32 + 2);
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        lines.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        lines.extend_from_slice(b"\r\n");
    }
    if lines.is_empty() {
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

fn without_cr(text: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(text.len());
    for (at, &octet) in text.iter().enumerate() {
        match octet {
            b'\r' if text.get(at + 1) == Some(&b'\n') => {}
            b'\r' => lines.push(b'\n'),
            _ => lines.push(octet),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MessageId = MessageId {
        run: 1,
        process: 0,
        number: 0,
    };

    fn sizes(weights: &[(u32, u32)]) -> anyhow::Result<Mail> {
        Mail::load(&Bodies::Sizes {
            weights: weights.to_vec(),
        })
    }

    fn files(from: &Path) -> anyhow::Result<Mail> {
        Mail::load(&Bodies::Files {
            from: from.to_owned(),
        })
    }

    fn rests(mail: &Mail) -> Vec<&[u8]> {
        mail.groups
            .iter()
            .flatten()
            .map(|body| &body.rest[..])
            .collect()
    }

    #[test]
    fn made_messages_have_their_size_and_whole_lines() {
        for size in (MADE_OCTETS_MIN..MADE_OCTETS_MIN + 300).chain([4096, 102_400]) {
            let mail = sizes(&[(size as u32, 1)]).unwrap();
            let mut message = Vec::new();
            mail.groups[0][0].put(&mut message, ID);
            assert_eq!(message.len(), size);
            assert_eq!(message.len(), mail.groups[0][0].octets());
            assert!(message.ends_with(b"\r\n"));
            let text = String::from_utf8(message).unwrap();
            assert!(text.split("\r\n").all(|line| line.len() <= 78), "{text}");
            assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
        }
    }

    /// All messages of a size were the same but for their stamp: a proxy that gave one the body of another was never found out.
    #[test]
    fn messages_that_follow_each_other_differ_in_every_line() {
        let mut chance = fastrand::Rng::with_seed(1);
        for size in [MADE_OCTETS_MIN as u32, 4096, 100_000, 5 << 20] {
            let mut mail = sizes(&[(size, 1)]).unwrap();
            let (one, other) = (mail.next(&mut chance), mail.next(&mut chance));
            assert_eq!(one.rest.len(), other.rest.len());
            let lines = |body: &Body| -> Vec<Vec<u8>> {
                let content = &body.rest[HEADER.len()..];
                content
                    .split_inclusive(|&octet| octet == b'\n')
                    .map(<[u8]>::to_vec)
                    .collect()
            };
            let (mut one, other) = (lines(&one), lines(&other));
            assert!(
                one.iter().zip(&other).all(|(one, other)| one != other),
                "{size}"
            );
            let count = one.len();
            one.sort();
            one.dedup();
            assert_eq!(one.len(), count, "lines of one message differ, too");
        }
    }

    #[test]
    fn a_made_message_too_small_for_its_header_is_refused() {
        assert!(sizes(&[(MADE_OCTETS_MIN as u32 - 1, 1)]).is_err());
        assert!(sizes(&[(4096, 0)]).is_err());
        assert!(sizes(&[]).is_err());
    }

    #[test]
    fn sizes_come_by_their_weights() {
        let mut mail = sizes(&[(4096, 9), (8192, 0), (65_536, 1)]).unwrap();
        let mut chance = fastrand::Rng::with_seed(5);
        let mut counts = [0, 0, 0];
        for _ in 0..10_000 {
            let place = match mail.next(&mut chance).octets() {
                4096 => 0,
                8192 => 1,
                _ => 2,
            };
            counts[place] += 1;
        }
        assert!((8800..9200).contains(&counts[0]), "{counts:?}");
        assert_eq!(counts[1], 0);
    }

    #[test]
    fn leading_dots_are_doubled_and_no_others() {
        for (text, want) in [
            (".\r\n", "..\r\n"),
            ("a.\r\n..b\r\nc\r\n.\r\n", "a.\r\n...b\r\nc\r\n..\r\n"),
            ("a\r\n", "a\r\n"),
        ] {
            let mut out = Vec::new();
            Body::new(text.into()).put_with_dots(&mut out, ID);
            assert_eq!(
                std::str::from_utf8(&out[STAMP_OCTETS..]).unwrap(),
                format!("{want}.\r\n")
            );
        }
    }

    #[test]
    fn folders_maildirs_and_mboxes_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(files(folder.path()).is_err(), "an empty folder is no mail");
        fs::write(at("b.eml"), "Subject: b\n\nb").unwrap();
        fs::write(at("a.eml"), "Subject: a\r\n\r\na\r\n").unwrap();
        fs::write(at("notes.txt"), "no mail").unwrap();
        assert_eq!(
            rests(&files(folder.path()).unwrap()),
            [&b"Subject: a\r\n\r\na\r\n"[..], b"Subject: b\r\n\r\nb\r\n"]
        );
        fs::create_dir(at("cur")).unwrap();
        fs::write(at("cur/1.host:2,S"), "X: \u{e9}\r\n\rlone\n").unwrap();
        let maildir = files(folder.path()).unwrap();
        assert_eq!(rests(&maildir), ["X: \u{e9}\r\n\r\nlone\r\n".as_bytes()]);
        assert!(maildir.groups[0][0].has_eight_bits);
        fs::write(
            at("box"),
            "From a@b Thu\nS: 1\n\n>From me\n>>From you\nFrom here\n\nFrom c@d Fri\nS: 2\n\n",
        )
        .unwrap();
        assert_eq!(
            rests(&files(&at("box")).unwrap()),
            [
                &b"S: 1\r\n\r\nFrom me\r\n>From you\r\nFrom here\r\n\r\n"[..],
                b"S: 2\r\n\r\n"
            ]
        );
    }

    #[test]
    fn what_is_not_there_is_an_error_with_its_path() {
        let error = files(Path::new("/nonexistent/mail")).err().unwrap();
        assert!(format!("{error:#}").contains("/nonexistent/mail"));
    }
}
