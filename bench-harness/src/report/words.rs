//! A plan in words: what somebody who was not there has to know to judge the figures.

use std::time::Duration;

use crate::plan::{Arrivals, Bodies, Pattern, Plan, Profile, Step, Stream};
use crate::{medians, units};

/// One line for a heading: `good (persistent, 2,000/s) beside bots (idle, 60,000 held)`.
pub fn title(plan: &Plan) -> String {
    let streams: Vec<_> = plan
        .streams
        .iter()
        .map(|s| {
            format!(
                "{} ({}, {})",
                s.name,
                profile_word(s.profile),
                pace(&s.arrivals)
            )
        })
        .collect();
    match streams.len() {
        0 => "no streams".to_owned(),
        _ => streams.join(" beside "),
    }
}

/// How long, and with what seed.
pub fn frame(plan: &Plan) -> String {
    let warmup = match plan.warmup {
        Duration::ZERO => "all of it measured".to_owned(),
        warmup => format!("the first {} not measured", units::duration(warmup)),
    };
    let count = match plan.ledger {
        Some(_) => "Every message is counted at the sink.",
        None => "No sink was asked what arrived.",
    };
    format!(
        "Sessions are started for {}, {warmup}, and may end within {} after it. {count} Seed {}.",
        units::duration(plan.lasts),
        units::duration(plan.grace),
        plan.seed
    )
}

/// A stream in full sentences.
pub fn stream(stream: &Stream) -> String {
    let Stream {
        profile,
        sources,
        recipients,
        ..
    } = stream;
    format!(
        "{} {} {}, {}; {}. From {} source {} beginning at {}; at most {} open at once and {} starts; a reply may take {}.",
        behaviour(*profile),
        arrivals(&stream.arrivals),
        match profile {
            Profile::Persistent | Profile::Pipelined | Profile::Bdat => format!(
                "{} messages a connection",
                units::grouped(u64::from(stream.messages))
            ),
            _ => "a connection for each".to_owned(),
        },
        match recipients {
            1 => "one recipient".to_owned(),
            n => format!("{n} recipients"),
        },
        bodies(&stream.bodies),
        units::grouped(u64::from(sources.count)),
        if sources.count == 1 {
            "address"
        } else {
            "addresses"
        },
        sources.first,
        units::grouped(u64::from(stream.open_max)),
        units::grouped(stream.starts_max),
        units::duration(stream.patience),
    )
}

fn profile_word(profile: Profile) -> &'static str {
    match profile {
        Profile::PerMessage => "connection per message",
        Profile::Persistent => "persistent",
        Profile::Pipelined => "pipelined",
        Profile::Bdat => "BDAT",
        Profile::SlowBody { .. } => "slow body",
        Profile::Pregreet => "pregreet",
        Profile::SlowLoris { .. } => "slow loris",
        Profile::Idle => "idle",
        Profile::Silent => "silent",
        Profile::Spambot => "spambot",
        Profile::HangUp => "hang-up",
    }
}

fn behaviour(profile: Profile) -> String {
    match profile {
        Profile::PerMessage => "A new connection for each message.".to_owned(),
        Profile::Persistent => "Connections are kept; each command waits for its reply.".to_owned(),
        Profile::Pipelined => {
            "Connections are kept; MAIL, RCPT and DATA go in one flight.".to_owned()
        }
        Profile::Bdat => {
            "Connections are kept; envelope and body go in one flight by BDAT.".to_owned()
        }
        Profile::SlowBody { bytes_per_second } => format!(
            "A new connection for each message, its body sent at {} a second.",
            units::octets(f64::from(bytes_per_second))
        ),
        Profile::Pregreet => "Talks before it is greeted, then goes on.".to_owned(),
        Profile::SlowLoris { every } => {
            format!(
                "Sends an octet of a command every {}, for ever.",
                units::duration(every)
            )
        }
        Profile::Idle => "Says EHLO, then stays silent.".to_owned(),
        Profile::Silent => "Connects and never says anything.".to_owned(),
        Profile::Spambot => "Sends everything in one flight and looks at no reply.".to_owned(),
        Profile::HangUp => "Resets its connection after a random octet.".to_owned(),
    }
}

/// Short, for headings.
fn pace(arrivals: &Arrivals) -> String {
    match arrivals {
        Arrivals::Open { steps, .. } => {
            let rates = steps.iter().flat_map(|s| [s.from, s.to]);
            match medians::extent(rates) {
                Some((least, most)) if least == most => units::per_second(most),
                Some((least, most)) => {
                    format!(
                        "{} to {}",
                        units::per_second(least),
                        units::per_second(most)
                    )
                }
                None => "no starts".to_owned(),
            }
        }
        Arrivals::Closed { sessions } => {
            format!("{} in a circle", units::grouped(u64::from(*sessions)))
        }
        Arrivals::Held { connections, .. } => {
            format!("{} held", units::grouped(u64::from(*connections)))
        }
    }
}

fn arrivals(arrivals: &Arrivals) -> String {
    match arrivals {
        Arrivals::Open { pattern, steps } => {
            let pattern = match pattern {
                Pattern::Constant => "evenly spread",
                Pattern::Poisson => "at random times (Poisson)",
            };
            let steps: Vec<_> = steps.iter().map(step).collect();
            format!(
                "Starts are planned, {pattern}: {}; they never wait for replies;",
                steps.join(", then ")
            )
        }
        Arrivals::Closed { sessions } => format!(
            "{} sessions in a circle, each starting when its last has ended, so this says nothing about latency under a planned load;",
            units::grouped(u64::from(*sessions))
        ),
        Arrivals::Held {
            connections,
            per_second,
        } => format!(
            "{} connections are opened at {} and kept, and replaced when they are lost;",
            units::grouped(u64::from(*connections)),
            units::per_second(f64::from(*per_second))
        ),
    }
}

fn step(step: &Step) -> String {
    let rate = if step.from == step.to {
        units::per_second(step.to)
    } else {
        format!(
            "{} rising to {}",
            units::per_second(step.from),
            units::per_second(step.to)
        )
        .replace(
            "rising",
            if step.from > step.to {
                "falling"
            } else {
                "rising"
            },
        )
    };
    format!("{rate} for {}", units::duration(step.lasts))
}

fn bodies(bodies: &Bodies) -> String {
    match bodies {
        Bodies::Files { from } => format!("real messages from {}", from.display()),
        Bodies::Sizes { weights } => {
            let all: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
            let sizes: Vec<_> = weights
                .iter()
                .map(|(size, weight)| match weights.len() {
                    1 => units::octets(f64::from(*size)),
                    _ => format!(
                        "{} ({}%)",
                        units::octets(f64::from(*size)),
                        units::three_digits(100.0 * f64::from(*weight) / all.max(1) as f64)
                    ),
                })
                .collect();
            format!("made text of {}", sizes.join(", "))
        }
    }
}
