//! Each profile does on the wire what it says.

use super::*;

fn commands(said: &str) -> Vec<&str> {
    said.lines()
        .filter_map(|line| line.split([' ', ':']).next())
        .filter(|verb| ["EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "QUIT", "."].contains(verb))
        .collect()
}

#[test]
fn every_profile_that_sends_is_clean() {
    for profile in SENDING {
        let server = Server::start(Script::default());
        let report = run_one(&server, profile, 50);
        let outcome = &report.streams[0];
        assert_books_add_up(outcome);
        assert_eq!(
            outcome.counts.accepted, 50,
            "{profile:?} {:?}",
            outcome.counts
        );
        assert_eq!(outcome.counts.body_octets, 50 * 1024);
        let integrity = integrity(&report, &server);
        assert!(integrity.is_clean(), "{profile:?} {integrity:?}");
        assert_eq!(integrity.arrived, 50);
        assert_eq!(outcome.profile, profile.word());
        assert_eq!(outcome.words.len(), 0, "{:?}", outcome.words);
    }
}

#[test]
fn a_connection_per_message_waits_for_every_reply() {
    let server = Server::start(Script::default());
    run_one(&server, Profile::PerMessage, 3);
    let said = server.said();
    assert_eq!(said.len(), 3);
    for (number, said) in said.iter().enumerate() {
        assert_eq!(
            commands(said),
            ["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]
        );
        assert!(said.starts_with(&format!(
            "EHLO client.example\r\nMAIL FROM:<s{number}@client.example> SIZE=1024\r\nRCPT TO:<r{number}@server.example>\r\nDATA\r\nX-Weir-Bench: "
        )), "{said}");
    }
    assert_eq!(server.flights(), [6, 6, 6]);
}

#[test]
fn sources_take_turns() {
    let server = Server::start(Script::default());
    run_one(&server, Profile::PerMessage, 6);
    let from: Vec<String> = server
        .clients()
        .iter()
        .map(|from| from.ip().to_string())
        .collect();
    assert_eq!(
        from,
        [
            "127.9.0.1",
            "127.9.0.2",
            "127.9.0.3",
            "127.9.0.1",
            "127.9.0.2",
            "127.9.0.3"
        ]
    );
}

#[test]
fn kept_connections_carry_their_number_of_messages() {
    for profile in [Profile::Persistent, Profile::Pipelined, Profile::Bdat] {
        let server = Server::start(Script::default());
        let mut stream = stream(profile, 1.0, 10);
        stream.arrivals = Arrivals::Closed { sessions: 1 };
        stream.messages = 4;
        let plan = plan(&server, Duration::from_millis(1000), vec![stream]);
        assert_eq!(run(&plan).streams[0].counts.accepted, 10);
        let said = server.said();
        let messages: Vec<usize> = said
            .iter()
            .map(|said| {
                commands(said)
                    .iter()
                    .filter(|verb| **verb == "MAIL")
                    .count()
            })
            .collect();
        assert_eq!(messages, [4, 4, 2], "{profile:?}");
        assert!(
            said.iter().all(|said| said.ends_with("QUIT\r\n")),
            "{said:?}"
        );
    }
}

#[test]
fn pipelined_flights_are_whole() {
    for (profile, flights, verbs) in [
        (
            Profile::Pipelined,
            2,
            &["EHLO", "MAIL", "RCPT", "RCPT", "DATA", ".", "QUIT"][..],
        ),
        (
            Profile::Bdat,
            1,
            &["EHLO", "MAIL", "RCPT", "RCPT", "BDAT", "QUIT"],
        ),
    ] {
        let server = Server::start(Script::default());
        let mut stream = stream(profile, 10.0, 1);
        stream.recipients = 2;
        let report = run(&plan(&server, Duration::from_millis(100), vec![stream]));
        assert_eq!(report.streams[0].counts.accepted, 1);
        assert_eq!(commands(&server.said()[0]), verbs);
        assert_eq!(server.flights(), [flights + 2], "{profile:?}");
        assert!(server.said()[0].contains("RCPT TO:<r0@server.example>\r\nRCPT TO:<r0.1@"));
    }
}

#[test]
fn what_is_not_offered_is_not_used() {
    for (profile, ehlo, word) in [
        (
            Profile::Pipelined,
            "250 server.example\r\n",
            "EHLO does not offer PIPELINING",
        ),
        (
            Profile::Bdat,
            "250-server.example\r\n250 PIPELINING\r\n",
            "EHLO does not offer CHUNKING",
        ),
    ] {
        let server = Server::start(Script {
            ehlo,
            ..Script::default()
        });
        let report = run_one(&server, profile, 3);
        assert_eq!(report.streams[0].counts.not_sent, 3);
        assert_eq!(report.streams[0].words[word], 3);
    }
}

#[test]
fn a_slow_body_takes_its_time() {
    let server = Server::start(Script::default());
    let profile = Profile::SlowBody {
        bytes_per_second: 2000,
    };
    let report = run_one(&server, profile, 2);
    let outcome = &report.streams[0];
    assert_eq!(outcome.counts.accepted, 2, "{:?}", outcome.counts);
    let took = outcome.stages[&crate::outcome::Stage::Final]
        .service
        .at(0.0);
    // 80 octets of stamp at once, then 944 and more at 2000 a second, in two pieces and a pause before each
    assert!((700..5000).contains(&took.as_millis()), "{took:?}");
    assert!(integrity(&report, &server).is_clean());
}

#[test]
fn clients_that_are_kept_stay_and_say_what_they_do() {
    let every = Duration::from_millis(20);
    for (profile, verbs) in [
        (Profile::Idle, &["EHLO"][..]),
        (Profile::Silent, &[]),
        (Profile::Pregreet, &["EHLO", "MAIL", "RCPT", "DATA", "."]),
        (Profile::Spambot, &["EHLO", "MAIL", "RCPT", "DATA", "."]),
    ] {
        let server = Server::start(Script::default());
        let mut stream = stream(profile, 1.0, 3);
        stream.arrivals = Arrivals::Held {
            connections: 3,
            per_second: 1000,
        };
        let report = run(&plan(&server, Duration::from_millis(700), vec![stream]));
        let counts = report.streams[0].counts;
        assert_eq!((counts.starts, counts.unfinished), (3, 3), "{profile:?}");
        assert_eq!(report.streams[0].kept.0.len(), 0);
        for said in server.said() {
            assert_eq!(commands(&said), verbs, "{profile:?}");
        }
        assert!(integrity(&report, &server).is_clean());
    }
    let server = Server::start(Script::default());
    let report = run_one(&server, Profile::SlowLoris { every }, 1);
    assert_eq!(report.streams[0].counts.unfinished, 1);
    let said = &server.said()[0];
    assert!((5..30).contains(&said.len()), "{said}");
    assert!("EHLO client.example\r\nEHLO client.example\r\n".starts_with(said.as_str()));
}

#[test]
fn pregreet_talks_first() {
    let server = Server::start(Script {
        greeting_delay: Duration::from_millis(300),
        ..Script::default()
    });
    let stream = stream(Profile::Pregreet, 10.0, 1);
    run(&plan(&server, Duration::from_millis(200), vec![stream]));
    // the server had not read yet: nobody was there to hear it; the run over, it was
    std::thread::sleep(Duration::from_millis(200));
    assert!(server.said()[0].starts_with("EHLO client.example\r\n"));
}

#[test]
fn how_long_clients_are_kept_is_counted() {
    for profile in [
        Profile::Idle,
        Profile::Silent,
        Profile::Pregreet,
        Profile::Spambot,
    ] {
        let server = Server::start(Script {
            greeting: "421 not today\r\n",
            greeting_delay: Duration::from_millis(100),
            replies_max: 15,
            ..Script::default()
        });
        let stream = stream(profile, 100.0, 4);
        let report = run(&plan(&server, Duration::from_secs(1), vec![stream]));
        let outcome = &report.streams[0];
        assert_eq!(outcome.counts.unfinished, 0, "{profile:?}");
        assert_eq!(outcome.kept.0.len(), 4, "{profile:?}");
        let kept = outcome.kept.at(50.0);
        assert!((95..1000).contains(&kept.as_millis()), "{kept:?}");
    }
}

#[test]
fn eight_bits_are_announced_where_they_are_sent() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.eml"), "Subject: \u{fc}\n\n.\n..\n").unwrap();
    let server = Server::start(Script::default());
    let mut stream = stream(Profile::PerMessage, 10.0, 2);
    stream.bodies = Bodies::Files {
        from: folder.path().to_owned(),
    };
    let report = run(&plan(&server, Duration::from_millis(200), vec![stream]));
    assert!(integrity(&report, &server).is_clean());
    assert_eq!(report.streams[0].counts.accepted, 2);
    assert!(server.said()[0].contains("MAIL FROM:<s0@client.example> SIZE=102 BODY=8BITMIME\r\n"));
    assert!(server.said()[0].contains("\r\n..\r\n...\r\n.\r\n"));
}
