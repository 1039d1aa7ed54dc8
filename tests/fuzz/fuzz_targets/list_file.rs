//! A list file: any octets are read, or refused by lines that are there; and what was read is found again as a list that is
//! searched whole would find it. The first octet says what the list is about, the rest is the file.
#![no_main]
#![allow(dead_code)] // parts of them are for the shards

use libfuzzer_sys::fuzz_target;

#[path = "../../../src/policy/access/mod.rs"]
mod access;
#[path = "../../../src/policy/relay.rs"]
mod relay;

use access::{AccessBuilder, ERRORS_MAX, Listed, Network, Subject};

fuzz_target!(|data: &[u8]| {
    let Some((subject, octets)) = data.split_first() else {
        return;
    };
    let subject = match subject % 4 {
        0 => Subject::Client,
        1 => Subject::Helo,
        2 => Subject::Sender,
        _ => Subject::Recipient,
    };
    let lines = 1 + octets.iter().filter(|octet| **octet == b'\n').count();
    let text = match access::text(octets.to_vec()) {
        Ok(text) => text,
        Err(error) => return assert!((1..=lines).contains(&error.line)),
    };
    let mut builder = AccessBuilder::default();
    let errors = builder.read(subject, Listed::Deny, &text);
    assert!(errors.len() <= ERRORS_MAX);
    for error in &errors {
        assert!((1..=lines).contains(&error.line));
        assert!(!error.to_string().chars().any(char::is_control));
    }
    let access = builder.build();
    assert!(access.len(subject) <= lines);
    match subject {
        Subject::Client => networks_are_found(&text, &access, errors.is_empty()),
        _ => names_are_found(subject, &text, &access, errors.is_empty()),
    }
});

fn networks_are_found(text: &str, access: &access::Access, whole: bool) {
    let mut listed: Vec<Network> = Vec::new();
    access::read_networks(text, |network| listed.push(network));
    for network in &listed {
        // The first address of a network is in it, and its text is read as itself.
        let shown = network.to_string();
        let (first, _) = shown.split_once('/').expect("an address and its bits");
        let first = first.parse().expect("an address");
        assert_eq!(access.lookup(first), Some(Listed::Deny), "{shown}");
        assert_eq!(shown.parse::<Network>().as_ref(), Ok(network));
    }
    assert!(!whole || listed.is_empty() == (access.len(Subject::Client) == 0));
}

fn names_are_found(subject: Subject, text: &str, access: &access::Access, whole: bool) {
    for line in text.lines().map(str::trim) {
        if subject == Subject::Helo {
            // Whatever a client says, it is an answer; what is listed as it stands is found.
            let found = access.helo(line.as_bytes());
            let plain = line.bytes().all(|octet| octet.is_ascii_alphanumeric());
            assert!(!whole || !plain || line.is_empty() || found == Some(Listed::Deny), "{line}");
            continue;
        }
        let whole_path = format!("<{line}>");
        let Ok((path, rest)) = weir_smtp::path::parse(whole_path.as_bytes()) else {
            continue;
        };
        let found = match subject {
            Subject::Sender => access.sender(&path),
            _ => access.recipient(&path),
        };
        let is_entry = whole && rest.is_empty() && line.contains('@') && !line.contains('#');
        let plain = path.mailbox.len() == line.len() && !line.starts_with('*');
        assert!(!is_entry || !plain || found == Some(Listed::Deny), "{line}");
    }
}
