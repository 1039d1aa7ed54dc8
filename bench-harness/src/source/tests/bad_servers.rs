//! Servers that refuse, hang, lie or die: everything is counted, nothing hangs, panics or grows.

use super::*;
use crate::ledger::Fate;

fn fast(server: &Server, profile: Profile, starts: u64) -> SourceReport {
    let stream = stream(profile, starts as f64 * 10.0, starts);
    run(&plan(server, Duration::from_millis(100), vec![stream]))
}

#[test]
fn refusals_are_told_apart() {
    let script = Script::default;
    for (script, deferred, rejected, not_sent) in [
        (
            Script {
                mail: "451 4.3.0 later\r\n",
                ..script()
            },
            0,
            0,
            4,
        ),
        (
            Script {
                rcpt: "550 5.1.1 who?\r\n",
                ..script()
            },
            0,
            0,
            4,
        ),
        (
            Script {
                data: "452 4.3.1 full\r\n",
                ..script()
            },
            0,
            0,
            4,
        ),
        (
            Script {
                end_of_data: "451 4.3.0 later\r\n",
                ..script()
            },
            4,
            0,
            0,
        ),
        (
            Script {
                end_of_data: "554 5.6.0 no\r\n",
                ..script()
            },
            0,
            4,
            0,
        ),
    ] {
        for profile in [Profile::PerMessage, Profile::Persistent, Profile::Pipelined] {
            let server = Server::start(script.clone());
            let report = fast(&server, profile, 4);
            let outcome = &report.streams[0];
            assert_books_add_up(outcome);
            let counts = &outcome.counts;
            assert_eq!(
                (counts.deferred, counts.rejected, counts.not_sent),
                (deferred, rejected, not_sent),
                "{profile:?} {:?}",
                outcome.counts
            );
            assert!(integrity(&report, &server).is_clean());
            assert_eq!(
                outcome.words.values().sum::<u64>(),
                4,
                "{:?}",
                outcome.words
            );
            assert_eq!(
                counts.turned_away + counts.closed_early + counts.timed_out,
                0
            );
        }
    }
}

#[test]
fn a_refused_chunk_is_a_refused_message() {
    let server = Server::start(Script {
        rcpt: "550 5.1.1 who?\r\n",
        end_of_data: "503 5.5.1 no recipients\r\n",
        ..Script::default()
    });
    let report = fast(&server, Profile::Bdat, 4);
    assert_eq!(report.streams[0].counts.rejected, 4);
    assert!(server.said()[0].contains("RSET\r\n"));
    assert!(integrity(&report, &server).is_clean());
}

#[test]
fn a_354_with_nobody_left_gets_an_empty_message() {
    let server = Server::start(Script {
        rcpt: "550 5.1.1 who?\r\n",
        ..Script::default()
    });
    let report = fast(&server, Profile::Pipelined, 2);
    assert_eq!(report.streams[0].counts.not_sent, 2);
    assert!(server.said()[0].contains("DATA\r\n.\r\nRSET\r\n"));
    assert!(integrity(&report, &server).is_clean());
}

#[test]
fn who_is_turned_away_goes() {
    for script in [
        Script {
            greeting: "421 4.3.2 busy\r\n",
            ..Script::default()
        },
        Script {
            greeting: "554 5.3.2 no\r\n",
            ..Script::default()
        },
        Script {
            mail: "421 4.3.2 busy\r\n",
            ..Script::default()
        },
    ] {
        for profile in SENDING {
            let server = Server::start(script.clone());
            let report = fast(&server, profile, 3);
            assert_books_add_up(&report.streams[0]);
            assert_eq!(report.streams[0].counts.turned_away, 3, "{profile:?}");
            assert_eq!(
                report.streams[0].counts.not_sent,
                if profile == Profile::Bdat && script.mail.starts_with("421") {
                    0
                } else {
                    3
                }
            );
        }
    }
}

