//! Who sent what, who took it, who heard of it: the books in which a lost, doubled, mixed or half message shows.
//!
//! Clients enter each message before they send it and what they are told about it; upstreams enter what they take. Most rules are
//! checked at the entry; [`Ledger::close`] checks what can only be said when everything is over.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::letters::{Letter, Newlines};
use crate::net::{End, Net};

pub type SharedLedger = Rc<RefCell<Ledger>>;

pub struct Ledger {
    newlines: Newlines,
    entries: Vec<Entry>,
    /// By the token in the upstream's 250.
    taken: BTreeMap<String, Taken>,
    wrong: Vec<String>,
    pub counts: Counts,
}

/// How much has happened: a simulation in which nothing arrives proves nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub sent: u64,
    pub accepted: u64,
    pub deferred: u64,
    pub rejected: u64,
    pub unheard: u64,
    pub connections: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.deferred += other.deferred;
        self.rejected += other.rejected;
        self.unheard += other.unheard;
        self.connections += other.connections;
    }
}

struct Entry {
    letter: Letter,
    client: End,
    /// Octets this client had written when its end of data was complete.
    end_at: Option<u64>,
    recipients: BTreeSet<String>,
    /// What the client heard of its recipients: accepted or not.
    answers: BTreeMap<String, bool>,
    told: Option<(u16, String)>,
    /// The client has left, or does not listen.
    gone: bool,
    taken: Vec<String>,
}

struct Taken {
    id: u32,
    upstream: usize,
    recipients: Vec<String>,
    /// The upstream's end, and what it had written with the 250.
    end: End,
    said_at: u64,
}

impl Ledger {
    pub fn new(newlines: Newlines) -> SharedLedger {
        Rc::new(RefCell::new(Ledger {
            newlines,
            entries: Vec::new(),
            taken: BTreeMap::new(),
            wrong: Vec::new(),
            counts: Counts::default(),
        }))
    }

    pub fn wrong(&mut self, what: String) {
        if self.wrong.len() < 20 {
            self.wrong.push(what);
        }
    }

    pub fn take_wrong(&mut self) -> Vec<String> {
        std::mem::take(&mut self.wrong)
    }

    /// The number of the next message.
    pub fn next_id(&self) -> u32 {
        self.entries.len() as u32
    }

    /// A client is about to send this.
    pub fn enter(&mut self, client: End, letter: Letter, recipients: &[String]) -> u32 {
        self.counts.sent += 1;
        self.entries.push(Entry {
            letter,
            client,
            end_at: None,
            recipients: recipients.iter().cloned().collect(),
            answers: BTreeMap::new(),
            told: None,
            gone: false,
            taken: Vec::new(),
        });
        self.entries.len() as u32 - 1
    }

    pub fn letter_ended(&mut self, id: u32, written: u64) {
        self.entries[id as usize].end_at = Some(written);
    }

    pub fn recipient_told(&mut self, id: u32, recipient: &str, accepted: bool) {
        self.entries[id as usize]
            .answers
            .insert(recipient.to_owned(), accepted);
    }

    pub fn is_accepted(&self, id: u32) -> bool {
        let told = self.entries[id as usize].told.as_ref();
        told.is_some_and(|(code, _)| code / 100 == 2)
    }

    pub fn client_gone(&mut self, id: u32) {
        self.entries[id as usize].gone = true;
    }

    /// The client hears the reply that decides over its message.
    pub fn told(&mut self, id: u32, code: u16, text: &str) {
        let entry = &mut self.entries[id as usize];
        if entry.told.is_some() {
            return self.wrong(format!(
                "message {id} got two final replies, the second is {text:?}"
            ));
        }
        entry.told = Some((code, text.to_owned()));
        match code / 100 {
            2 => self.counts.accepted += 1,
            4 => self.counts.deferred += 1,
            _ => self.counts.rejected += 1,
        }
        if code / 100 == 2 {
            let known = token(text).and_then(|token| self.taken.get(token));
            match known {
                None => self.wrong(format!(
                    "message {id} heard {text:?}, which no upstream has said"
                )),
                Some(taken) if taken.id != id => {
                    let of = taken.id;
                    self.wrong(format!("message {id} heard the 250 of message {of}"));
                }
                Some(_) => {}
            }
        }
    }

