//! What is typed for a list, what is refused, and what several flags make of one zone.

use super::*;

fn spec(text: &str) -> Result<Spec, String> {
    text.parse().map_err(|why: SpecError| why.to_string())
}

fn zone(text: &str) -> Zone {
    zones(vec![spec(text).unwrap()]).unwrap()[0].clone()
}

fn all(texts: &[&str]) -> Result<Arc<[Zone]>, String> {
    let specs = texts.iter().map(|text| spec(text).unwrap()).collect();
    zones(specs).map_err(|why| why.to_string())
}

#[test]
fn a_flag_is_read_and_shown_as_it_was_meant() {
    // typed, zone, rule
    let table = [
        ("bl.example", "bl.example", "*1"),
        ("BL.Example.*3", "bl.example", "*3"),
        ("bl.example=127.0.0.2", "bl.example", "=127.0.0.2*1"),
        (
            "bl.example=127.0.0.[2..11]*3",
            "bl.example",
            "=127.0.0.[2..11]*3",
        ),
        (
            "wl.example=127.0.[0..255].[1;2;3]*-5",
            "wl.example",
            "=127.0.[0..255].[1..3]*-5",
        ),
        (
            "wl.example=127.0.0.[4;2;8..9]*+5",
            "wl.example",
            "=127.0.0.[2;4;8..9]*5",
        ),
        (
            "x=127.0.0.2|127.0.1.[1..3]*0",
            "x",
            "=127.0.0.2|127.0.1.[1..3]*0",
        ),
        ("_x-1.example=127.[0].0.[7]", "_x-1.example", "=127.0.0.7*1"),
        ("x=127.[0;255].[0;255].1", "x", "=127.[0;255].[0;255].1*1"),
    ];
    for (typed, name, rule) in table {
        let zone = zone(typed);
        assert_eq!(zone.name().to_string(), name, "{typed}");
        assert_eq!(zone.rules().collect::<Vec<_>>(), [rule], "{typed}");
    }
}

#[test]
fn what_is_no_flag_is_told_with_what_would_be() {
    let long = format!("{}.example", vec!["a".repeat(50); 4].join("."));
    let table: &[(&str, &str)] = &[
        ("", "is no zone"),
        (".", "is no zone"),
        ("*3", "is no zone"),
        ("=127.0.0.2", "is no zone"),
        ("bl/example", "is no zone"),
        ("bl..example", "cannot be asked: an empty label"),
        (&long, "cannot be asked: more than 255 octets"),
        ("bl.example*", "is no weight"),
        ("bl.example*101", "is no weight"),
        ("bl.example*-101", "is no weight"),
        ("bl.example*1.5", "is no weight"),
        ("bl.example=", "is no filter"),
        ("bl.example=127.0.0", "is no filter"),
        ("bl.example=127.0.0.2.3", "is no filter"),
        ("bl.example=127.0.0.256", "is no filter"),
        ("bl.example=127.0.0.+2", "is no filter"),
        ("bl.example=127.0.0.[2", "is no filter"),
        ("bl.example=127.0.0.[]", "is no filter"),
        ("bl.example=127.0.0.[5..2]", "is no filter"),
        ("bl.example=127.0.0.[2..11]x", "is no filter"),
        ("bl.example=127.0.0.2|", "is no filter"),
        ("bl.example=10.0.0.2", "never matches"),
        ("bl.example=127.0.0.1", "never matches"),
        ("bl.example=127.255.255.[252..255]", "never matches"),
        (
            "bl.example=[10;128].[0..255].[0..255].[0..255]",
            "never matches",
        ),
        ("bl.example,as=", "is no name for replies"),
        ("bl.example,as=a b", "is no name for replies"),
        ("bl.example,reason", "is no option"),
        ("bl.example,", "is no option"),
    ];
    for (typed, want) in table {
        let why = spec(typed).expect_err(typed);
        assert!(why.contains(want), "{typed}: {why}");
    }
}

#[test]
fn the_weights_of_all_that_match_are_added_up() {
    let zones = all(&[
        "z.example=127.0.0.[2..3]*3",
        "z.example=127.0.0.[3..4]*-1",
        "y.example",
    ])
    .unwrap();
    assert_eq!(zones.len(), 2);
    let weight = |last: &[u8]| {
        let addresses: Vec<Ipv4Addr> = last.iter().map(|d| Ipv4Addr::new(127, 0, 0, *d)).collect();
        zones[0].weight(&addresses)
    };
    assert_eq!(weight(&[2]), Some(3));
    assert_eq!(weight(&[3]), Some(2));
    assert_eq!(weight(&[4]), Some(-1));
    assert_eq!(weight(&[2, 2, 4]), Some(2), "each entry counts once");
    assert_eq!(weight(&[5]), None);
    assert_eq!(zones[0].range(), (-1, 3));
}

#[test]
fn a_key_is_not_shown() {
    let table = [
        ("abcdefghijklmnopqrstuvwx12.zen.example", "zen.example"),
        (
            "abcdefghijklmnopqrstuvwxyz.zen.example",
            "abcdefghijklmnopqrstuvwxyz.zen.example",
        ),
        ("key1.zen.example", "key1.zen.example"),
        ("key1.zen.example,as=Zen", "Zen"),
        ("abcdefghijklmnop1", "abcdefghijklmnop1"),
    ];
    for (typed, public) in table {
        assert_eq!(&**zone(typed).public(), public, "{typed}");
    }
}

#[test]
fn flags_for_one_zone_agree_on_its_name_and_its_reason() {
    let zones = all(&["z.example=127.0.0.2", "z.example=127.0.0.3,as=Z,txt"]).unwrap();
    assert_eq!(&**zones[0].public(), "Z");
    assert!(zones[0].wants_reason());
    let two = all(&["z.example,as=Z", "z.example=127.0.0.3,as=Y"]);
    assert_eq!(two, Err("one zone has the names Z and Y".into()));
    let same = all(&["z.example", "y.example,as=z.example"]);
    assert!(
        same.unwrap_err()
            .starts_with("two zones are called z.example")
    );
    let many: Vec<String> = (0..=ZONES_MAX).map(|n| format!("z{n}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(all(&many).unwrap_err().starts_with("65 zones are named"));
    assert!(all(&many[1..]).is_ok());
}
