//! Any bytes are a claim or none; a claim that is written down again says the same in commands that fit; and whatever a client calls itself, a
//! Received field about it is one field.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use weir_smtp::received::{self, Trace};
use weir_smtp::xclient::{self, Attributes, Claim, ClientFacts, Said};

fuzz_target!(|argument: &[u8]| {
    stamp(argument);
    let Some(claim) = xclient::parse(argument) else {
        return;
    };
    let (Some(Said::Is(ip)), Some(Said::Is(port))) = (&claim.addr, &claim.port) else {
        return;
    };
    let known = |said: &Option<Said<Box<[u8]>>>| said.as_ref().and_then(Said::known).cloned();
    let (name, helo, login) = (known(&claim.name), known(&claim.helo), known(&claim.login));
    let facts = ClientFacts {
        address: SocketAddr::new(*ip, *port),
        name: name.as_deref(),
        helo: helo.as_deref().unwrap_or_default(),
        esmtp: claim.esmtp == Some(Said::Is(true)),
        destination: None,
        login: login.as_deref(),
    };
    let mut understood = Attributes::NONE;
    for word in xclient::XCLIENT_UNDERSTOOD.split(' ') {
        understood.insert(Attributes::named(word.as_bytes()));
    }
    let mut written = Vec::new();
    assert!(xclient::write_xclient(&mut written, &facts, understood));
    let again = read(&written);
    assert_eq!((again.addr, again.port), (claim.addr, claim.port));
    for (said, was) in [(again.name, name), (again.helo, helo), (again.login, login)] {
        // what takes too much room as xtext is left out
        let long = was.as_ref().is_some_and(|was| was.len() > 255 / 3);
        assert!(long || said.as_ref().and_then(Said::known) == was.as_ref() || names_nothing(&was));
    }
});

/// A name that spells "there is none".
fn names_nothing(name: &Option<Box<[u8]>>) -> bool {
    name.as_ref().is_some_and(|name| name.starts_with(b"["))
}

/// All that the written commands say.
fn read(written: &[u8]) -> Claim {
    let mut whole = Claim::default();
    for line in written.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.len() <= 512 && line.ends_with(b"\r\n"));
        let argument = line[..line.len() - 2].strip_prefix(b"XCLIENT ");
        let claim = xclient::parse(argument.expect("the verb")).expect("weir understands itself");
        whole.name = claim.name.or(whole.name);
        whole.helo = claim.helo.or(whole.helo);
        whole.login = claim.login.or(whole.login);
        whole.addr = claim.addr.or(whole.addr);
        whole.port = claim.port.or(whole.port);
    }
    whole
}

fn stamp(helo: &[u8]) {
    let trace = Trace {
        by: b"weir.example",
        address: [192, 0, 2, 1].into(),
        name: Some(helo),
        helo,
        esmtp: true,
        utf8: false,
        tls: None,
        at: 0,
    };
    let mut field = Vec::new();
    received::write(&mut field, &trace, &1);
    let lines = field.split_inclusive(|byte| *byte == b'\n');
    let folded = lines.clone().skip(1).all(|line| line.starts_with(b"\t"));
    let ended = lines
        .clone()
        .all(|line| line.ends_with(b"\r\n") && line.len() <= 1000);
    assert!(folded && ended && lines.count() == 3);
}
