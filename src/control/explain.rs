//! /status/client/ADDRESS: asks all shards about an address, and puts their answers together as JSON.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::exchange::ToAll;
use crate::policy::Finding;
use crate::policy::rate::Rate;
use crate::policy::remembered::Remembered;
use crate::shard::Mail;
use crate::shard::explain::{Explain, Explanation, Found, Home, MarkWords, PATIENCE, Would};

/// Shards wait for answers of others; this is for theirs.
const SHARDS_WAIT: Duration = Duration::from_secs(1);

/// None: no shard has answered.
pub(super) async fn explain(ip: IpAddr, shards: usize, mail: &ToAll) -> Option<String> {
    let ip = ip.to_canonical();
    let (told, mut telling) = mpsc::unbounded_channel();
    let tell = move |explanation| {
        // Control has given up: the answer is late.
        drop(told.send(explanation));
    };
    let asked = Explain {
        ip,
        tell: Arc::new(tell),
    };
    mail(Mail::Explain(asked));
    let end = Instant::now() + PATIENCE + SHARDS_WAIT;
    let mut answers: Vec<Explanation> = Vec::with_capacity(shards);
    while answers.len() < shards {
        match timeout_at(end, telling.recv()).await {
            Ok(Some(explanation)) => answers.push(explanation),
            Ok(None) | Err(_) => break,
        }
    }
    answers.sort_by_key(|explanation| explanation.shard);
    let page = (!answers.is_empty()).then(|| Page::of(ip, answers, shards))?;
    let mut text = serde_json::to_string_pretty(&page).expect("a page has no maps with odd keys");
    text.push('\n');
    Some(text)
}

/// What is shown of an address. Durations are seconds left.
#[derive(Serialize)]
struct Page {
    address: IpAddr,
    /// All shards have answered; what is not there is not so.
    complete: bool,
    would: Outcome,
    /// allow, deny, or null: on neither list.
    list: Option<&'static str>,
    relay_from: bool,
    /// Whether clients are inquired of at all.
    reputation: bool,
    /// Too much was asked at a time: nothing was inquired of this address.
    busy: bool,
    score: i32,
    marks: Vec<Mark>,
    unanswered: Vec<String>,
    asn: Option<u32>,
    country: Option<String>,
    network: Option<Network>,
    shards: Vec<Shard>,
}

#[derive(Default, Serialize)]
struct Outcome {
    /// connect or rcpt; null: it is not refused.
    refuse_at: Option<&'static str>,
    finding: Option<&'static str>,
    action: Option<&'static str>,
    greylist: bool,
    temper: &'static str,
    /// What would act if it were not only logged.
    only_logged: Vec<&'static str>,
}

#[derive(Serialize)]
struct Mark {
    finding: &'static str,
    weight: i16,
    /// The list, the provider; empty where there is nothing more to say.
    detail: String,
    /// What looked.
    check: &'static str,
    action: &'static str,
    /// null: as long as the session.
    seconds: Option<u64>,
}

#[derive(Serialize)]
struct Network {
    proven_seconds: u64,
    trapped_seconds: u64,
    history: i16,
    provider_history: i16,
}

#[derive(Serialize)]
struct Shard {
    shard: usize,
    connections: u32,
    known_seconds: u64,
    errors: u16,
    temper: &'static str,
    temper_seconds: u64,
    rates: Vec<RateLeft>,
    sessions: Vec<Session>,
}

#[derive(Serialize)]
struct RateLeft {
    finding: &'static str,
    rate: String,
    left: u32,
}

#[derive(Serialize)]
struct Session {
    score: i32,
    marks: Vec<Mark>,
}

impl Page {
    fn of(address: IpAddr, answers: Vec<Explanation>, shards: usize) -> Page {
        let mut home = None;
        let mut shown = Vec::new();
        let whole = answers.len() == shards;
        for mut answer in answers {
            home = answer.home.take().or(home);
            shown.extend(Shard::of(answer));
        }
        let complete = whole && home.is_some();
        let home: Home = home.unwrap_or_default();
        let asn = home.network.as_ref().map_or(0, |network| network.known.asn);
        let asn = if home.place.asn == 0 {
            asn
        } else {
            home.place.asn
        };
        Page {
            address,
            complete,
            would: Outcome::of(&home.would),
            list: home.listed.map(|listed| listed.word()),
            relay_from: home.relay_from,
            reputation: home.reputation,
            busy: home.busy,
            score: home.found.score,
            marks: home.found.marks.into_iter().map(Mark::of).collect(),
            unanswered: home.unanswered,
            asn: (asn != 0).then_some(asn),
            country: home.place.country.map(|country| country.to_string()),
            network: home.network.map(|network| Network {
                proven_seconds: network.proven_for.as_secs(),
                trapped_seconds: network.trapped_for.as_secs(),
                history: network.known.history,
                provider_history: network.known.provider,
            }),
            shards: shown,
        }
    }
}

impl Outcome {
    fn of(would: &Would) -> Outcome {
        let refuse = would.refuse;
        Outcome {
            refuse_at: refuse.map(|(stage, ..)| stage),
            finding: refuse.map(|(_, finding, _)| finding.word()),
            action: refuse.map(|(.., action)| action.word()),
            greylist: would.greylist,
            temper: would.temper.word(),
            only_logged: would.logged.iter().map(|finding| finding.word()).collect(),
        }
    }
}

impl Mark {
    fn of(mark: MarkWords) -> Mark {
        Mark {
            finding: mark.finding.word(),
            weight: mark.weight,
            detail: mark.detail,
            check: check(mark.finding),
            action: mark.action.word(),
            seconds: mark.holds.map(|holds| holds.as_secs()),
        }
    }
}

/// What has looked.
fn check(finding: Finding) -> &'static str {
    match finding {
        Finding::Dnsbl | Finding::Dnswl => "dns list",
        Finding::NoReverse | Finding::ReverseMismatch => "name of the address",
        Finding::HeloSyntax
        | Finding::HeloLiteral
        | Finding::HeloUnresolved
        | Finding::HeloOurs
        | Finding::HeloMismatch => "name in HELO",
        Finding::SenderUnresolved | Finding::SenderNullMx => "domain of the sender",
        Finding::Greylist | Finding::Spamtrap | Finding::Trapped | Finding::History => "memory",
        Finding::Origin => "country and provider",
        _ => "session",
    }
}

impl Shard {
    /// None: it has nothing to say of the address.
    fn of(answer: Explanation) -> Option<Shard> {
        if answer.remembered.is_none() && answer.sessions.is_empty() {
            return None;
        }
        let nothing = || Remembered {
            connections: 0,
            known_for: Duration::ZERO,
            errors: 0,
            temper: Default::default(),
            temper_for: Duration::ZERO,
            rates: Vec::new(),
        };
        let client = answer.remembered.unwrap_or_else(nothing);
        let rate = |(finding, rate, left): (Finding, Rate, u32)| RateLeft {
            finding: finding.word(),
            rate: rate.to_string(),
            left,
        };
        let session = |found: Found| Session {
            score: found.score,
            marks: found.marks.into_iter().map(Mark::of).collect(),
        };
        Some(Shard {
            shard: answer.shard,
            connections: client.connections,
            known_seconds: client.known_for.as_secs(),
            errors: client.errors,
            temper: client.temper.word(),
            temper_seconds: client.temper_for.as_secs(),
            rates: client.rates.into_iter().map(rate).collect(),
            sessions: answer.sessions.into_iter().map(session).collect(),
        })
    }
}
