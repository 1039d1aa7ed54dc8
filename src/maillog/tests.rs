//! The log as its reader sees it: whole lines, in both forms, from real files.

use std::{fs, time::Instant};

use super::*;
use crate::policy::Finding;

#[test]
fn a_transaction_is_one_line_of_text() {
    let text = logged(Format::Text, |log| {
        log.transaction(&transaction(), recipients())
    });
    assert_eq!(
        after_time(&text),
        "transaction shard=3 session=1f transaction=2 client=[192.0.2.7]:4711 helo=\"mx.example\" sender=\"a@b.example\" recipients=2 \
         recipients_accepted=1 to=[\"c@d.example\",\"evil\\x0d\\x0a@d\"] size=4096 upstream=\"mx1.example:25\" upstream_tls=1.3 outcome=accepted findings=dnsbl score=7 \
         reply=\"250 2.0.0 Ok: queued as 4711\" body=held lasted=1.500 queue_wait=0.002 data=0.750 answer=0.020\n"
    );
}

#[test]
fn a_transaction_is_one_json_object() {
    let text = logged(Format::Json, |log| {
        log.transaction(&transaction(), recipients())
    });
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["event"], "transaction");
    assert_eq!(line["client"], "[192.0.2.7]:4711");
    assert_eq!(line["to"][1], "evil\\x0d\\x0a@d");
    assert_eq!(line["queue_wait"], 0.002);
    assert_eq!(line["findings"][0], "dnsbl");
    assert_eq!(line["score"], 7);
    assert_eq!(line["reply"], "250 2.0.0 Ok: queued as 4711");
    assert!(line.get("why").is_none(), "what does not apply is left out");
}

#[test]
fn a_session_tells_who_ended_it_and_why() {
    let record = SessionRecord {
        at: Moment::from_micros(5),
        session: 31,
        client: "[2001:db8::1]:25".parse().unwrap(),
        told: Told {
            by: Some("192.0.2.1:9".parse().unwrap()),
            id: b"a\nb",
        },
        helo: b"x",
        ended: Ended::Dropped,
        why: "pregreet",
        reply: b"554-5.5.1 a\r\n554 5.5.1 b\r\n",
        lasted: Duration::from_secs(61),
        parked: Duration::from_secs(60),
        transactions: 0,
        accepted: 0,
        deferred: 0,
        rejected: 0,
        errors: 1,
        bytes_in: 10,
        bytes_out: 20,
        tls: Some(TlsWords {
            version: "1.3",
            suite: "TLS13_AES_256_GCM_SHA384",
            resumed: true,
            certificate: "trusted",
        }),
        findings: Some(Weighed {
            findings: [Finding::Pregreet, Finding::Dnswl].into_iter().collect(),
            score: Some(-3),
        }),
    };
    let text = logged(Format::Text, |log| log.session(&record));
    assert_eq!(
        after_time(&text),
        "session shard=3 session=1f client=[2001:db8::1]:25 by=[192.0.2.1]:9 by_id=\"a\\x0ab\" helo=\"x\" ended=dropped why=pregreet findings=pregreet,dnswl score=-3 reply=\"554 5.5.1 b\" lasted=61.000 \
         parked=60.000 transactions=0 accepted=0 errors=1 in=10 out=20 tls=1.3 \
         suite=TLS13_AES_256_GCM_SHA384 resumed=yes certificate=trusted\n"
    );
}

#[test]
fn lines_are_dropped_and_the_gap_is_told() {
    let bell = Box::leak(Box::default());
    let shelves = Arc::new(Shelves::new(2, bell));
    let counters = Arc::new(Counters::default());
    let mut log = LogBuffer {
        shelves: Arc::clone(&shelves),
        counters: Arc::clone(&counters),
        wall_at_zero: Arc::default(),
        format: Format::Text,
        shard: 0,
        lost: 0,
    };
    while counters.log_lines_dropped.value() < 3 {
        log.event(
            Moment::ZERO,
            "ejected",
            &[("upstream", Value::Bytes(b"mx1:25"))],
        );
    }
    let written = counters.log_lines.value();
    let mut text = Vec::new();
    shelves.take(&mut Vec::new(), |batch| text.extend_from_slice(batch));
    assert_eq!(text.iter().filter(|b| **b == b'\n').count() as u64, written);
    log.event(Moment::ZERO, "returned", &[]);
    text.clear();
    shelves.take(&mut Vec::new(), |batch| text.extend_from_slice(batch));
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(" log_gap shard=0 dropped=3\n"), "{text}");
    assert!(text.ends_with(" returned shard=0\n"), "{text}");
}

