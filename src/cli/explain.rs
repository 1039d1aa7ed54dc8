//! `weir explain ADDRESS`: asks a running weir about an address by its admin page, and says it in lines.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::units::show;

/// weir itself waits some seconds for lists and names.
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_MAX: u64 = 1 << 20;

/// What is known of an address, or why nobody says.
pub fn explain(typed: &str, admin: Option<&str>) -> Result<String, String> {
    let ip: IpAddr = typed.parse().map_err(|_| {
        format!("explain {typed:?} is no IP address; write one, as in weir explain 192.0.2.1")
    })?;
    let admin = admin.ok_or(
        "explain asks a running weir; name its admin page, as in --admin 127.0.0.1:9025, or give the flags it runs with (weir explain ADDRESS @FILE)",
    )?;
    let admin: SocketAddr = admin
        .parse()
        .map_err(|_| format!("--admin {admin:?} is no address; write ADDR:PORT"))?;
    let answer = fetch(admin, &format!("/status/client/{ip}"))
        .map_err(|error| format!("the admin page at {admin}: {error}; is weir running?"))?;
    let page: Value = serde_json::from_str(&answer)
        .map_err(|_| format!("the admin page at {admin} said: {}", answer.trim()))?;
    Ok(describe(&page))
}

fn fetch(admin: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => Err(io::Error::other("that was no answer of an admin page")),
    }
}

/// The page, in lines.
fn describe(page: &Value) -> String {
    let mut out = String::new();
    let mut line = |topic: &str, words: String| {
        let _ = writeln!(out, "{topic:<12}{words}");
    };
    line("address", text(&page["address"]));
    line("would", would(page));
    line("list", list(page));
    let mut topic = "score";
    let score = match page["reputation"].as_bool() {
        Some(true) if page["busy"] == true => {
            "unknown: too many addresses are being asked about".into()
        }
        Some(true) => page["score"].to_string(),
        _ => "none: clients are not inquired of (--reputation)".into(),
    };
    line(topic, score);
    for mark in rows(&page["marks"]) {
        line("", self::mark(mark));
    }
    for question in rows(&page["unanswered"]) {
        line("", format!("no answer: {}", text(question)));
    }
    if let Some(words) = origin(page) {
        line("origin", words);
    }
    if page["network"].is_object() {
        line("network", network(&page["network"]));
    }
    topic = "limits";
    for shard in rows(&page["shards"]) {
        line(topic, self::shard(shard));
        for session in rows(&shard["sessions"]) {
            line("", format!("a session with score {}", session["score"]));
            for mark in rows(&session["marks"]) {
                line("", format!("  {}", self::mark(mark)));
            }
        }
        topic = "";
    }
    if rows(&page["shards"]).next().is_none() {
        line(topic, "nothing is remembered of the address".into());
    }
    if page["complete"] != true {
        line(
            "note",
            "not all shards have answered: there may be more".into(),
        );
    }
    out
}

fn would(page: &Value) -> String {
    let would = &page["would"];
    let said = |key: &str| text(&would[key]);
    let refusal = format!("{}={}", said("finding"), said("action"));
    let words = match (said("refuse_at").as_str(), said("temper").as_str()) {
        ("connect", _) => format!("be turned away when it connects: {refusal}"),
        // It comes no further.
        (_, "stutter") => "be served a byte at a time, and no mail taken".into(),
        ("rcpt", "delayed") => format!("be served with delays, and refused at RCPT: {refusal}"),
        ("rcpt", _) => format!("be refused at RCPT: {refusal}"),
        (_, "delayed") => format!("be served with delays{}", greylisted(would)),
        _ => format!("be served{}", greylisted(would)),
    };
    let logged: Vec<String> = rows(&would["only_logged"]).map(text).collect();
    match logged.is_empty() {
        true => words,
        false => format!("{words} (only logged: {})", logged.join(", ")),
    }
}

fn greylisted(would: &Value) -> &'static str {
    match would["greylist"].as_bool() {
        Some(true) => "; its recipients would be greylisted",
        _ => "",
    }
}

fn list(page: &Value) -> String {
    let list = match page["list"].as_str() {
        Some("allow") => "on --allow-list: exempt from limits, tarpit and reputation",
        Some("deny") => "on --deny-list",
        _ => "on none",
    };
    match page["relay_from"].as_bool() {
        Some(true) => format!("{list}; may send anywhere (--relay-from)"),
        _ => list.into(),
    }
}

fn mark(mark: &Value) -> String {
    let weight = mark["weight"].as_i64().unwrap_or_default();
    let mut words = format!("{weight:+} {}", text(&mark["finding"]));
    let detail = text(&mark["detail"]);
    if !detail.is_empty() {
        let _ = write!(words, " {detail}");
    }
    let _ = write!(
        words,
        " ({}, action {}",
        text(&mark["check"]),
        text(&mark["action"])
    );
    let _ = match mark["seconds"].as_u64() {
        Some(seconds) => write!(words, ", for {})", show(Duration::from_secs(seconds))),
        None => write!(words, ")"),
    };
    words
}

