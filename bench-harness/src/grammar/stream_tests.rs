//! Tables of `--stream`: what it means, and which are refused with which words.

use super::*;

fn build(text: &str) -> Result<Stream, Problems> {
    let mut problems = Problems::default();
    let settings = Settings::parse(text, &mut problems);
    let target = "127.0.0.1:2525".parse().unwrap();
    let stream = settings
        .and_then(|settings| settings.build(target, Duration::from_secs(10), &mut problems));
    problems.end(stream)
}

#[test]
fn a_stream_is_what_it_says() {
    let stream = build("good: profile=persistent rate=100/s..2000/s over 4s, 50/s pattern=constant size=4k*9,100k*1 messages=20 from=127.4.0.1+50 recipients=3 open=700 starts=9k").unwrap();
    assert_eq!(
        (stream.name.as_str(), stream.profile),
        ("good", Profile::Persistent)
    );
    let Arrivals::Open { pattern, steps } = &stream.arrivals else {
        panic!("{stream:?}")
    };
    assert_eq!(*pattern, Pattern::Constant);
    assert_eq!(
        steps
            .iter()
            .map(|step| step.lasts.as_secs())
            .collect::<Vec<_>>(),
        [4, 6]
    );
    assert_eq!(
        stream.bodies,
        Bodies::Sizes {
            weights: vec![(4096, 9), (102_400, 1)]
        }
    );
    assert_eq!(
        (
            stream.messages,
            stream.recipients,
            stream.open_max,
            stream.starts_max
        ),
        (20, 3, 700, 9000)
    );
    assert_eq!(stream.sources.count, 50);
}

#[test]
fn what_is_not_said_has_an_end() {
    for (text, starts_max, open_max) in [
        ("a: rate=2000/s", 25_000, 10_000),
        ("a: rate=1/s", 1_012, 100),
        ("a: sessions=7", STARTS_CLOSED, 7),
        (
            "a: profile=idle connections=60k opening=5000/s",
            110_000,
            60_000,
        ),
    ] {
        let stream = build(text).expect(text);
        assert_eq!(
            (stream.starts_max, stream.open_max),
            (starts_max, open_max),
            "{text}"
        );
    }
}

#[test]
fn every_profile_has_a_word_that_means_it() {
    for (text, profile) in [
        ("per-message sessions=1", Profile::PerMessage),
        ("persistent sessions=1", Profile::Persistent),
        ("pipelined sessions=1", Profile::Pipelined),
        ("bdat sessions=1", Profile::Bdat),
        (
            "slow-body sessions=1 speed=2k/s",
            Profile::SlowBody {
                bytes_per_second: 2048,
            },
        ),
        ("pregreet connections=1", Profile::Pregreet),
        (
            "slow-loris connections=1 every=3s",
            Profile::SlowLoris {
                every: Duration::from_secs(3),
            },
        ),
        ("idle connections=1", Profile::Idle),
        ("silent connections=1", Profile::Silent),
        ("spambot connections=1", Profile::Spambot),
        ("hang-up sessions=1", Profile::HangUp),
    ] {
        let stream = build(&format!("a: profile={text}")).expect(text);
        assert_eq!(stream.profile, profile, "{text}");
        assert_eq!(profile.word(), text.split(' ').next().unwrap());
        assert!(
            KEYS[0].1.contains(profile.word()),
            "{text} is not in the help"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    for (text, flag) in [
        ("", "--stream"),
        ("profile=idle", "--stream"),
        ("a b: rate=1/s", "--stream"),
        ("a.b: rate=1/s", "--stream"),
        ("a: loose", "--stream a:"),
        ("a: speedy=1 rate=1/s", "--stream a: speedy"),
        ("a: rate=1/s rate=2/s", "--stream a: rate"),
        ("a: size=4k", "--stream a"),
        ("a: rate=2000", "--stream a: rate"),
        ("a: rate=1/s over 20s", "--stream a: rate"),
        ("a: rate=1/s sessions=3", "--stream a: sessions"),
        ("a: profile=fast rate=1/s", "--stream a: profile"),
        ("a: profile=idle sessions=3", "--stream a: sessions"),
        ("a: connections=3", "--stream a: connections"),
        ("a: sessions=3 pattern=poisson", "--stream a: pattern"),
        ("a: sessions=3 opening=5/s", "--stream a: opening"),
        ("a: sessions=3 speed=1k/s", "--stream a: speed"),
        ("a: sessions=3 every=1s", "--stream a: every"),
        ("a: sessions=3 messages=5", "--stream a: messages"),
        ("a: sessions=3 size=4k mail=/", "--stream a: mail"),
        ("a: sessions=3 mail=/nowhere/mail", "--stream a: mail"),
        ("a: sessions=3 from=::1", "--stream a: from"),
        ("a: sessions=3 patience=0s", "--stream a: patience"),
        ("a: sessions=3 patience=2years", "--stream a: patience"),
        ("a: sessions=3 recipients=10001", "--stream a: recipients"),
        (
            "a: rate=1/s over 400000000000y, 1/s over 400000000000y",
            "--stream a: rate",
        ),
    ] {
        let problems = build(text).expect_err(text);
        assert_eq!(problems.0[0].flag, flag, "{text}: {problems}");
        assert!(!problems.0[0].remedy.is_empty(), "{text}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = build("a: profile=fast rate=2000 size=4 from=here patience=soon").unwrap_err();
    let flags: Vec<&str> = problems
        .0
        .iter()
        .map(|problem| problem.flag.as_str())
        .collect();
    for key in ["profile", "size", "from", "patience"] {
        assert!(
            flags.contains(&format!("--stream a: {key}").as_str()),
            "{key} is missing: {problems}"
        );
    }
}
