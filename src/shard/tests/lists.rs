//! Tests of DNS lists: who asks, when, and what becomes of a list that fails.

use super::*;
use crate::dns::{Answer, Failure, Outcome, Records};
use crate::policy::dnsbl::{self, Standing, Standings, Why, zones};
use crate::policy::reputation;
use crate::shard::lookups::Asker;

fn listing(recheck: Duration) -> WorldConfig {
    let specs = ["a.example*2", "b.example"].map(|spec| spec.parse().expect("a list"));
    WorldConfig {
        policy: Arc::new(policy::Config {
            dnsbl: dnsbl::Config {
                zones: zones(specs.into()).expect("two lists"),
                recheck,
            },
            reputation: reputation::Config {
                on: true,
                ..reputation::Config::default()
            },
            ..policy::Config::default()
        }),
        ..settings()
    }
}

/// A shard, just started, whose questions stay open.
fn shard(number: usize, recheck: Duration) -> Stage {
    let shared = Arc::new(Shared::new(0));
    let mut stage = Stage::sharing(listing(recheck), 1, 10, shared, number);
    stage.world.asked = Some(Vec::new());
    stage.sleep(Duration::from_millis(50));
    stage
}

const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);

/// Test points asked since, with their list.
fn asked(stage: &mut Stage) -> Vec<(u16, u8)> {
    let asked = stage.world.asked.replace(Vec::new());
    let points = asked.into_iter().flatten().map(|(_, asker)| match asker {
        Asker::TestPoint(list, point) => (list, point),
        asker => panic!("{asker:?}: nobody else asks"),
    });
    points.collect()
}

/// The answers to a whole test of a list: "." for none, "x" for not listed, "L" for listed.
fn answer(stage: &mut Stage, list: u16, points: &str) {
    for (point, says) in (0..).zip(points.chars()) {
        let outcome = match says {
            'L' => Outcome::Records(Records::A([[127, 0, 0, 2].into()].into())),
            'x' => Outcome::NoName,
            _ => Outcome::Failed(Failure::Timeout),
        };
        let until = stage.now;
        let answer = Answer { outcome, until };
        stage.world.now = stage.now;
        stage.world.heard(Asker::TestPoint(list, point), &answer);
    }
    stage.settle();
}

fn standing(stage: &Stage, list: u16) -> Standings {
    stage.world.lists.zones.standings(list).expect("a list")
}

/// What the shard has told the others of lists.
fn told(stage: &mut Stage) -> Vec<Mail> {
    let letters = std::iter::from_fn(|| stage.world.take_mail());
    letters
        .filter_map(|(to, mail)| match mail {
            Mail::ListTested { .. } => {
                assert_eq!(to, To::Others);
                Some(mail)
            }
            _ => None,
        })
        .collect()
}

#[test]
fn one_shard_asks_for_all_and_tells_the_others() {
    let (mut tester, mut other) = (shard(0, HALF_AN_HOUR), shard(1, HALF_AN_HOUR));
    let all = [0, 1]
        .map(|list| [0, 1, 2, 3].map(|point| (list, point)))
        .concat();
    assert_eq!(asked(&mut tester), all);
    assert_eq!(asked(&mut other), []);
    answer(&mut tester, 0, "LxLx");
    answer(&mut tester, 1, "LLLL");
    let letters = told(&mut tester);
    assert_eq!(letters.len(), 2);
    for mail in letters {
        other.world.handle_mail(other.now, mail);
    }
    let lies = Standings::both(Standing::Suspended(Why::ListsAll));
    for stage in [&tester, &other] {
        assert_eq!(standing(stage, 0), Standings::TRUSTED);
        assert_eq!(standing(stage, 1), lies);
    }
    // Every shard's would be added up.
    assert_eq!(tester.counters.dnsbl_v4.at(1).value(), 2);
    assert_eq!(other.counters.dnsbl_v4.at(1).value(), 0);
}