fn origin(page: &Value) -> Option<String> {
    let asn = page["asn"].as_u64().map(|asn| format!("AS{asn}"));
    let country = page["country"].as_str().map(str::to_owned);
    let words: Vec<String> = country.into_iter().chain(asn).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn network(network: &Value) -> String {
    let proven = match left(&network["proven_seconds"]) {
        Some(left) => format!("proven for {left}"),
        None => "not proven".into(),
    };
    let trapped = match left(&network["trapped_seconds"]) {
        Some(left) => format!(", wrote to a spamtrap (for {left})"),
        None => String::new(),
    };
    format!(
        "{proven}{trapped}; history {} points, its provider {}",
        network["history"], network["provider_history"]
    )
}

fn shard(shard: &Value) -> String {
    let mut words = format!(
        "shard {}: {} connections, {} errors, {}",
        shard["shard"],
        shard["connections"],
        shard["errors"],
        text(&shard["temper"])
    );
    if let Some(left) = left(&shard["temper_seconds"]) {
        let _ = write!(words, " for {left}");
    }
    if let Some(left) = left(&shard["known_seconds"]) {
        let _ = write!(words, ", known for {left}");
    }
    for rate in rows(&shard["rates"]) {
        let (finding, of) = (text(&rate["finding"]), text(&rate["rate"]));
        let _ = write!(words, ", {finding} {of}: {} left", rate["left"]);
    }
    words
}

/// Seconds that are left; None: none are.
fn left(seconds: &Value) -> Option<String> {
    let seconds = seconds.as_u64().filter(|seconds| *seconds > 0)?;
    Some(show(Duration::from_secs(seconds)))
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A string without its quotes, and without what would move a terminal's cursor.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be_asked_is_told() {
        for (address, admin, want) in [
            ("mx.example", Some("127.0.0.1:1"), "no IP address"),
            ("192.0.2.1", None, "--admin"),
            ("192.0.2.1", Some("here"), "--admin \"here\""),
        ] {
            let told = explain(address, admin).unwrap_err();
            assert!(told.contains(want), "{told}");
        }
    }

    #[test]
    fn a_page_is_said_in_lines() {
        let page = json!({
            "address": "192.0.2.1", "complete": false, "list": null, "relay_from": false, "reputation": true, "busy": false,
            "would": {"refuse_at": "rcpt", "finding": "dnsbl", "action": "reject", "greylist": false, "temper": "normal"},
            "score": 5,
            "marks": [
                {"finding": "dnsbl", "weight": 6, "detail": "bl.example", "check": "dns list", "action": "reject", "seconds": 90},
                {"finding": "history", "weight": -1, "detail": "", "check": "memory", "action": "log", "seconds": null},
            ],
            "unanswered": ["wl.example\u{1b}[2J"],
            "asn": 64500, "country": "XX",
            "network": {"proven_seconds": 3600, "trapped_seconds": 0, "history": -1, "provider_history": 2},
            "shards": [{"shard": 1, "connections": 2, "errors": 3, "temper": "delayed", "temper_seconds": 60, "known_seconds": 0,
                "rates": [{"finding": "rate-messages", "rate": "10/m", "left": 4}],
                "sessions": [{"score": 1, "marks": []}]}],
        });
        let lines = "\
address     192.0.2.1
would       be refused at RCPT: dnsbl=reject
list        on none
score       5
            +6 dnsbl bl.example (dns list, action reject, for 1m 30s)
            -1 history (memory, action log)
            no answer: wl.example[2J
origin      XX AS64500
network     proven for 1h; history -1 points, its provider 2
limits      shard 1: 2 connections, 3 errors, delayed for 1m, rate-messages 10/m: 4 left
            a session with score 1
note        not all shards have answered: there may be more
";
        assert_eq!(describe(&page), lines);
    }

    #[test]
    fn what_would_be_done_is_said_with_the_temper() {
        let table = [
            (
                json!({"refuse_at": "rcpt", "finding": "score-reject", "action": "reject", "temper": "stutter", "greylist": false}),
                "be served a byte at a time, and no mail taken",
            ),
            (
                json!({"refuse_at": "rcpt", "finding": "score-reject", "action": "reject", "temper": "delayed", "greylist": false}),
                "be served with delays, and refused at RCPT: score-reject=reject",
            ),
            (
                json!({"refuse_at": null, "temper": "normal", "greylist": false, "only_logged": ["score-reject", "greylist"]}),
                "be served (only logged: score-reject, greylist)",
            ),
            (
                json!({"refuse_at": null, "temper": "delayed", "greylist": true, "only_logged": []}),
                "be served with delays; its recipients would be greylisted",
            ),
        ];
        for (outcome, want) in table {
            assert_eq!(would(&json!({ "would": outcome })), want);
        }
    }

    #[test]
    fn a_stranger_is_served() {
        let page = json!({
            "address": "::1", "complete": true, "list": "allow", "relay_from": true, "reputation": false,
            "would": {"temper": "normal", "greylist": false}, "shards": [],
        });
        let lines = describe(&page);
        assert!(lines.contains("would       be served\n"), "{lines}");
        assert!(
            lines.contains("may send anywhere") && lines.contains("nothing is remembered"),
            "{lines}"
        );
    }
}
