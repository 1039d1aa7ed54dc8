//! Session tickets (RFC 8446, 4.6.1; RFC 5077): what a client brings back instead of a whole handshake.
//!
//! weir keeps no sessions; all of one is in its ticket, sealed with AES-256-GCM:
//!
//! ```text
//!   name of the key (16) | nonce (12) | sealed session | tag (16)
//! ```
//! All shards have the same keys, so a ticket is good on each. The keys of one [`TicketKeys`] are in order of age: the last but
//! one seals and all of them open. So a new key is known everywhere before it is first used: on other shards a moment
//! before, on other hosts that share a file of keys as long before as the operator likes. A key that has left them
//! opens nothing any more, which is what bounds the harm of a stolen one.
//!
//! Tickets of one way to ask for client certificates are worth nothing to another: what was asked is authenticated along.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

use super::files::{self, FileFault};

/// How often weir's own keys move on: a ticket is good for one to two such times.
pub const ROTATION: std::time::Duration = std::time::Duration::from_secs(12 * 3600);

/// Seconds, told to clients. RFC 8446 (4.6.1) allows seven days.
const LIFETIME: u32 = 24 * 3600;
/// Old, sealing, next.
const OWN_KEYS: usize = 3;
/// Of a file.
const KEYS_MAX: usize = 16;

const NAME: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;

struct Key {
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    fn new(secret: &[u8; 32]) -> Key {
        let mut named = b"weir ticket key".to_vec();
        named.extend(secret);
        let mut name = [0; NAME];
        name.copy_from_slice(&digest(&SHA256, &named).as_ref()[..NAME]);
        let key = RandomizedNonceKey::new(&AES_256_GCM, secret).expect("the length is right");
        Key { name, key }
    }

    fn random() -> Key {
        let mut secret = [0; 32];
        rand::fill(&mut secret).expect("the kernel has randomness");
        Key::new(&secret)
    }
}

/// Keys, the oldest first; never empty.
#[derive(Clone, Debug)]
pub struct TicketKeys(Vec<Arc<Key>>);

impl TicketKeys {
    /// Of this process alone.
    pub fn random() -> TicketKeys {
        TicketKeys((1..OWN_KEYS).map(|_| Arc::new(Key::random())).collect())
    }

    /// One key older.
    pub fn rotated(&self) -> TicketKeys {
        let kept = self.0.len().saturating_sub(OWN_KEYS - 1);
        let mut keys = self.0[kept..].to_vec();
        keys.push(Arc::new(Key::random()));
        TicketKeys(keys)
    }

    /// The keys of a file: 64 hexadecimal digits in each line, the oldest first.
    pub fn read(path: &Path) -> Result<TicketKeys, FileFault> {
        let content = files::read(path)?;
        let text = String::from_utf8_lossy(&content);
        let lines = text.lines().map(str::trim).enumerate();
        let mut keys = Vec::new();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let secret = hex(line).ok_or_else(|| {
                let why = format!("has no key in line {}: 64 hexadecimal digits", number + 1);
                FileFault::new(path, why)
            })?;
            keys.push(Arc::new(Key::new(&secret)));
        }
        match keys.len() {
            0 => Err(FileFault::new(path, "has no key")),
            n if n > KEYS_MAX => Err(FileFault::new(
                path,
                format!("has more than {KEYS_MAX} keys"),
            )),
            _ => Ok(TicketKeys(keys)),
        }
    }

    /// Whether both have the same keys.
    pub fn is(&self, other: &TicketKeys) -> bool {
        let names = |keys: &TicketKeys| keys.0.iter().map(|key| key.name).collect::<Vec<_>>();
        names(self) == names(other)
    }

    fn sealing(&self) -> &Key {
        &self.0[self.0.len().saturating_sub(2)]
    }
}