/// A list is silent, and still is when it is asked again a little later; after the first time it stands as before.
fn silent_twice(stage: &mut Stage, list: u16, before: Standings) -> Standings {
    answer(stage, list, "....");
    assert_eq!(standing(stage, list), before, "a datagram may be lost");
    stage.sleep(dnsbl::RETRY_SILENT - Duration::from_millis(500));
    assert_eq!(asked(stage), []);
    stage.sleep(Duration::from_secs(1));
    assert_eq!(asked(stage), [0, 1, 2, 3].map(|point| (list, point)));
    answer(stage, list, "....");
    Standings::both(Standing::Suspended(Why::Silent))
}

#[test]
fn a_suspended_list_is_asked_again_sooner() {
    let mut stage = shard(0, HALF_AN_HOUR);
    asked(&mut stage);
    answer(&mut stage, 0, "LxLx");
    let silent = silent_twice(&mut stage, 1, Standings::UNTESTED);
    assert_eq!(standing(&stage, 1), silent);
    stage.sleep(dnsbl::RETRY - Duration::from_secs(1));
    assert_eq!(asked(&mut stage), []);
    stage.sleep(Duration::from_secs(2));
    assert_eq!(asked(&mut stage), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    answer(&mut stage, 1, "Lxxx");
    assert_eq!(standing(&stage, 1), Standings::TRUSTED);
    stage.sleep(HALF_AN_HOUR - dnsbl::RETRY);
    let lists: Vec<u16> = asked(&mut stage)
        .into_iter()
        .map(|(list, _)| list)
        .collect();
    assert_eq!(lists, [0; 4], "the other one is not due yet");
    let tests = |list, result| stage.counters.dnsbl_tests.at(list, result).value();
    use crate::metrics::Probe::{Failed, Passed};
    assert_eq!((tests(1, Failed), tests(1, Passed)), (2, 1));
}

#[test]
fn a_test_without_an_end_begins_anew() {
    let mut stage = shard(0, HALF_AN_HOUR);
    asked(&mut stage);
    answer(&mut stage, 0, "LxL");
    assert_eq!(standing(&stage, 0), Standings::UNTESTED);
    stage.sleep(dnsbl::RETRY + Duration::from_secs(1));
    assert_eq!(asked(&mut stage).len(), 8);
    answer(&mut stage, 0, "LxLx");
    assert_eq!(standing(&stage, 0), Standings::TRUSTED);
}

#[test]
fn a_list_that_is_doubted_is_tested_before_its_time() {
    let (mut tester, mut other) = (shard(0, HALF_AN_HOUR), shard(1, HALF_AN_HOUR));
    for list in [0, 1] {
        answer(&mut tester, list, "LxLx");
    }
    asked(&mut tester);
    let minute = dnsbl::RETRY + Duration::from_secs(1);
    other.sleep(minute);
    tester.sleep(minute);
    other.world.now = other.now;
    other.world.doubt_list(1);
    other.world.doubt_list(1);
    let mut letters = std::iter::from_fn(|| other.world.take_mail());
    let (to, doubt) = letters.next().expect("a letter");
    assert_eq!((to, letters.count()), (To::Shard(0), 0), "once a minute");
    tester.world.handle_mail(tester.now, doubt);
    tester.sleep(Duration::from_millis(50));
    assert_eq!(asked(&mut tester), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    let silent = silent_twice(&mut tester, 1, Standings::TRUSTED);
    assert_eq!(standing(&tester, 1), silent);
}

#[test]
fn nobody_tests_what_is_to_be_believed_or_not_asked() {
    let mut stage = shard(0, Duration::ZERO);
    stage.sleep(HALF_AN_HOUR * 2);
    assert_eq!(asked(&mut stage), []);
    assert_eq!(standing(&stage, 0), Standings::TRUSTED);
    let mut stage = shard(0, HALF_AN_HOUR);
    asked(&mut stage);
    let grace = Duration::from_secs(7200);
    stage.world.handle_mail(stage.now, Mail::Drain { grace });
    stage.sleep(HALF_AN_HOUR);
    assert_eq!(
        asked(&mut stage),
        [],
        "a draining shard has no clients to come"
    );
}
