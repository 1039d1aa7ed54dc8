//! The pit alone, and against a map that is searched whole.

use super::super::replies::Text;
use super::super::wheel::TICK_MICROS;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const REPLY: &str = "450 4.7.1 Come back later\r\n";

fn at(millis: u64) -> Moment {
    Moment::from_micros(millis * 1000)
}

fn tenant(number: u32, why: Option<Finding>) -> Tenant<u32> {
    Tenant {
        slot: SlotId(number),
        peer: SocketAddr::from(([192, 0, 2, 1], 25)).into(),
        standing: Standing::STRANGER,
        errors: Errors::default(),
        listener: 0,
        parked_before: 0,
        why,
        parked: number,
    }
}

fn offender(number: u32) -> Tenant<u32> {
    tenant(number, Some(Finding::Pregreet))
}

fn parked(parking: Parking<u32>) -> RowId {
    match parking {
        Parking::Parked(id) => id,
        _ => panic!("there is room"),
    }
}

#[test]
fn a_holding_row_is_ripe_once_at_its_time() {
    let mut pit = Pit::new(10, Overflow::Refuse, at(0));
    let reply = Text::new(REPLY.as_bytes());
    let id = parked(pit.park(Row::hold(tenant(1, None), Some(reply), at(0), at(6000))));
    assert_eq!(pit.due(at(5999)), None);
    assert!(pit.next().expect("armed").since(at(6000)) < Duration::from_millis(17));
    assert_eq!(pit.due(at(6020)), Some(Due::Ripe(id)));
    assert_eq!(pit.due(at(60_000)), None);
    // The shard may think again.
    assert!(pit.set_until(id, at(70_000)));
    assert_eq!(pit.due(at(70_020)), Some(Due::Ripe(id)));
    let row = pit.take(id).expect("still there");
    assert_eq!(
        (row.tenant.parked, row.rest(), row.is_mid_reply()),
        (1, REPLY.as_bytes(), false)
    );
    assert!(pit.take(id).is_none() && !pit.set_until(id, at(0)) && pit.is_empty());
}

#[test]
fn drips_far_apart_go_out_together_and_never_early() {
    let mut pit = Pit::new(200, Overflow::Refuse, at(0));
    let reply = Text::new(REPLY.as_bytes());
    for number in 0..200 {
        let began = at(u64::from(number) * 10);
        let row = Row::drip_out(
            offender(number),
            reply.clone(),
            Duration::from_secs(10),
            began,
        );
        parked(pit.park(row));
    }
    let mut wakes = 0;
    let mut sent = 0;
    while sent < 200 {
        let now = pit.next().expect("drips are due");
        wakes += 1;
        while let Some(due) = pit.due(now) {
            let Due::Drip { row, .. } = due else {
                panic!("{due:?}");
            };
            let since = pit.get(row).expect("parked").since;
            let waited = now.since(since);
            let late = waited.saturating_sub(Duration::from_secs(10));
            assert!(waited >= Duration::from_secs(10) && late <= Duration::from_millis(132));
            sent += 1;
        }
    }
    // Two seconds of parking, at one tick in eight.
    assert!(wakes <= 17, "{wakes} wakes for 200 drips");
}

