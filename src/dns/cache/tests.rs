//! The cache against a map that forgets nothing, and against floods.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::testing::question;
use super::super::{Kind, Name};
use super::*;

fn at(seconds: u64) -> Moment {
    Moment::from_micros(seconds * 1_000_000)
}

fn asked(number: usize) -> Question {
    question(&format!("n{number}.example"), Kind::A)
}

fn answer(mark: u8, until: Moment) -> Answer {
    let ip = [192, 0, 2, mark].into();
    Answer {
        outcome: Outcome::Records(Records::A([ip].into())),
        until,
    }
}

/// Each name as long as names get.
fn long(count: u32) -> Answer {
    let label = "x".repeat(60);
    let name = |number| format!("{number:08}.{label}.{label}.{label}.example");
    let names = (0..count).map(|number| Name::parse(name(number).as_bytes()).unwrap());
    Answer {
        outcome: Outcome::Records(Records::Ptr(names.collect())),
        until: at(1000),
    }
}

#[test]
fn what_is_asked_for_outlives_a_flood() {
    let mut cache = Cache::new(1000);
    let known: Vec<Question> = (0..500).map(asked).collect();
    for question in &known {
        cache.insert(question.clone(), answer(1, at(1000)), at(0));
        assert!(cache.find(question, at(1)).is_some());
    }
    for number in 1000..101_000 {
        cache.insert(asked(number), answer(2, at(1000)), at(1));
    }
    let left = known.iter().filter(|q| cache.find(q, at(2)).is_some());
    assert_eq!(left.count(), known.len());
    assert_eq!(cache.len(), 1000);
    assert!(cache.evicted() >= 99_000);
}

#[test]
fn long_answers_take_the_place_of_several_but_not_of_what_is_asked_for() {
    let mut cache = Cache::new(1000);
    for number in 0..500 {
        cache.insert(asked(number), answer(1, at(1000)), at(0));
        cache.find(&asked(number), at(0));
    }
    for number in 1000..11_000 {
        cache.insert(asked(number), long(16), at(1));
        assert!(cache.octets <= 1000 * OCTETS_EACH);
    }
    let left = (0..500).filter(|number| cache.find(&asked(*number), at(2)).is_some());
    assert_eq!(left.count(), 500);
    assert!(cache.len() < 600);
}

#[test]
fn what_is_asked_for_no_more_makes_room() {
    let mut cache = Cache::new(100);
    for round in 0..10 {
        let numbers = round * 1000..round * 1000 + 200;
        for _ in 0..4 {
            for number in numbers.clone() {
                if cache.find(&asked(number), at(1)).is_none() {
                    cache.insert(asked(number), answer(1, at(1000)), at(1));
                }
                // Asked again soon, so that it is worth keeping.
                cache.find(&asked(number), at(1));
            }
        }
        let here = numbers.filter(|number| cache.find(&asked(*number), at(1)).is_some());
        assert!(here.count() >= 90, "round {round}");
    }
}

#[test]
fn nothing_is_kept_where_nothing_may_be() {
    let mut cache = Cache::new(0);
    cache.insert(asked(1), answer(1, at(10)), at(0));
    assert_eq!((cache.len(), cache.find(&asked(1), at(1))), (0, None));
}

proptest! {
    /// Whatever is found is what was put in last, and still holds; and what is counted is what is there.
    #[test]
    fn it_never_says_what_was_not_said_last(
        max in 1usize..40,
        steps in prop::collection::vec((0usize..60, 0u8..3, 0u64..30, any::<u8>()), 1..600),
    ) {
        let mut cache = Cache::new(max);
        let mut all: HashMap<usize, Answer> = HashMap::new();
        let mut now = at(1);
        for (number, what, span, mark) in steps {
            match what {
                0 => now = now + Duration::from_secs(span / 10),
                1 => {
                    let put = if mark < 10 { long(mark.into()) } else { answer(mark, now + Duration::from_secs(span)) };
                    all.insert(number, put.clone());
                    cache.insert(asked(number), put, now);
                }
                _ => {
                    let found = cache.find(&asked(number), now).cloned();
                    if let Some(found) = found {
                        prop_assert!(found.until > now);
                        prop_assert_eq!(Some(&found), all.get(&number));
                    }
                }
            }
            prop_assert!(cache.len() <= max);
            prop_assert_eq!(cache.len(), cache.new.len() + cache.old.len());
            let octets = |is_new: bool| -> usize {
                let entries = cache.entries.iter().flatten();
                entries.filter(|e| e.is_new || !is_new).map(|e| e.octets as usize).sum()
            };
            prop_assert_eq!((cache.octets, cache.new_octets), (octets(false), octets(true)));
            prop_assert!(cache.octets <= max * OCTETS_EACH || cache.len() == 1);
        }
    }
}
