//! What parked clients are told: one copy of a text for all rows that drip it.
//!
//! Who is parked is mostly a bot, and bots get the same few replies: the greeting, the answer to EHLO, a refusal. So the
//! texts used last are remembered, and a reply that equals one of them costs its row a pointer. A text with the client's
//! own words in it finds no equal and is the row's alone; a flood of such costs those who share nothing but a copy each.

use std::collections::VecDeque;
use std::rc::Rc;

/// Texts remembered: at most 32 × 4 KiB a shard.
const RECENT_MAX: usize = 32;

/// Replies longer than this do not drip; with a byte at a time the end would be far beyond a client's patience anyway.
pub const TEXT_MAX: usize = 4096;

/// Whole replies, with their line ends.
#[derive(Debug)]
pub struct Text(Box<[u8]>);

/// Shared, and a thin pointer in the row.
pub type SharedText = Rc<Text>;

const _: () = assert!(size_of::<Option<SharedText>>() == 8);

impl Text {
    pub fn new(bytes: &[u8]) -> SharedText {
        assert!(bytes.len() <= TEXT_MAX, "a text that drips is short");
        Rc::new(Text(bytes.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The texts used last, the latest first.
#[derive(Debug, Default)]
pub struct Replies {
    recent: VecDeque<SharedText>,
}

impl Replies {
    /// The text with these bytes: an older one, if it is remembered.
    pub fn share(&mut self, bytes: &[u8]) -> SharedText {
        let known = self.recent.iter().position(|text| &*text.0 == bytes);
        let text = match known.and_then(|at| self.recent.remove(at)) {
            Some(text) => text,
            None => {
                self.recent.truncate(RECENT_MAX - 1);
                Text::new(bytes)
            }
        };
        self.recent.push_front(text.clone());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_one_copy() {
        let mut replies = Replies::default();
        let first = replies.share(b"250 Ok\r\n");
        let other = replies.share(b"221 Bye\r\n");
        assert!(Rc::ptr_eq(&first, &replies.share(b"250 Ok\r\n")));
        assert!(!Rc::ptr_eq(&first, &other));
        assert_eq!(first.as_bytes(), b"250 Ok\r\n");
    }

    #[test]
    fn what_is_used_often_outlives_a_flood_and_what_is_not_is_forgotten() {
        let mut replies = Replies::default();
        let often = replies.share(b"250 Ok\r\n");
        let once = Rc::downgrade(&replies.share(b"500 once\r\n"));
        for number in 0..1000 {
            replies.share(format!("450 {number}\r\n").as_bytes());
            if number % 16 == 0 {
                assert!(Rc::ptr_eq(&often, &replies.share(b"250 Ok\r\n")));
            }
        }
        assert!(once.upgrade().is_none());
        assert_eq!(replies.recent.len(), RECENT_MAX);
    }
}