#[test]
fn a_server_that_closes_after_any_octet_never_makes_a_message_accepted_by_itself() {
    // all replies of a session are some 200 octets
    for profile in SENDING {
        for replies_max in (1..230).step_by(if cfg!(debug_assertions) { 7 } else { 1 }) {
            let server = Server::start(Script {
                replies_max,
                ..Script::default()
            });
            let mut stream = stream(profile, 1000.0, 1);
            if let Profile::SlowBody { .. } = profile {
                stream.profile = Profile::SlowBody {
                    bytes_per_second: 10_000_000,
                };
            }
            let report = run(&plan(&server, Duration::from_millis(2), vec![stream]));
            assert_books_add_up(&report.streams[0]);
            let integrity = integrity(&report, &server);
            assert!(
                integrity.is_clean(),
                "{profile:?} {replies_max} {integrity:?}"
            );
            let script = Script::default();
            let answered = [
                script.greeting,
                script.ehlo,
                script.mail,
                script.rcpt,
                script.end_of_data,
            ]
            .map(str::len)
            .iter()
            .sum::<usize>();
            if replies_max < answered {
                assert_eq!(
                    report.streams[0].counts.accepted, 0,
                    "{profile:?} {replies_max}"
                );
            }
        }
    }
}

#[test]
fn hanging_up_never_counts_as_accepted_what_was_not() {
    let server = Server::start(Script::default());
    let mut stream = stream(Profile::HangUp, 500.0, 500);
    stream.bodies = Bodies::Sizes {
        weights: vec![(super::super::MADE_OCTETS_MIN as u32, 1)],
    };
    let report = run(&plan(&server, Duration::from_secs(1), vec![stream]));
    let outcome = &report.streams[0];
    assert_books_add_up(outcome);
    let counts = &outcome.counts;
    assert!(counts.not_sent > 300, "{counts:?}");
    assert_eq!(
        counts.resets + counts.garbled + counts.timed_out,
        0,
        "{counts:?}"
    );
    // what the server did with those whose end left and whose reply was not waited for is its business
    std::thread::sleep(Duration::from_millis(50));
    let integrity = integrity(&report, &server);
    assert!(integrity.is_clean(), "{integrity:?}");
    let lengths: std::collections::BTreeSet<usize> =
        server.said().iter().map(String::len).collect();
    assert!(lengths.len() > 100, "hung up at {} places", lengths.len());
}

#[test]
fn hanging_up_at_each_octet_is_told_apart() {
    use super::super::session::Session;
    use super::super::start::{Letter, Start};
    use super::super::{
        mail::Mail,
        profiles,
        stream::{Process, Stream},
    };
    use std::rc::Rc;
    let server = Server::start(Script::default());
    let mut stream = stream(Profile::HangUp, 1.0, 1);
    stream.sender = "s".into();
    stream.recipient = "r".into();
    stream.bodies = Bodies::Sizes {
        weights: vec![(super::super::MADE_OCTETS_MIN as u32, 1)],
    };
    let plan = plan(&server, Duration::from_secs(1), vec![stream]);
    let process = Rc::new(Process::new(&plan, None));
    let mail = Mail::load(&plan.streams[0].bodies).unwrap();
    let stream = Rc::new(Stream::new(&plan, 0, &process, mail));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let session = "EHLO client.example\r\nMAIL FROM:<s>\r\nRCPT TO:<r>\r\nDATA\r\n".len();
    let mut fates = Vec::new();
    runtime.block_on(async {
        let start = Start::new(&stream, 0, process.begun, process.begun);
        let octets = profiles::octets_of_session(
            &Session::open(&start).await.unwrap(),
            &Letter::new(&start),
        );
        fates.push(octets);
        start.end(Ok(()));
        for after in 1..=octets {
            let start = Start::new(&stream, 0, process.begun, process.begun);
            let ended = profiles::hang_up_after(&start, after).await;
            start.end(ended);
        }
    });
    let octets = fates[0];
    let end = octets - "QUIT\r\n".len();
    let sent = process.sent.borrow();
    for after in 1..=octets {
        let want = match after {
            _ if after < end => Fate::NotSent,
            _ if after == end => Fate::Unanswered,
            _ => Fate::Accepted,
        };
        assert_eq!(
            sent.fate(after as u32),
            want,
            "after {after} of {octets}, {session} before the message"
        );
    }
    assert!(reconcile(&[(0, sent.clone())], &server.arrived()).is_clean());
}

