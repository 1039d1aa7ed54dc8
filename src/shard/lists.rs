//! Tests of DNS lists: one shard asks their test points for all, and tells the others how each list stands.
//!
//! One asks, because all would hear the same, and the log should say it once. Until the first answers are there, some
//! 20 ms and a round trip after the start, lists are asked about clients and not believed.

use weir_smtp::time::Moment;

use crate::dns::Outcome;
use crate::maillog::Value;
use crate::metrics::Probe;
use crate::policy;
use crate::policy::dnsbl::{self, POINTS, RETRY, RETRY_SILENT, Silence, Standings, Trial, Zones};
use crate::ring::Wire;

use super::lookups::Asker;
use super::mail::{Mail, To};
use super::who::{Chore, Who};
use super::world::World;

/// The shard that tests for all.
const TESTER: usize = 0;

/// The lists of a shard, and their tests.
pub struct Lists {
    pub zones: Zones,
    tests: Box<[Test]>,
}

#[derive(Clone)]
struct Test {
    trial: Trial,
    silence: Silence,
    /// When it begins, anew if need be.
    due: Moment,
    /// Before that nobody doubts the list again.
    calm: Moment,
}

impl Lists {
    pub fn new(config: &policy::Config, now: Moment) -> Lists {
        let zones = match config.reputation.on {
            true => Zones::new(&config.dnsbl),
            false => Zones::new(&dnsbl::Config::default()),
        };
        let test = Test {
            trial: Trial::default(),
            silence: Silence::default(),
            due: now,
            calm: now + RETRY,
        };
        Lists {
            tests: vec![test; zones.len()].into(),
            zones,
        }
    }
}

impl<W: Wire> World<W> {
    /// The first tests begin with the first turn.
    pub(super) fn begin_list_tests(&mut self) {
        let believed = self.config.policy.dnsbl.recheck.is_zero();
        if self.shard == TESTER && !believed && !self.lists.zones.is_empty() {
            self.arm_list_tests(self.now);
        }
    }

    /// Tests what is due.
    pub(super) fn test_lists(&mut self) {
        if self.drain.is_on() {
            return;
        }
        for list in 0..self.lists.tests.len() {
            if self.lists.tests[list].due <= self.now {
                self.test_list(list as u16);
            }
        }
    }

    fn test_list(&mut self, list: u16) {
        // Should an answer be missing by then, it begins anew.
        let again = self.now + RETRY;
        let test = &mut self.lists.tests[usize::from(list)];
        test.trial = Trial::default();
        test.due = again;
        self.arm_list_tests(again);
        for point in 0..POINTS as u8 {
            let Some(question) = self.lists.zones.test_point(list, point) else {
                return;
            };
            if let Some(answer) = self.look_up_afresh(&question, Asker::TestPoint(list, point)) {
                self.point_answered(list, point, &answer.outcome);
            }
        }
    }

    /// A list did not answer about a client, or not as a list: it is tested before its time, once a minute at most. Half an hour of
    /// clients that wait for a dead one would be long.
    pub(super) fn doubt_list(&mut self, list: u16) {
        let now = self.now;
        let Some(test) = self.lists.tests.get_mut(usize::from(list)) else {
            return;
        };
        if now < test.calm || self.config.policy.dnsbl.recheck.is_zero() {
            return;
        }
        test.calm = now + RETRY;
        if self.shard == TESTER {
            test.due = now;
            self.arm_list_tests(now);
        } else {
            self.outgoing
                .push_back((To::Shard(TESTER), Mail::ListDoubted { list }));
        }
    }

    /// An answer to a question of a test.
    pub(super) fn point_answered(&mut self, list: u16, point: u8, outcome: &Outcome) {
        let Some(before) = self.lists.zones.standings(list) else {
            return;
        };
        let Some(test) = self.lists.tests.get_mut(usize::from(list)) else {
            return;
        };
        let Some(tested) = test.trial.answered(point, outcome) else {
            return;
        };
        let standings = test.silence.weigh(before, tested);
        let passed = tested.why().is_none();
        let recheck = self.config.policy.dnsbl.recheck;
        let pause = match passed {
            true => recheck,
            false if standings != tested => RETRY_SILENT.min(recheck),
            false => RETRY.min(recheck),
        };
        let due = self.now + pause;
        test.trial = Trial::default();
        test.due = due;
        self.arm_list_tests(due);
        let word = if passed { Probe::Passed } else { Probe::Failed };
        self.counters.dnsbl_tests.at(list.into(), word).inc();
        self.outgoing
            .push_back((To::Others, Mail::ListTested { list, standings }));
        self.list_tested(list, standings);
    }

    /// How a list stands from now on, on every shard.
    pub(super) fn list_tested(&mut self, list: u16, standings: Standings) {
        let before = self.lists.zones.set_standings(list, standings);
        if self.shard != TESTER {
            return;
        }
        self.counters
            .dnsbl_v4
            .at(list.into())
            .set(standings.v4.number());
        self.counters
            .dnsbl_v6
            .at(list.into())
            .set(standings.v6.number());
        if let Some(before) = before {
            self.tell_of_list(list, before, standings);
        }
    }

    fn tell_of_list(&mut self, list: u16, before: Standings, now: Standings) {
        let Some(name) = self.lists.zones.public(list).cloned() else {
            return;
        };
        let event = match (before.why(), now.why()) {
            (_, Some(why)) => {
                log::warn!("the DNS list {name} is suspended: {why}");
                "dnsbl_suspended"
            }
            (Some(_), None) => {
                log::info!("the DNS list {name} passes its tests again");
                "dnsbl_resumed"
            }
            // The first test, passed: as it should be.
            (None, None) => return,
        };
        let fields = [
            ("list", Value::Bytes(name.as_bytes())),
            ("ipv4", Value::Word(now.v4.word())),
            ("ipv6", Value::Word(now.v6.word())),
        ];
        self.log.event(self.now, event, &fields);
    }

    fn arm_list_tests(&mut self, due: Moment) {
        self.wheel.insert(due, Who::Chore(Chore::Lists).to_bits());
    }
}