fn hex(line: &str) -> Option<[u8; 32]> {
    let digits = line.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut secret = [0; 32];
    for (octet, pair) in secret.iter_mut().zip(digits.chunks(2)) {
        let digit = |at: usize| (pair[at] as char).to_digit(16);
        *octet = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(secret)
}

/// What the TLS library asks for tickets.
#[derive(Debug)]
pub struct Tickets {
    keys: TicketKeys,
    /// What a session is bound to besides: a digest of how client certificates are asked for.
    context: [u8; 32],
}

impl Tickets {
    /// `context`: sessions made under another are not resumed.
    pub fn new(keys: TicketKeys, context: &[u8]) -> Tickets {
        let mut bound = [0; 32];
        bound.copy_from_slice(digest(&SHA256, context).as_ref());
        Tickets {
            keys,
            context: bound,
        }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.sealing();
        let mut sealed = plain.to_vec();
        let nonce = key
            .key
            .seal_in_place_append_tag(Aad::from(self.context), &mut sealed)
            .ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE + sealed.len());
        ticket.extend(key.name);
        ticket.extend(nonce.as_ref());
        ticket.extend(sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        let key = self.keys.0.iter().find(|key| key.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        key.key
            .open_in_place(nonce, Aad::from(self.context), &mut plain)
            .ok()?;
        plain.truncate(sealed.len().checked_sub(TAG)?);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixtures::Folder;

    fn tickets(keys: &TicketKeys) -> Tickets {
        Tickets::new(keys.clone(), b"")
    }

    #[test]
    fn a_ticket_opens_for_two_rotations_and_no_longer() {
        let first = TicketKeys::random();
        let ticket = tickets(&first).encrypt(b"session").unwrap();
        let second = first.rotated();
        let third = second.rotated();
        assert_eq!(tickets(&first).decrypt(&ticket).unwrap(), b"session");
        assert_eq!(tickets(&second).decrypt(&ticket).unwrap(), b"session");
        assert_eq!(tickets(&third).decrypt(&ticket), None);
    }

    #[test]
    fn a_key_is_known_before_it_seals() {
        let before = TicketKeys::random();
        let after = before.rotated();
        let ticket = tickets(&after).encrypt(b"session").unwrap();
        assert_eq!(
            tickets(&before).decrypt(&ticket).unwrap(),
            b"session",
            "a shard that was not told yet"
        );
        assert_ne!(before.sealing().name, after.sealing().name);
    }

    #[test]
    fn tickets_of_others_and_damaged_ones_open_nothing() {
        let keys = TicketKeys::random();
        let ticket = tickets(&keys).encrypt(b"session").unwrap();
        assert_eq!(tickets(&TicketKeys::random()).decrypt(&ticket), None);
        let other = Tickets::new(keys.clone(), b"client certificates");
        assert_eq!(other.decrypt(&ticket), None, "another way to ask");
        for cut in 0..ticket.len() {
            assert_eq!(tickets(&keys).decrypt(&ticket[..cut]), None, "{cut}");
        }
        for at in 0..ticket.len() {
            let mut wrong = ticket.clone();
            wrong[at] ^= 1;
            assert_eq!(tickets(&keys).decrypt(&wrong), None, "{at}");
        }
    }

    #[test]
    fn no_two_tickets_are_alike() {
        let tickets = tickets(&TicketKeys::random());
        assert_ne!(tickets.encrypt(b"session"), tickets.encrypt(b"session"));
    }

    #[test]
    fn hosts_that_share_a_file_share_sessions_while_it_moves_on() {
        let folder = Folder::fresh();
        let line = |digit: &str| digit.repeat(64) + "\n";
        let old = format!("# keys\n{}{}", line("a"), line("B"));
        let new = format!("{}{}", line("b"), line("c"));
        let old = TicketKeys::read(&folder.write("old", &old)).unwrap();
        let new = TicketKeys::read(&folder.write("new", &new)).unwrap();
        let ticket = tickets(&new).encrypt(b"session").unwrap();
        assert_eq!(tickets(&old).decrypt(&ticket).unwrap(), b"session");
        let ticket = tickets(&old).encrypt(b"session").unwrap();
        assert_eq!(tickets(&new).decrypt(&ticket), None, "the oldest has left");
        assert!(!old.is(&new) && old.is(&old.clone()));
        let single = TicketKeys::read(&folder.write("single", &line("d"))).unwrap();
        let ticket = tickets(&single).encrypt(b"session").unwrap();
        assert_eq!(tickets(&single).decrypt(&ticket).unwrap(), b"session");
    }

    #[test]
    fn bad_key_files_are_told_without_their_content() {
        let folder = Folder::fresh();
        let bad = "0123456789abcdef".repeat(4);
        for (content, why) in [
            ("", "has no key"),
            ("# none\n", "has no key"),
            (&format!("{bad}\n{}g\n", &bad[1..]), "in line 2"),
            (&bad[1..], "in line 1"),
            (&format!("{bad}\n").repeat(17), "more than 16"),
        ] {
            let fault = TicketKeys::read(&folder.write("keys", content)).unwrap_err();
            assert!(fault.why.contains(why), "{fault}");
            assert!(!fault.why.contains("0123456"), "{fault}");
        }
        assert!(TicketKeys::read(&folder.path("missing")).is_err());
        let shown = format!("{:?}", tickets(&TicketKeys::random()));
        assert!(shown.contains("Key(..)"), "{shown}");
    }
}
