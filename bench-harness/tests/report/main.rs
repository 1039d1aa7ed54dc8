//! Reports of made results: that they can be written and read again, whatever is in them, and that nothing a peer said gets out of
//! its text. The pages stay in `target/tmp/report/`, to be looked at in a browser.

mod made;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use made::{Like, comparison, outcome, results};
use weir_bench::outcome::*;
use weir_bench::report::{self, compare::Compared};

/// A report of ten minutes stays below this.
const PAGE_OCTETS_MAX: usize = 1_000_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("report")
}

/// Writes everything, checks what holds for every page, and gives the page.
fn page(results: &Results, name: &str) -> String {
    let written = report::write_all(results, &folder(), name).unwrap();
    assert!(written.iter().all(|path| path.exists()));
    let again = report::read(&folder().join(format!("{name}.json"))).unwrap();
    assert!(
        again == *results,
        "{name}.json does not hold what was written"
    );
    let page = fs::read_to_string(folder().join(format!("{name}.html"))).unwrap();
    assert_is_sound(&page);
    page
}

fn assert_is_sound(page: &str) {
    assert!(page.len() < PAGE_OCTETS_MAX, "{} octets", page.len());
    for elsewhere in [
        "http://", "https://", "<script", "<img", "src=", "url(", "NaN", "inf",
    ] {
        assert!(!page.contains(elsewhere), "a page holds {elsewhere}");
    }
    for tag in [
        "table", "figure", "svg", "details", "div", "ul", "li", "dl", "td", "p",
    ] {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(
            opened,
            page.matches(&format!("</{tag}>")).count(),
            "<{tag}>"
        );
    }
}

fn beside_bots(seconds: u64) -> Like {
    Like {
        seconds,
        bots: 60_000,
        stall: Duration::from_millis(300),
        ..Like::default()
    }
}

const PEERS: [&str; 12] = [
    "direct",
    "weir",
    "haproxy",
    "nginx-mail",
    "nginx-stream",
    "postfix",
    "exim",
    "opensmtpd",
    "haraka",
    "kumomta",
    "stalwart",
    "envoy",
];

