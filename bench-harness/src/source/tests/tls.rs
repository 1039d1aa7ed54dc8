//! The same sessions in TLS, both ways of it: what is sent arrives, handshakes are counted and timed, and those that fail are no silence.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;

use super::sink::all_profiles;
use super::*;
use crate::outcome::Stage;
use crate::plan::{Tls, Trust, Versions, Way};
use crate::sink::{self, Config, Handle};

fn sink_with(faults: &str) -> Handle {
    let config = Config {
        listen_tls: vec!["127.0.0.1:0".parse().unwrap()],
        starttls: true,
        faults: faults.parse().unwrap(),
        ..Config::default()
    };
    sink::start(&config).unwrap()
}

/// The sink's certificate as a file to trust.
fn authority(sink: &Handle, folder: &tempfile::TempDir) -> PathBuf {
    let file = folder.path().join("sink.pem");
    let certificate = sink.certificate.as_ref().expect("the sink does TLS");
    std::fs::write(&file, &certificate.chain).unwrap();
    file
}

fn tls(way: Way, trust: Trust) -> Tls {
    Tls {
        way,
        versions: Versions::Any,
        resumption: false,
        trust,
        name: "sink.example".to_owned(),
    }
}

fn secured(sink: &Handle, mut plan: Plan, tls: Tls) -> Plan {
    plan.target = match tls.way {
        Way::Starttls => sink.smtp[0],
        Way::Implicit => sink.smtp_tls[0],
    };
    plan.tls = Some(tls);
    plan
}

#[test]
fn every_profile_delivers_in_tls_whatever_goes_wrong() {
    let folder = tempfile::tempdir().unwrap();
    for way in [Way::Starttls, Way::Implicit] {
        for faults in [
            "none",
            "all:delay=uniform(0ms..20ms)",
            "mail:451=20% rcpt:550=30% greeting:421=10% final:421=20%",
            "body:reset@random=20% final:reset=20% ehlo:close=10%",
        ] {
            let sink = sink_with(faults);
            let trust = Trust::Authority(authority(&sink, &folder));
            let plan = all_profiles(&sink, Duration::from_secs(20));
            let report = run(&secured(&sink, plan, tls(way, trust)));
            std::thread::sleep(Duration::from_millis(100));
            let integrity = reconcile(&[(3, report.sent.clone())], &sink.arrived(RUN));
            assert!(integrity.is_clean(), "{way:?} {faults}: {integrity:?}");
            for outcome in &report.streams {
                assert_books_add_up(outcome);
                assert_eq!(outcome.counts.handshakes_failed, 0, "{:?}", outcome.words);
            }
            let handshakes: u64 = report.streams.iter().map(|s| s.counts.handshakes).sum();
            // who hangs up may be done with a handshake before the sink is
            let seen = sink.counters();
            let range = seen.handshakes..=seen.handshakes + seen.handshakes_failed;
            assert!(range.contains(&handshakes), "{way:?} {faults}: {seen:?}");
            if faults == "none" {
                all_went_well(way, &report);
            }
        }
    }
}

fn all_went_well(way: Way, report: &SourceReport) {
    // the last three are those that are rude, or look at nothing
    for outcome in &report.streams[..5] {
        let counts = outcome.counts;
        assert_eq!(counts.accepted, counts.starts, "{:?}", outcome.words);
        let timed = outcome.stages[&Stage::Handshake].service.0.len();
        assert_eq!(timed, counts.handshakes);
        let asked = outcome.stages.get(&Stage::Starttls);
        assert_eq!(asked.is_some(), way == Way::Starttls);
    }
}

#[test]
fn sessions_are_resumed_where_the_plan_says_so_and_nowhere_else() {
    for versions in [Versions::Tls12, Versions::Tls13] {
        for resumption in [false, true] {
            let sink = sink_with("none");
            let mut one = stream(Profile::PerMessage, 50.0, 20);
            one.arrivals = Arrivals::Closed { sessions: 1 };
            let mut plan = all_profiles(&sink, Duration::from_secs(5));
            plan.streams = vec![one];
            let tls = Tls {
                versions,
                resumption,
                ..tls(Way::Implicit, Trust::Anybody)
            };
            let counts = run(&secured(&sink, plan, tls)).streams[0].counts;
            assert_eq!(counts.accepted, counts.starts, "{counts:?}");
            // the first has nothing to resume
            let want = if resumption { counts.handshakes - 1 } else { 0 };
            assert_eq!(counts.resumed, want, "{versions:?}");
            assert_eq!(sink.counters().resumed, want);
        }
    }
}

#[test]
fn who_is_not_trusted_gets_no_mail() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, other) = (sink_with("none"), sink_with("none"));
    let own = Trust::Authority(authority(&sink, &folder));
    let another_name = Tls {
        name: "other.example".to_owned(),
        ..tls(Way::Implicit, own)
    };
    let foreign = Trust::Authority(authority(&other, &folder));
    for tls in [another_name, tls(Way::Starttls, foreign)] {
        let mut plan = all_profiles(&sink, Duration::from_secs(5));
        plan.streams.truncate(2);
        let report = run(&secured(&sink, plan, tls));
        for outcome in &report.streams {
            let counts = outcome.counts;
            assert_eq!(counts.handshakes_failed, counts.starts, "{counts:?}");
            assert_eq!(counts.not_sent, counts.starts);
            let words: Vec<&String> = outcome.words.keys().collect();
            assert!(words.iter().all(|w| w.contains("certificate")), "{words:?}");
        }
        assert_eq!(sink.counters().accepted, 0);
    }
}

/// What stands behind the 220 to STARTTLS was put there by somebody in between.
#[test]
fn what_is_glued_behind_starttls_ends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            // a client that goes away is what is wanted
            let mut say = |text: &[u8]| {
                client
                    .write_all(text)
                    .and_then(|()| client.read(&mut [0; 512]))
            };
            say(b"220 x\r\n").ok();
            say(b"250-x\r\n250 STARTTLS\r\n").ok();
            say(b"220 go\r\n250 injected\r\n").ok();
        }
    });
    let sink = sink_with("none");
    let mut plan = all_profiles(&sink, Duration::from_secs(2));
    plan.streams.truncate(1);
    let mut plan = secured(&sink, plan, tls(Way::Starttls, Trust::Anybody));
    plan.target = target;
    let counts = run(&plan).streams[0].counts;
    assert_eq!((counts.garbled, counts.handshakes), (counts.starts, 0));
}

/// A sink without it says 502, and the profile says why it sent nothing.
#[test]
fn starttls_that_is_not_offered_is_told() {
    let sink = sink::start(&Config::default()).unwrap();
    let mut plan = all_profiles(&sink, Duration::from_secs(2));
    plan.streams.truncate(1);
    plan.tls = Some(tls(Way::Starttls, Trust::Anybody));
    let report = run(&plan);
    let words: Vec<&String> = report.streams[0].words.keys().collect();
    assert_eq!(words, ["EHLO does not offer STARTTLS"]);
    assert_eq!(report.streams[0].counts.accepted, 0);
}