#[test]
fn a_dripping_row_sends_its_reply_byte_by_byte() {
    let mut pit = Pit::new(10, Overflow::Refuse, at(0));
    let reply = Text::new(REPLY.as_bytes());
    let row = Row::drip_out(offender(1), reply, Duration::from_secs(1), at(0));
    let id = parked(pit.park(row));
    let mut sent = Vec::new();
    for second in 1.. {
        assert_eq!(pit.due(at(second * 1000 - 1)), None);
        let Some(Due::Drip { row, slot, bytes }) = pit.due(at(second * 1020)) else {
            panic!("due every second");
        };
        assert_eq!((row, slot, bytes.as_bytes().len()), (id, SlotId(1), 1));
        assert_eq!(pit.due(at(second * 1020)), None, "one at a time");
        sent.extend_from_slice(bytes.as_bytes());
        match pit.dripped(id, 1, at(second * 1000)) {
            Dripped::Going => assert!(pit.get(id).unwrap().is_mid_reply()),
            Dripped::Finished => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent, REPLY.as_bytes());
    assert!(pit.take(id).unwrap().rest().is_empty());
    assert_eq!(pit.dripped(id, 1, at(0)), Dripped::Gone);
}

#[test]
fn a_row_that_wakes_early_owes_the_rest_of_its_line() {
    let mut pit = Pit::new(10, Overflow::Refuse, at(0));
    let row = Row::drip_out(
        offender(1),
        Text::new(REPLY.as_bytes()),
        Duration::from_secs(1),
        at(0),
    );
    let id = parked(pit.park(row));
    assert!(matches!(pit.due(at(1020)), Some(Due::Drip { .. })));
    assert!(pit.get(id).unwrap().is_in_flight());
    pit.dripped(id, 1, at(1020));
    assert_eq!(pit.take(id).unwrap().rest(), &REPLY.as_bytes()[1..]);
    assert_eq!(pit.due(at(100_000)), None);
}

#[test]
fn a_client_that_takes_nothing_is_ripe_in_the_end() {
    let mut pit = Pit::new(10, Overflow::Refuse, at(0));
    let row = Row::drip_out(
        offender(1),
        Text::new(REPLY.as_bytes()),
        Duration::from_secs(5),
        at(0),
    );
    let id = parked(pit.park(row));
    let mut now;
    loop {
        now = pit.next().expect("armed");
        match pit.due(now) {
            Some(Due::Drip { .. }) => assert_eq!(pit.dripped(id, 0, now), Dripped::Stalled),
            Some(Due::Ripe(ripe)) => {
                assert_eq!(ripe, id);
                break;
            }
            None => {}
        }
    }
    let late = now.since(at(0) + STUTTER_MAX);
    assert!(now >= at(0) + STUTTER_MAX && late < Duration::from_millis(17));
}

#[test]
fn the_schedule_ends_within_four_minutes() {
    let table = [
        // (bytes, wanted interval in ms, interval, bytes a drip)
        (27, 1000, 1000, 1),
        (240, 1000, 1000, 1),
        (480, 1000, 1000, 2),
        (512, 10_000, 5106, 11),
        (190, 30_000, 13_333, 11),
        (2400, 1000, 1000, 10),
        (4096, 1000, 643, 11),
        (27, 60_000, 60_000, 7),
        (27, 300_000, 80_000, 9),
        (27, 0, 100, 1),
        (1_000_000, 1000, 100, 11),
    ];
    for (len, wanted, interval, step) in table {
        let got = schedule(len, Duration::from_millis(wanted));
        assert_eq!(got, (interval, step), "{len} bytes, {wanted} ms");
        let needed = len.div_ceil(usize::from(step)) as u128 * u128::from(interval);
        assert!(needed <= STUTTER_MAX.as_millis() || usize::from(step) == DRIP_BYTES_MAX);
    }
}

#[test]
fn a_full_pit_displaces_or_refuses() {
    let hold = |tenant| Row::hold(tenant, None, at(0), at(1000));
    let mut pit = Pit::new(2, Overflow::Refuse, at(0));
    pit.park(hold(offender(1)));
    pit.park(hold(offender(2)));
    assert!(matches!(pit.park(hold(offender(3))), Parking::Refused(row) if row.tenant.parked == 3));

    let mut pit = Pit::new(3, Overflow::DropOldest, at(0));
    for tenant in [tenant(1, None), offender(2), offender(3)] {
        parked(pit.park(hold(tenant)));
    }
    let mut displaced = |tenant| match pit.park(hold(tenant)) {
        Parking::Displaced(_, row) => Some(row.tenant.parked),
        Parking::Refused(_) => None,
        Parking::Parked(_) => panic!("the pit is full"),
    };
    assert_eq!(displaced(offender(4)), Some(2), "the oldest with a finding");
    assert_eq!(displaced(tenant(5, None)), Some(3));
    assert_eq!(displaced(tenant(6, None)), Some(4));
    assert_eq!(
        displaced(offender(7)),
        None,
        "those without a finding do not make room for one with"
    );
    assert_eq!(displaced(tenant(8, None)), Some(1), "but for each other");
}

#[test]
fn addresses_come_back_as_they_were() {
    for text in ["192.0.2.1:25", "[2001:db8::1]:65535", "[::1]:1"] {
        let addr: SocketAddr = text.parse().unwrap();
        assert_eq!(SocketAddr::from(Peer::from(addr)), addr);
    }
}

#[test]
fn memory_follows_the_rows() {
    let mut pit = Pit::new(20_000, Overflow::Refuse, at(0));
    let row = |number| {
        Row::hold(
            tenant(number, None),
            None,
            at(0),
            at(1000 + u64::from(number) % 50),
        )
    };
    let ids: Vec<_> = (0..20_000)
        .map(|number| parked(pit.park(row(number))))
        .collect();
    let full = pit.memory();
    assert!(
        full / 20_000 <= ROW_BYTES + 20,
        "{} bytes a row",
        full / 20_000
    );
    ids.into_iter().for_each(|id| drop(pit.take(id)));
    while pit.due(at(2000)).is_some() {}
    assert!(pit.memory() < full / 10, "{} of {full}", pit.memory());
}

/// What a row of the model knows.
struct Model {
    number: u32,
    why: bool,
    /// None: holds.
    interval: Option<u64>,
    /// Bytes a drip.
    step: usize,
    since: u64,
    until: u64,
    /// Micros; NEVER while in flight or ripe.
    due: u64,
    /// The round in which it is found due.
    fires: u64,
    offset: usize,
}

impl Model {
    fn arm(&mut self, due: u64, now: u64) {
        self.due = due.min(self.until);
        let put_off = match self.interval {
            Some(interval) if self.due < self.until => {
                let grain = (interval / 32 / TICK_MICROS).clamp(1, 8) * TICK_MICROS;
                self.due.next_multiple_of(grain)
            }
            _ => self.due,
        };
        self.fires = put_off.max(now + TICK_MICROS);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Hold { why: bool, millis: u64 },
    Drip { millis: u64 },
    Pass { ticks: u64, answers: Vec<u8> },
    Take(prop::sample::Index),
    Until(prop::sample::Index, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), 0u64..20_000).prop_map(|(why, millis)| Step::Hold { why, millis }),
        3 => (0u64..20_000).prop_map(|millis| Step::Drip { millis }),
        4 => (0u64..600, prop::collection::vec(0u8..4, 20)).prop_map(|(ticks, answers)| Step::Pass { ticks, answers }),
        1 => any::<prop::sample::Index>().prop_map(Step::Take),
        1 => (any::<prop::sample::Index>(), 0u64..30_000).prop_map(|(index, millis)| Step::Until(index, millis)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a map that is searched whole; time goes by whole ticks, so that both mean the same by "due".
    #[test]
    fn it_does_what_a_naive_map_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut pit: Pit<u32> = Pit::new(8, Overflow::DropOldest, Moment::ZERO);
        let mut model: BTreeMap<RowId, Model> = BTreeMap::new();
        let mut now = 0;
        let mut number = 0;
        for step in steps {
            number += 1;
            let moment = Moment::from_micros(now);
            match step {
                Step::Hold { .. } | Step::Drip { .. } => {
                    let (why, interval, row, until) = match step {
                        Step::Hold { why, millis } => {
                            let tenant = tenant(number, why.then_some(Finding::Pregreet));
                            let row = Row::hold(tenant, None, moment, moment + Duration::from_millis(millis));
                            (why, None, row, now + millis * 1000)
                        }
                        Step::Drip { millis } => {
                            let row = Row::drip_out(offender(number), Text::new(REPLY.as_bytes()), Duration::from_millis(millis), moment);
                            (true, Some(millis.max(100) * 1000), row, now + STUTTER_MAX.as_micros() as u64)
                        }
                        _ => unreachable!(),
                    };
                    let oldest = |offenders: bool| model.values().filter(|row| row.why == offenders).map(|row| row.number).min();
                    let victim = oldest(true).or_else(|| if why { None } else { oldest(false) });
                    let id = match pit.park(row) {
                        Parking::Parked(id) => {
                            prop_assert!(model.len() < 8);
                            id
                        }
                        Parking::Displaced(id, row) => {
                            prop_assert_eq!((model.len(), Some(row.tenant.parked)), (8, victim));
                            model.retain(|_, other| Some(other.number) != victim);
                            id
                        }
                        Parking::Refused(row) => {
                            prop_assert_eq!((model.len(), victim, row.tenant.parked), (8, None, number));
                            continue;
                        }
                    };
                    let in_time = |step: &usize| REPLY.len().div_ceil(*step) as u64 * interval.unwrap_or(0) <= STUTTER_MAX.as_micros() as u64;
                    let step = (1..).find(in_time).expect("one drip is in time");
                    let mut row = Model { number, why, interval, step, since: now, until, due: 0, fires: 0, offset: 0 };
                    row.arm(interval.map_or(until, |interval| now + interval), now);
                    prop_assert!(model.insert(id, row).is_none());
                }
                Step::Pass { ticks, answers } => {
                    now += ticks * TICK_MICROS;
                    let moment = Moment::from_micros(now);
                    let mut answers = answers.into_iter().cycle();
                    while let Some(due) = pit.due(moment) {
                        let (Due::Ripe(id) | Due::Drip { row: id, .. }) = due;
                        let row = model.get_mut(&id).expect("a row that is there");
                        prop_assert!(row.fires <= now, "early");
                        (row.due, row.fires) = (u64::MAX, u64::MAX);
                        let Due::Drip { bytes, .. } = due else {
                            prop_assert!(row.interval.is_none() || now >= row.until);
                            continue;
                        };
                        prop_assert!(now < row.until);
                        prop_assert_eq!(bytes.as_bytes(), &REPLY.as_bytes()[row.offset..REPLY.len().min(row.offset + row.step)]);
                        let taken = usize::from(answers.next().expect("endless")).min(bytes.as_bytes().len());
                        row.offset += taken;
                        let dripped = pit.dripped(id, taken, moment);
                        if row.offset == REPLY.len() {
                            prop_assert_eq!(dripped, Dripped::Finished);
                            prop_assert!(pit.take(id).is_some());
                            model.remove(&id);
                        } else {
                            prop_assert_eq!(dripped, if taken == 0 { Dripped::Stalled } else { Dripped::Going });
                            // Rounded up to a millisecond after it was parked.
                            let passed = (now - row.since).div_ceil(1000) * 1000;
                            let next = row.since + passed + row.interval.expect("it drips");
                            row.arm(next, now);
                        }
                    }
                    prop_assert!(model.values().all(|row| row.fires > now), "late");
                }
                Step::Take(index) if !model.is_empty() => {
                    let id = *model.keys().nth(index.index(model.len())).expect("in range");
                    let row = pit.take(id).expect("there");
                    let known = model.remove(&id).expect("there");
                    prop_assert_eq!(row.tenant.parked, known.number);
                    if known.interval.is_some() {
                        prop_assert_eq!(row.rest(), &REPLY.as_bytes()[known.offset..]);
                    }
                }
                Step::Until(index, millis) if !model.is_empty() => {
                    let place = index.index(model.len());
                    let (id, row) = model.iter_mut().nth(place).expect("in range");
                    prop_assert!(pit.set_until(*id, moment + Duration::from_millis(millis)));
                    row.until = row.since + (now + millis * 1000 - row.since).div_ceil(1000) * 1000;
                    let (due, fires) = (row.due, row.fires);
                    row.arm(if row.interval.is_some() { due } else { u64::MAX }, now);
                    if row.due == due {
                        // It has its timer already, perhaps one that was not put off.
                        row.fires = row.fires.min(fires);
                    }
                }
                _ => {}
            }
            prop_assert_eq!(pit.len(), model.len());
        }
    }
}