fn peers(names: &[&'static str], seconds: u64) -> Vec<Outcome> {
    (names.iter().enumerate())
        .map(|(n, name)| {
            outcome(&Like {
                name,
                seconds,
                rate: 200,
                median_us: 200.0 + 130.0 * n as f64,
                stall: Duration::from_millis(40 * (n as u64 % 3)),
                seed: n as u64 + 1,
                ..Like::default()
            })
        })
        .collect()
}

#[test]
fn one_run_shows_its_stages_bots_and_samples() {
    let page = page(&results(vec![outcome(&beside_bots(60))]), "one");
    for wanted in [
        "Every message is accounted for",
        "Latency by percentile, good",
        "99.9%",
        "service time",
        "Kept clients",
        "Memory",
        "CPU of the watched process",
        "451 4.3.0 upstream not available",
        "ab0c18e4f2d1",
        "weir-bench source --rate 500/s",
        "60,000 connections are opened at 5,000/s and kept",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    let hgrm = fs::read_to_string(folder().join("one-good-session.hgrm")).unwrap();
    assert!(hgrm.starts_with("       Value     Percentile"));
    assert!(folder().join("one-good-final-service.hgrm").exists());
}

#[test]
fn peers_stand_in_one_chart_and_one_table() {
    let mut results = results(peers(&PEERS[..4], 20));
    results.comparisons = vec![
        comparison(
            "new connection per message, 4 KiB",
            &["weir", "haproxy", "nginx-mail"],
            5,
            Some(0.5),
        ),
        comparison(
            "persistent, 4 KiB",
            &["direct", "weir", "haproxy"],
            5,
            Some(0.2),
        ),
    ];
    results.figures = vec![
        Figure {
            title: "user memory per parked client".to_owned(),
            value: 212.0,
            unit: "B".to_owned(),
            target: Some(256.0),
            note: "100,000 held".to_owned(),
        },
        Figure {
            title: "two shards against one".to_owned(),
            value: 1.08,
            unit: "×".to_owned(),
            target: Some(1.05),
            note: "medians 41.2 µs and 38.1 µs".to_owned(),
        },
    ];
    let page = page(&results, "peers");
    assert_eq!(page.matches("<figcaption>Latency by percentile").count(), 1);
    for wanted in [
        "✓ at most 0.50: met",
        "✗ at most 0.20: missed",
        "✗ at most 1.05: missed",
        "absent: /usr/sbin/postfix",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
}

#[test]
fn twelve_peers_fit() {
    page(&results(peers(&PEERS, 10)), "twelve");
}

#[test]
fn rounds_of_a_peer_are_one_line() {
    let mut runs = peers(&["weir"], 5);
    runs.extend(peers(&["weir"], 5));
    runs[1].plan.run = 99;
    runs[1].plan.target = "127.0.0.1:9".parse().unwrap();
    let page = page(&results(runs), "rounds");
    assert_eq!(page.matches("<li><div class=\"name\">").count(), 1);
    assert!(page.contains("first of 2 rounds"));
}

#[test]
fn ten_minutes_stay_small() {
    let like = Like {
        rate: 50,
        ..beside_bots(600)
    };
    let page = page(&results(vec![outcome(&like)]), "ten-minutes");
    assert!(page.len() < 200_000, "{} octets", page.len());
}

#[test]
fn without_a_count_there_is_no_rate() {
    let mut run = outcome(&Like {
        seconds: 5,
        ..Like::default()
    });
    run.integrity = None;
    run.plan.ledger = None;
    let page = page(&results(vec![run]), "uncounted");
    assert!(page.contains("Not counted."));
    assert!(page.contains("no rate"));
    assert!(!page.contains("messages accepted,"));
}

#[test]
fn lost_mail_comes_first() {
    let mut run = outcome(&Like {
        seconds: 5,
        ..Like::default()
    });
    run.integrity = Some(Integrity {
        arrived: 10,
        lost: 1_234,
        ..Integrity::default()
    });
    run.machine.debug_build = true;
    let page = page(&results(vec![run]), "lost");
    let verdict = page.find("✗ Mail was not kept whole").unwrap();
    assert!(page.contains("1,234 lost"));
    assert!(page.contains("A debug build was measured"));
    assert!(verdict < page.find("class=\"tiles\"").unwrap());
}

/// The page once showed a loss in a subclause where another run had not been counted.
#[test]
fn a_loss_is_not_hidden_by_what_was_not_counted() {
    let mut runs = peers(&["weir", "haproxy"], 3);
    runs[0].integrity = None;
    runs[1].integrity = Some(Integrity {
        lost: 7,
        ..Integrity::default()
    });
    let page = page(&results(runs), "lost-and-uncounted");
    assert!(page.contains("✗ Mail was not kept whole"));
    assert!(page.contains("7 lost"));
    assert!(page.contains("Of 1 run nobody asked"));
    assert!(!page.contains("class=\"verdict uncounted\""));
}

/// The page once praised a run of which nothing was accepted: of no mail, none is lost.
#[test]
fn nothing_accepted_is_no_praise() {
    let mut run = outcome(&Like {
        seconds: 3,
        ..Like::default()
    });
    for second in &mut run.streams[0].seconds {
        second.failed += std::mem::take(&mut second.accepted);
    }
    run.streams[0].counts.accepted = 0;
    run.integrity = Some(Integrity::default());
    let page = page(&results(vec![run]), "none-accepted");
    assert!(page.contains("? No message was accepted,"));
    assert!(!page.contains("verdict clean"));
    assert!(!page.contains("all of them whole"));
}

#[test]
fn little_is_enough() {
    let second = Like {
        seconds: 1,
        rate: 2,
        ..Like::default()
    };
    let mut one_session = outcome(&second);
    let session = one_session.streams[0].stages.remove(&Stage::Session);
    assert!(session.is_some());
    one_session.streams[0].stages.clear();
    let mut times = StageTimes::default();
    times.planned.record(Duration::from_micros(1));
    one_session.streams[0].stages.insert(Stage::Session, times);

    let mut nothing = outcome(&second);
    nothing.streams[0] = StreamOutcome {
        name: "good".to_owned(),
        ..StreamOutcome::default()
    };
    nothing.samples.truncate(1);

    let mut no_streams = outcome(&second);
    no_streams.plan.streams.clear();
    no_streams.streams.clear();
    no_streams.samples.clear();
    no_streams.plan.lasts = Duration::ZERO;
    no_streams.lasted = Duration::ZERO;

    let mut refused = outcome(&second);
    for second in &mut refused.streams[0].seconds {
        second.failed += std::mem::take(&mut second.accepted);
    }
    refused.streams[0].counts.accepted = 0;

    for (name, runs) in [
        ("empty", vec![]),
        ("one-second", vec![outcome(&second)]),
        ("one-session", vec![one_session]),
        ("nothing", vec![nothing]),
        ("no-streams", vec![no_streams]),
        ("refused", vec![refused]),
    ] {
        page(&results(runs), name);
    }
}

/// Before replies were escaped by type, one could have put a script into a report that is opened from a disk.
#[test]
fn hostile_words_stay_words() {
    const EVIL: &str =
        "554 </td><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u{202e}&\u{1b}[31m]]>";
    let mut run = outcome(&Like {
        seconds: 2,
        ..Like::default()
    });
    run.name = EVIL.to_owned();
    run.command = EVIL.to_owned();
    run.began = EVIL.to_owned();
    run.machine.cpu = EVIL.to_owned();
    run.machine.kernel = EVIL.to_owned();
    run.machine.commit = EVIL.to_owned();
    run.machine.warnings = vec![EVIL.to_owned()];
    run.plan.streams[0].name = EVIL.to_owned();
    run.streams[0].name = EVIL.to_owned();
    run.streams[0].words.insert(EVIL.to_owned(), 3);
    let mut results = results(vec![run.clone(), run]);
    results.runs[1].plan.lasts += Duration::from_secs(1);
    results.comparisons = vec![comparison(EVIL, &[EVIL], 1, None)];
    results.comparisons[0].against = EVIL.to_owned();
    results.comparisons[0].peers[1].absent = Some(EVIL.to_owned());
    results.figures = vec![Figure {
        title: EVIL.to_owned(),
        unit: EVIL.to_owned(),
        note: EVIL.to_owned(),
        ..Figure::default()
    }];
    report::write_all(&results, &folder(), EVIL).unwrap();
    for page in [
        report::page::of(&results, EVIL),
        Compared::of(&results, &results).page(&[EVIL.to_owned(), EVIL.to_owned()]),
    ] {
        let harmless = page.replace("src=x onerror=alert(1)", "");
        assert_is_sound(&harmless);
        assert!(
            page.contains("554 &lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&gt;")
        );
        assert!(!page.contains(['\u{202e}', '\u{1b}']));
    }
    let text = Compared::of(&results, &results).text(&[EVIL.to_owned(), EVIL.to_owned()]);
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn the_page_can_be_made_again_in_a_folder_that_was_not_there() {
    let results = results(peers(&["weir"], 3));
    let first = page(&results, "again");
    let into = folder().join("again").join(fastrand::u64(..).to_string());
    report::command(&report::Options {
        results: folder().join("again.json"),
        into: Some(into.clone()),
    })
    .unwrap();
    assert_eq!(fs::read_to_string(into.join("again.html")).unwrap(), first);
}

#[test]
fn what_is_no_result_file_is_named_with_its_path() {
    fs::create_dir_all(folder()).unwrap();
    for (name, text, want) in [
        ("not-json.json", "hello", "no result file"),
        (
            "other.json",
            r#"{"format":"other/9","runs":[],"comparisons":[],"figures":[]}"#,
            "other/9",
        ),
    ] {
        let path = folder().join(name);
        fs::write(&path, text).unwrap();
        let error = format!("{:#}", report::read(&path).unwrap_err());
        assert!(error.contains(want) && error.contains(name), "{error}");
    }
    assert!(report::read(&folder().join("absent.json")).is_err());
}

#[test]
fn two_runs_alike_may_be_compared() {
    let first = results(vec![outcome(&Like {
        seconds: 10,
        ..Like::default()
    })]);
    let second = results(vec![outcome(&Like {
        seconds: 10,
        median_us: 800.0,
        ..Like::default()
    })]);
    let compared = Compared::of(&first, &second);
    assert_eq!(compared.pairs[0].objections, Vec::<String>::new());
    let p50 = compared.pairs[0]
        .lines
        .iter()
        .find(|l| l.what.contains("p50"));
    let ratio = p50.and_then(|l| l.ratio()).unwrap();
    assert!((1.9..2.1).contains(&ratio), "{ratio}");
    for verdict in ["lost", "duplicated", "altered", "invented", "unknown"] {
        let line = compared.pairs[0].lines.iter().find(|l| l.what == verdict);
        assert_eq!(line.and_then(|l| l.second), Some(0.0), "{verdict}");
    }
    let names = ["a.json".to_owned(), "b.json".to_owned()];
    let page = compared.page(&names);
    assert_is_sound(&page);
    fs::create_dir_all(folder()).unwrap();
    fs::write(folder().join("compare.html"), page).unwrap();
    fs::write(folder().join("compare.txt"), compared.text(&names)).unwrap();
}

#[test]
fn runs_of_another_kind_are_not_comparable() {
    let like = Like {
        seconds: 2,
        ..Like::default()
    };
    type Change = fn(&mut Outcome);
    let changes: [(Change, &str, &str); 5] = [
        (
            |r| r.plan.streams[0].open_max = 7,
            "the plans differ",
            "plan.streams.0.open_max",
        ),
        (
            |r| r.machine.debug_build = true,
            "the second is a debug build",
            "machine.debug_build",
        ),
        (
            |r| r.machine.cpu = "abacus".to_owned(),
            "different machines",
            "machine.cpu",
        ),
        (
            |r| r.machine.kernel = "2.4".to_owned(),
            "different kernels",
            "machine.kernel",
        ),
        (|r| r.integrity = None, "nobody counted", ""),
    ];
    let first = results(vec![outcome(&like)]);
    for (change, objection, difference) in changes {
        let mut second = first.clone();
        change(&mut second.runs[0]);
        let compared = Compared::of(&first, &second);
        let pair = &compared.pairs[0];
        assert!(
            pair.objections.iter().any(|o| o.contains(objection)),
            "{objection}"
        );
        assert!(difference.is_empty() || pair.differences.iter().any(|d| d.what == difference));
        let text = compared.text(&[String::new(), String::new()]);
        assert!(text.contains("NOT COMPARABLE"));
        assert_is_sound(&compared.page(&[String::new(), String::new()]));
    }
}

#[test]
fn what_differs_but_does_not_matter_is_said() {
    let first = results(vec![outcome(&Like {
        seconds: 2,
        ..Like::default()
    })]);
    let mut second = first.clone();
    second.runs[0].machine.commit = "feedbee".to_owned();
    second.runs[0].plan.seed = 9;
    let compared = Compared::of(&first, &second);
    assert!(compared.pairs[0].objections.is_empty());
    let what: Vec<_> = compared.pairs[0]
        .differences
        .iter()
        .map(|d| d.what.as_str())
        .collect();
    assert_eq!(what, ["plan.seed", "machine.commit"]);
}