    /// The end of a message has reached an upstream, whatever it will say to it.
    pub fn reached(
        &mut self,
        upstream: usize,
        sender: &str,
        recipients: &[String],
        content: &[u8],
        net: &Net,
    ) -> Option<u32> {
        let id = match id_of(sender) {
            Some(id) if (id as usize) < self.entries.len() => id,
            // By accident a rude client may say all that makes a message.
            _ if sender == RUDE => return None,
            _ => {
                self.wrong(format!(
                    "upstream {upstream} got a message from {sender}, whom nobody knows"
                ));
                return None;
            }
        };
        let entry = &self.entries[id as usize];
        let weir = entry.client.other();
        let ended = entry.end_at.is_some_and(|end_at| net.heard(weir) >= end_at);
        let mut wrong = Vec::new();
        if !ended {
            wrong.push(format!(
                "upstream {upstream} got the end of message {id}, whose client has not sent it"
            ));
        }
        if entry.letter.is_unacceptable(self.newlines) {
            wrong.push(format!(
                "upstream {upstream} got message {id}, which has a bare newline"
            ));
        } else if !entry.letter.arrives_as(content) {
            let (sent, got) = (entry.letter.content.len(), content.len());
            let same = entry
                .letter
                .content
                .iter()
                .zip(content)
                .take_while(|(a, b)| a == b)
                .count();
            wrong.push(format!(
                "upstream {upstream} got another message {id} than was sent: {got} octets for {sent}, alike up to {same}"
            ));
        }
        let got: BTreeSet<&String> = recipients.iter().collect();
        if got.len() != recipients.len() {
            wrong.push(format!(
                "message {id} has a recipient twice at upstream {upstream}"
            ));
        }
        for recipient in recipients {
            if !entry.recipients.contains(recipient) {
                wrong.push(format!(
                    "message {id} reached {recipient}, for whom it is not"
                ));
            }
        }
        wrong.into_iter().for_each(|wrong| self.wrong(wrong));
        Some(id)
    }

    /// An upstream says 250 to a message; its 250 carries the token, and ends at octet `said_at` of what it has written.
    pub fn accepted(
        &mut self,
        upstream: usize,
        id: u32,
        recipients: Vec<String>,
        token: &str,
        end: End,
        said_at: u64,
    ) {
        let entry = &mut self.entries[id as usize];
        entry.taken.push(token.to_owned());
        if entry.taken.len() > 1 {
            let taken = entry.taken.join(" and ");
            self.wrong(format!(
                "message {id} was accepted more than once: as {taken}"
            ));
        }
        self.taken.insert(
            token.to_owned(),
            Taken {
                id,
                upstream,
                recipients,
                end,
                said_at,
            },
        );
    }

    /// What is only certain when everybody has stopped talking.
    pub fn close(&mut self, net: &Net) {
        for (token, taken) in std::mem::take(&mut self.taken) {
            self.check_recipients(&taken);
            let entry = &self.entries[taken.id as usize];
            if let Some((code, _)) = &entry.told
                && code / 100 == 2
            {
                continue;
            }
            let heard = net.heard(taken.end.other()) >= taken.said_at;
            if !heard {
                continue;
            }
            if entry.gone || net.is_faulty(entry.client) {
                self.counts.unheard += 1;
                continue;
            }
            let (id, upstream) = (taken.id, taken.upstream);
            let told = match &entry.told {
                None => "nothing".to_owned(),
                Some((_, text)) => format!("{text:?}"),
            };
            self.wrong(format!("weir heard 250 {token} to message {id} from upstream {upstream}, its client heard {told}"));
        }
    }

    /// The recipients that the upstream took are those the client was told about.
    fn check_recipients(&mut self, taken: &Taken) {
        let answers = &self.entries[taken.id as usize].answers;
        let differ = answers
            .iter()
            .find(|(recipient, accepted)| taken.recipients.contains(recipient) != **accepted);
        if let Some((recipient, accepted)) = differ {
            let (id, upstream) = (taken.id, taken.upstream);
            let was = if *accepted { "accepted" } else { "refused" };
            self.wrong(format!("{recipient} of message {id} was {was} for its client, and not so at upstream {upstream}"));
        }
    }
}

/// The sender of what is not in the books.
pub const RUDE: &str = "rude@client.example";

/// The sender's address names the message.
pub fn sender(id: u32) -> String {
    format!("m{id}@client.example")
}

fn id_of(sender: &str) -> Option<u32> {
    sender
        .strip_prefix('m')?
        .strip_suffix("@client.example")?
        .parse()
        .ok()
}

/// What stands between `kept as ` and the end of a 250.
fn token(text: &str) -> Option<&str> {
    let (_, after) = text.split_once("kept as ")?;
    Some(after.split_whitespace().next().unwrap_or(after))
}
