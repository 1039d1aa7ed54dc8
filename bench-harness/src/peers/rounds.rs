//! Rounds: one workload through every peer in turn, several times over, so that the machine's moods hit all alike.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::kind::{Kind, Peer};
use super::sink::Sink;
use super::workload::{Load, Workload};
use crate::crew::{self, CrewOptions};
use crate::medians;
use crate::outcome::{Comparison, Outcome, PeerRounds, Stage};
use crate::summary::integrity_text;

/// Who takes part: a peer, or why there is none; and what its EHLO reply offers.
pub struct Entrant {
    pub kind: Kind,
    pub peer: Result<Peer, String>,
    pub offers: Vec<String>,
}

/// How rounds are run.
pub struct Course {
    pub rounds: u32,
    pub load: Load,
    pub seed: u64,
    pub quiet: bool,
    /// The command line, for the records.
    pub command: String,
}

/// What the rounds of one workload came to.
#[derive(Default)]
pub struct Ran {
    pub comparisons: Vec<Comparison>,
    /// The most typical round of each peer, whole.
    pub outcomes: Vec<Outcome>,
    /// Mail that was lost, altered, refused: a figure beside it says nothing.
    pub broken: Vec<String>,
    /// Worth knowing, and no reason to fail.
    pub notes: Vec<String>,
}

/// One peer's rounds, in the making.
struct Record {
    rounds: PeerRounds,
    outcomes: Vec<Outcome>,
}

impl Course {
    pub fn run(
        &self,
        workload: &Workload,
        sink: &mut Sink,
        entrants: &mut [Entrant],
    ) -> Result<Ran> {
        let mut ran = Ran::default();
        let mut records: Vec<Record> = entrants
            .iter()
            .map(|entrant| record(workload, entrant))
            .collect();
        // Round 0 warms up what is made once: caches, pools, forked processes. It counts for integrity only.
        for round in 0..=self.rounds {
            if crew::interrupted() {
                break;
            }
            for (entrant, record) in entrants.iter_mut().zip(&mut records) {
                let Ok(peer) = &mut entrant.peer else {
                    continue;
                };
                if record.rounds.absent.is_none() && !crew::interrupted() {
                    sink.child.check()?;
                    self.round(workload, sink, peer, round, record, &mut ran)?;
                }
            }
        }
        let title = title(workload, sink.chunking, &self.load);
        ran.comparisons = comparisons(workload, &title, &records);
        ran.outcomes = records.into_iter().filter_map(typical).collect();
        Ok(ran)
    }

    fn round(
        &self,
        workload: &Workload,
        sink: &Sink,
        peer: &mut Peer,
        round: u32,
        record: &mut Record,
        ran: &mut Ran,
    ) -> Result<()> {
        let mut load = self.load;
        if round == 0 {
            load.lasts = (load.lasts / 3).max(Duration::from_millis(500));
        }
        let mut plan = workload.plan(&load, peer.smtp, sink.control, self.seed + u64::from(round));
        plan.tls = sink.tls(workload.setting);
        plan.streams[0].name = stream_name(workload, sink.chunking);
        let at = format!(
            "{}, {}, round {round}",
            plan.streams[0].name,
            peer.kind.word()
        );
        let options = CrewOptions {
            processes: Some(1),
            watch: peer.pid(),
            quiet: self.quiet,
            name: peer.kind.word().to_owned(),
            command: self.command.clone(),
        };
        let before = peer.cpu()?;
        let outcome = crew::run(&plan, &options).with_context(|| at.clone())?;
        // What is still on its way through the peer is part of the price.
        std::thread::sleep(SETTLING);
        let after = peer.cpu()?;
        ran.broken.extend(broken(&at, &outcome));
        ran.notes.extend(refused(&at, &outcome));
        if round > 0 {
            let cpu = before.zip(after).map(|(before, after)| after - before);
            record.add(outcome, cpu)?;
        }
        Ok(())
    }
}

const SETTLING: Duration = Duration::from_millis(300);

impl Record {
    fn add(&mut self, outcome: Outcome, cpu: Option<Duration>) -> Result<()> {
        let accepted = outcome.accepted();
        if accepted == 0 {
            bail!(
                "{}: not one message was accepted; {}",
                outcome.name,
                words(&outcome)
            );
        }
        let rounds = &mut self.rounds;
        if let Some(cpu) = cpu {
            rounds
                .cpu_us
                .push(cpu.as_secs_f64() * 1e6 / accepted as f64);
        }
        rounds.messages_per_second.push(outcome.rate());
        let stream = outcome
            .streams
            .first()
            .context("an outcome without stream")?;
        if let Some(times) = stream.stages.get(&Stage::Session) {
            let us = |percentile| times.planned.at(percentile).as_secs_f64() * 1e6;
            rounds.p50_us.push(us(50.0));
            rounds.p99_us.push(us(99.0));
            rounds.p999_us.push(us(99.9));
        }
        self.outcomes.push(outcome);
        Ok(())
    }
}

fn record(workload: &Workload, entrant: &Entrant) -> Record {
    let absent = match (&entrant.peer, workload.needs) {
        (Err(why), _) => Some(why.clone()),
        (Ok(_), Some(keyword)) if !entrant.offers.iter().any(|offer| offer == keyword) => {
            Some(format!("its EHLO reply offers no {keyword}"))
        }
        _ => None,
    };
    let rounds = PeerRounds {
        name: entrant.kind.word().to_owned(),
        absent,
        ..PeerRounds::default()
    };
    Record {
        rounds,
        outcomes: Vec::new(),
    }
}

