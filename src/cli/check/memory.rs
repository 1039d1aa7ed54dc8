//! The plan's words on greylisting, history, what files say of addresses, and what of it lasts.

use std::time::Duration;

use crate::cli::{config::Config, units::show};
use crate::policy::{Finding, greylist::When, news::Seconds};

pub fn words(config: &Config) -> String {
    let remembering = &config.remembering;
    if !remembering.is_wanted {
        return "off (--greylist, --spamtraps, --origin)".into();
    }
    let memory = &remembering.memory;
    let mut lines = vec![greylist(config)];
    let traps = remembering.lore.spamtraps.len();
    if traps > 0 {
        let held = time(memory.trap_time);
        lines.push(format!(
            "{traps} spamtraps, held against a network for {held}"
        ));
    }
    let weights = &remembering.lore.weights.0;
    if !weights.is_empty() {
        let shown: Vec<String> = weights.iter().map(ToString::to_string).collect();
        lines.push(format!("origins {}", shown.join(" ")));
    }
    let (v4, v6) = memory.prefix.bits();
    lines.push(format!(
        "history of up to {} networks (/{v4}, /{v6}) per shard, half of it gone in {}",
        memory.networks_max,
        time(memory.half_life)
    ));
    lines.join("\n")
}

/// Where it is kept beyond the end.
pub fn lasting(config: &Config) -> String {
    let lasting = &config.lasting;
    let file = lasting.file.as_ref().map(|path| {
        format!(
            "{}: what is learnt, read at start, written every 2s",
            path.display()
        )
    });
    let server = lasting
        .server
        .as_ref()
        .map(|server| format!("{server}: what is learnt and rates, shared with the other hosts"));
    let words: Vec<String> = file.into_iter().chain(server).collect();
    match words.is_empty() {
        true => "none: what is learnt is forgotten at the end (--state)".into(),
        false => words.join("\n"),
    }
}

fn greylist(config: &Config) -> String {
    let greylist = &config.remembering.memory.greylist;
    let who = match greylist.when {
        When::Off => return "no greylisting".into(),
        When::Score => format!("who has a score of {} or more", greylist.score),
        When::All => "everybody without a good score".into(),
    };
    let action = config.tarpit.actions.of(Finding::Greylist);
    format!(
        "greylisting ({action}) of {who}: a retry passes after {} and within {}, its network is proven for {}",
        time(greylist.delay),
        time(greylist.window),
        time(greylist.lifetime)
    )
}

const DAY: Seconds = 86_400;

fn time(seconds: Seconds) -> String {
    // As it would be typed, not in months and days.
    match seconds % DAY {
        0 => format!("{}d", seconds / DAY),
        _ => show(Duration::from_secs(seconds.into())),
    }
}