#[test]
fn a_moved_file_is_left_for_a_new_one_at_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (
        folder.path().join("weir.log"),
        folder.path().join("weir.log.1"),
    );
    let writer = Writer::start(
        Config {
            format: Format::Text,
            file: Some(path.clone()),
        },
        Instant::now(),
    )
    .unwrap();
    let mut log = writer.logs().buffer(0, Arc::default());
    log.event(Moment::ZERO, "before", &[]);
    wait_for(|| fs::read_to_string(&path).unwrap().contains("before"));
    fs::rename(&path, &moved).unwrap();
    writer.logs().reopen();
    wait_for(|| path.exists());
    log.event(Moment::ZERO, "after", &[]);
    writer.finish();
    assert!(fs::read_to_string(&path).unwrap().contains(" after "));
    assert!(!fs::read_to_string(&moved).unwrap().contains(" after "));
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let error = Writer::start(
        Config {
            format: Format::Text,
            file: Some("/nonexistent/weir.log".into()),
        },
        Instant::now(),
    )
    .err()
    .unwrap();
    assert!(
        error.to_string().starts_with("/nonexistent/weir.log: "),
        "{error}"
    );
}

#[test]
fn many_fillers_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.log");
    let writer = Writer::start(
        Config {
            format: Format::Text,
            file: Some(path.clone()),
        },
        Instant::now(),
    )
    .unwrap();
    std::thread::scope(|scope| {
        for shard in 0..4 {
            let mut log = writer.logs().buffer(shard, Arc::default());
            scope.spawn(move || {
                for i in 0..2000 {
                    log.event(Moment::ZERO, "tick", &[("i", Value::Number(i))]);
                }
            });
        }
    });
    writer.finish();
    let text = fs::read_to_string(&path).unwrap();
    for shard in 0..4 {
        let own = text
            .lines()
            .filter_map(|l| l.split_once(&format!(" tick shard={shard} i=")))
            .map(|(_, i)| i.parse::<u32>().unwrap());
        assert!(own.eq(0..2000), "every line of shard {shard}, in order");
    }
}

fn transaction() -> TransactionRecord<'static> {
    TransactionRecord {
        at: Moment::from_micros(1_000_000),
        session: 31,
        transaction: 2,
        client: "192.0.2.7:4711".parse().unwrap(),
        told: Told::default(),
        helo: b"mx.example",
        sender: b"a@b.example",
        recipients: 2,
        recipients_accepted: 1,
        size: 4096,
        upstream: "mx1.example:25",
        upstream_tls: "1.3",
        outcome: Outcome::Accepted,
        reply: b"250 2.0.0 Ok: queued as 4711\r\n",
        why: "",
        body: Some(Body::Held),
        lasted: Duration::from_millis(1500),
        queue_wait: Duration::from_millis(2),
        data: Duration::from_millis(750),
        answer: Duration::from_millis(20),
        tls: None,
        findings: Some(Weighed {
            findings: [Finding::Dnsbl].into_iter().collect(),
            score: Some(7),
        }),
    }
}

fn recipients() -> impl Iterator<Item = &'static [u8]> {
    [&b"c@d.example"[..], b"evil\r\n@d"].into_iter()
}

fn logged(format: Format, event: impl FnOnce(&mut LogBuffer)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.log");
    let writer = Writer::start(
        Config {
            format,
            file: Some(path.clone()),
        },
        Instant::now(),
    )
    .unwrap();
    event(&mut writer.logs().buffer(3, Arc::default()));
    writer.finish();
    fs::read_to_string(path).unwrap()
}

fn after_time(line: &str) -> &str {
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    rest
}

fn wait_for(condition: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < give_up, "waited 10 s in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_finding_tells_what_it_weighs() {
    let record = FindingRecord {
        at: Moment::ZERO,
        session: 31,
        client: "192.0.2.7:4711".parse().unwrap(),
        finding: "dnswl",
        action: "log",
        stage: "lookup",
        after: Duration::from_millis(7),
        why: "",
        weight: -3,
        score: Some(2),
        detail: "wl.example",
    };
    let text = logged(Format::Text, |log| log.finding(&record));
    assert_eq!(
        after_time(&text),
        "finding shard=3 session=1f client=[192.0.2.7]:4711 finding=dnswl action=log stage=lookup after=0.007 detail=\"wl.example\" \
         weight=-3 score=2\n"
    );
    let plain = FindingRecord {
        weight: 0,
        score: None,
        detail: "",
        ..record
    };
    let text = logged(Format::Json, |log| log.finding(&plain));
    assert!(!text.contains("weight") && !text.contains("score") && !text.contains("detail"));
}