/// What reports call the stream: the same plan with another sink is another workload.
fn stream_name(workload: &Workload, chunking: bool) -> String {
    let sink = if chunking { "" } else { "-plain" };
    format!("{}{sink}", workload.name)
}

/// `persistent, 4 KiB; sink with CHUNKING; 50 sessions`: what the sink offers decides how many round trips a proxy may save.
fn title(workload: &Workload, chunking: bool, load: &Load) -> String {
    let sink = if chunking { "with" } else { "without" };
    let how = match load.rate {
        Some(rate) => format!("{rate}/s planned"),
        None => format!("{} sessions in a circle", load.sessions),
    };
    format!("{}; sink {sink} CHUNKING; {how}", workload.title)
}

/// The same rounds against each peer that weir has a target for; against the first proxy there is, if it has none.
fn comparisons(workload: &Workload, title: &str, records: &[Record]) -> Vec<Comparison> {
    let peers: Vec<PeerRounds> = records.iter().map(|record| record.rounds.clone()).collect();
    let ran = |name: &str| peers.iter().any(|p| p.name == name && !p.cpu_us.is_empty());
    let mut against: Vec<(&str, Option<f64>)> = workload
        .targets
        .iter()
        .filter(|(name, _)| ran(name))
        .map(|(name, target)| (*name, Some(*target)))
        .collect();
    if against.is_empty() {
        let first = Kind::ALL.into_iter().map(Kind::word).find(|name| ran(name));
        against.push((first.unwrap_or("direct"), None));
    }
    against
        .into_iter()
        .map(|(against, target)| Comparison {
            title: title.to_owned(),
            peers: peers.clone(),
            against: against.to_owned(),
            target,
        })
        .collect()
}

/// The round whose CPU per message (for `direct`: rate) is nearest to the median.
fn typical(mut record: Record) -> Option<Outcome> {
    let rounds = &record.rounds;
    let by = match rounds.cpu_us.is_empty() {
        true => &rounds.messages_per_second,
        false => &rounds.cpu_us,
    };
    let at = medians::typical(by)?;
    Some(record.outcomes.swap_remove(at))
}

/// Lost, duplicated, altered, invented, of unknown origin: each makes the run worthless. So does a run that nobody counted.
pub fn broken(at: &str, outcome: &Outcome) -> Option<String> {
    let Some(integrity) = &outcome.integrity else {
        return Some(format!("{at}: the sink was not asked what arrived"));
    };
    (!integrity.is_clean()).then(|| format!("{at}: {}", integrity_text(integrity)))
}

/// Refusals and failures make a peer look cheap or dear: they are told beside the figure.
pub fn refused(at: &str, outcome: &Outcome) -> Option<String> {
    let sum = |count: fn(&crate::outcome::Counts) -> u64| -> u64 {
        outcome.streams.iter().map(|s| count(&s.counts)).sum()
    };
    let parts = [
        ("deferred", sum(|c| c.deferred)),
        ("rejected", sum(|c| c.rejected)),
        ("turned away", sum(|c| c.turned_away)),
        ("not connected", sum(|c| c.connect_failed)),
        ("handshakes failed", sum(|c| c.handshakes_failed)),
        ("reset", sum(|c| c.resets)),
        ("closed early", sum(|c| c.closed_early)),
        ("garbled", sum(|c| c.garbled)),
        ("timed out", sum(|c| c.timed_out)),
        ("dropped starts", sum(|c| c.dropped)),
        ("unfinished", sum(|c| c.unfinished)),
    ];
    let told: Vec<String> = parts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    (!told.is_empty()).then(|| format!("{at}: {}; {}", told.join(", "), words(outcome)))
}

fn words(outcome: &Outcome) -> String {
    let heard = outcome.streams.iter().flat_map(|stream| &stream.words);
    let heard: Vec<String> = heard
        .take(4)
        .map(|(words, count)| format!("{count} x {words:?}"))
        .collect();
    match heard.is_empty() {
        true => "no unwanted reply was heard".to_owned(),
        false => format!("heard {}", heard.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::WORKLOADS;
    use super::*;

    fn rounds_of(name: &str, cpu_us: &[f64]) -> Record {
        let rounds = PeerRounds {
            name: name.to_owned(),
            cpu_us: cpu_us.to_vec(),
            ..PeerRounds::default()
        };
        Record {
            rounds,
            outcomes: Vec::new(),
        }
    }

    #[test]
    fn every_target_that_ran_makes_a_comparison() {
        let records = [
            rounds_of("direct", &[]),
            rounds_of("haproxy", &[100.0]),
            rounds_of("nginx-mail", &[120.0]),
            rounds_of("weir", &[50.0]),
        ];
        let made = comparisons(&WORKLOADS[0], "t", &records);
        let against: Vec<_> = made
            .iter()
            .map(|c| (c.against.as_str(), c.target))
            .collect();
        assert_eq!(against, [("haproxy", Some(0.5)), ("nginx-mail", Some(0.4))]);
    }

    #[test]
    fn without_targets_the_first_proxy_is_the_measure() {
        let records = [rounds_of("direct", &[]), rounds_of("weir", &[50.0])];
        let made = comparisons(&WORKLOADS[0], "t", &records);
        assert_eq!((made[0].against.as_str(), made[0].target), ("weir", None));
    }

    #[test]
    fn who_offers_too_little_or_is_not_there_is_absent_with_its_reason() {
        let bdat = super::super::workload::find("bdat-4k").unwrap();
        let entrant = Entrant {
            kind: Kind::Postfix,
            peer: Err("postfix is not installed".to_owned()),
            offers: Vec::new(),
        };
        let absent = record(bdat, &entrant).rounds.absent;
        assert_eq!(absent.as_deref(), Some("postfix is not installed"));
    }
}