#[test]
fn silence_has_an_end() {
    let server = Server::start(Script {
        greeting: "",
        ..Script::default()
    });
    for profile in SENDING {
        let mut stream = stream(profile, 30.0, 3);
        stream.patience = Duration::from_millis(300);
        let report = run(&plan(&server, Duration::from_millis(100), vec![stream]));
        let outcome = &report.streams[0];
        assert_books_add_up(outcome);
        assert_eq!(outcome.counts.timed_out, 3, "{profile:?}");
        let session = &outcome.stages[&crate::outcome::Stage::Session].planned;
        assert!(
            session.at(0.0) >= Duration::from_millis(290),
            "given up is slow"
        );
    }
}

#[test]
fn a_server_that_stops_reading_is_given_up() {
    let server = Server::start(Script {
        reads_max: 2000,
        ..Script::default()
    });
    let mut stream = stream(Profile::PerMessage, 10.0, 2);
    stream.bodies = Bodies::Sizes {
        weights: vec![(20_000_000, 1)],
    };
    stream.patience = Duration::from_millis(300);
    let report = run(&plan(&server, Duration::from_millis(200), vec![stream]));
    assert_books_add_up(&report.streams[0]);
    assert_eq!(report.streams[0].counts.timed_out, 2);
    assert_eq!(report.streams[0].counts.not_sent, 2);
}

#[test]
fn garbage_is_no_smtp() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"220-and on\r\n",
        b"220-",
        b"\0\0\0\0\0\0\0\0",
        b"220 hello\n",
        b"999 \r\n",
    ] {
        for profile in SENDING {
            let server = Server::start(Script {
                garbage: Some(garbage),
                ..Script::default()
            });
            let report = fast(&server, profile, 2);
            assert_books_add_up(&report.streams[0]);
            assert_eq!(
                report.streams[0].counts.garbled, 2,
                "{profile:?} {garbage:?}"
            );
        }
    }
}

#[test]
fn bots_outlast_endless_garbage() {
    for profile in [
        Profile::Silent,
        Profile::Spambot,
        Profile::SlowLoris {
            every: Duration::from_millis(5),
        },
    ] {
        let server = Server::start(Script {
            garbage: Some(b"blah blah "),
            ..Script::default()
        });
        let report = fast(&server, profile, 2);
        assert_eq!(report.streams[0].counts.unfinished, 2, "{profile:?}");
    }
}

#[test]
fn replies_in_single_octets_are_replies() {
    for profile in [Profile::PerMessage, Profile::Pipelined, Profile::Bdat] {
        let server = Server::start(Script {
            piece: 1,
            ..Script::default()
        });
        let mut stream = stream(profile, 20.0, 2);
        stream.recipients = 3;
        let report = run(&plan(&server, Duration::from_millis(100), vec![stream]));
        assert_eq!(report.streams[0].counts.accepted, 2, "{profile:?}");
        assert!(integrity(&report, &server).is_clean());
    }
}

#[test]
fn wrong_kinds_of_replies_end_it() {
    for script in [
        Script {
            mail: "354 eh\r\n",
            ..Script::default()
        },
        Script {
            data: "250 eh\r\n",
            ..Script::default()
        },
        Script {
            end_of_data: "354 eh\r\n",
            ..Script::default()
        },
    ] {
        let server = Server::start(script);
        let report = fast(&server, Profile::PerMessage, 2);
        assert_books_add_up(&report.streams[0]);
        assert_eq!(report.streams[0].counts.garbled, 2);
        assert_eq!(report.streams[0].counts.accepted, 0);
    }
}

#[test]
fn nobody_there_is_counted_and_does_not_spin() {
    let server = Server::start(Script::default());
    let mut plan = plan(
        &server,
        Duration::from_millis(500),
        vec![stream(Profile::PerMessage, 1.0, 1_000_000)],
    );
    plan.streams[0].arrivals = Arrivals::Closed { sessions: 2 };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    plan.target = listener.local_addr().unwrap();
    drop(listener);
    let report = run(&plan);
    let outcome = &report.streams[0];
    assert_books_add_up(outcome);
    assert_eq!(outcome.counts.connect_failed, outcome.counts.starts);
    assert!(
        (4..=110).contains(&outcome.counts.starts),
        "{:?}",
        outcome.counts
    );
    assert!(
        outcome
            .words
            .keys()
            .all(|word| word.starts_with("connect: ")),
        "{:?}",
        outcome.words
    );
}
