//! Tables of flag values: what they mean, and which are refused.

use super::*;

fn refused<T: std::fmt::Debug>(parse: fn(&str) -> Parsed<T>, texts: &[&str]) {
    for text in texts {
        let remedy = parse(text).expect_err(text);
        assert!(!remedy.is_empty(), "{text} is refused without a remedy");
    }
}

#[test]
fn counts() {
    for (text, number) in [("1", 1), ("500", 500), ("60k", 60_000), ("2M", 2_000_000)] {
        assert_eq!(count(text), Ok(number), "{text}");
    }
    refused(
        count,
        &[
            "",
            "0",
            "0k",
            "k",
            "-1",
            "1.5",
            "1 000",
            "99999999999999999999",
            "99999999999999m",
        ],
    );
    refused(count32, &["5000m"]);
}

#[test]
fn rates() {
    for (text, per_second) in [
        ("2000/s", 2000.0),
        ("0.5/s", 0.5),
        ("120k/m", 2000.0),
        ("36/h", 0.01),
        ("0/s", 0.0),
    ] {
        assert_eq!(rate(text), Ok(per_second), "{text}");
    }
    refused(
        rate,
        &[
            "2000",
            "2000/",
            "/s",
            "2000/d",
            "-1/s",
            "nan/s",
            "inf/s",
            "2000 /s/s",
            "9m/s",
            "10000k/s",
        ],
    );
}

#[test]
fn ramps_and_steps() {
    let second = Duration::from_secs(1);
    let piece = |from, to, over| Piece { from, to, over };
    for (text, expected) in [
        ("2000/s", vec![piece(2000.0, 2000.0, None)]),
        (
            "100/s..2000/s over 30s",
            vec![piece(100.0, 2000.0, Some(30 * second))],
        ),
        ("100/s..200/s", vec![piece(100.0, 200.0, None)]),
        (
            "0/s over 1s, 60/m..2/s over 1m,5/s",
            vec![
                piece(0.0, 0.0, Some(second)),
                piece(1.0, 2.0, Some(60 * second)),
                piece(5.0, 5.0, None),
            ],
        ),
    ] {
        assert_eq!(pieces(text), Ok(expected), "{text}");
    }
    refused(
        pieces,
        &[
            "",
            "2000",
            "2000/s,100/s over 3s",
            "0/s",
            "1/s over",
            "1/s over 0s",
            "1/s for 3s",
            "1/s..2/s..3/s",
            "1/s,",
        ],
    );
}

#[test]
fn pieces_fit_into_the_run() {
    let second = Duration::from_secs(1);
    let steps = fit(&pieces("1/s over 4s, 2/s").unwrap(), 10 * second).unwrap();
    assert_eq!(
        steps.iter().map(|step| step.lasts).collect::<Vec<_>>(),
        [4 * second, 6 * second]
    );
    for (text, lasts) in [("1/s over 11s", 10), ("1/s over 10s, 2/s", 10)] {
        assert!(
            fit(&pieces(text).unwrap(), lasts * second)
                .unwrap_err()
                .contains("--for"),
            "{text}"
        );
    }
    let shorter = fit(&pieces("1/s over 3s").unwrap(), 10 * second).unwrap();
    assert_eq!(shorter[0].lasts, 3 * second);
}

#[test]
fn sizes_and_mixes() {
    for (text, expected) in [
        ("4k", vec![(4096, 1)]),
        ("4096", vec![(4096, 1)]),
        ("1m", vec![(1 << 20, 1)]),
        ("4k*9,100k*1", vec![(4096, 9), (102_400, 1)]),
        ("4k*9, 100k", vec![(4096, 9), (102_400, 1)]),
    ] {
        assert_eq!(
            sizes(text),
            Ok(Bodies::Sizes { weights: expected }),
            "{text}"
        );
    }
    refused(
        sizes,
        &[
            "",
            "4",
            "65m",
            "4k*0",
            "4k*",
            "*3",
            "4k,,5k",
            "4g",
            "@/nowhere/sizes",
            "9999999m",
        ],
    );
}

#[test]
fn a_file_of_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sizes");
    let name = format!("@{}", path.display());
    std::fs::write(&path, "# what a site sees\n4k 9\n\n100k 1 # news\n").unwrap();
    assert_eq!(
        sizes(&name),
        Ok(Bodies::Sizes {
            weights: vec![(4096, 9), (102_400, 1)]
        })
    );
    for (text, place) in [
        ("4k 1\n4k\n", ":2:"),
        ("4k x\n", ":1:"),
        ("# none\n", "no sizes"),
    ] {
        std::fs::write(&path, text).unwrap();
        assert!(sizes(&name).unwrap_err().contains(place), "{text}");
    }
}

#[test]
fn source_addresses() {
    for (text, first, count) in [
        ("127.4.0.1", "127.4.0.1", 1),
        ("127.4.0.1+50", "127.4.0.1", 50),
        ("127.4.0.1-127.4.1.0", "127.4.0.1", 256),
        ("::1", "::1", 1),
        ("any", "0.0.0.0", 1),
    ] {
        let first = first.parse().unwrap();
        assert_eq!(sources(text), Ok(Sources { first, count }), "{text}");
    }
    refused(
        sources,
        &[
            "",
            "127.4.0",
            "127.4.0.1+0",
            "127.4.0.9-127.4.0.1",
            "127.0.0.1-::1",
            "255.255.255.255+2",
            "127.4.0.1/24",
        ],
    );
}

#[test]
fn addresses_are_never_names() {
    assert!(address("127.0.0.1:25").is_ok() && address("[::1]:25").is_ok());
    refused(
        address,
        &["", "localhost:25", "127.0.0.1", ":25", "127.0.0.1:99999"],
    );
}

#[test]
fn times_and_words() {
    assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(duration("0s"), Ok(Duration::ZERO));
    refused(duration, &["", "5", "5 apples", "-1s"]);
    refused(duration_some, &["0s"]);
    assert_eq!(word("a{}@client.test").as_deref(), Ok("a{}@client.test"));
    refused(word, &["", "a b", "a\r\nDATA", "ü"]);
    refused(word, &[&"a".repeat(251)]);
}

#[test]
fn speeds_of_slow_bodies() {
    assert_eq!(rate_of_octets("1k/s"), Ok(1024));
    assert_eq!(rate_of_octets("500/s"), Ok(500));
    refused(rate_of_octets, &["", "1k", "0/s", "k/s", "1m/s"]);
}
