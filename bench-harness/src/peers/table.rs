//! What the terminal shows of a comparison.

use std::fmt::Write as _;

use super::ratio::{cpu_ratio, peer};
use crate::medians::{least, median, most};
use crate::outcome::{Comparison, PeerRounds};

/// One table: a line a peer, then the ratio that counts.
pub fn table(comparison: &Comparison) -> String {
    let mut text = format!(
        "\n{}\n{:14} {:>10} {:>17} {:>9} {:>9} {:>9} {:>9}   to {}\n",
        comparison.title,
        "",
        "CPU/msg µs",
        "(min to max)",
        "msg/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        comparison.against,
    );
    for peer in &comparison.peers {
        match &peer.absent {
            Some(why) => writeln!(text, "{:14} absent: {why}", peer.name),
            None => writeln!(text, "{}", line(comparison, peer)),
        }
        .expect("a String takes everything");
    }
    text + &verdict(comparison)
}

fn line(comparison: &Comparison, peer: &PeerRounds) -> String {
    let cpu = &peer.cpu_us;
    let span = match (least(cpu), most(cpu)) {
        (Some(least), Some(most)) => format!("({least:.1} to {most:.1})"),
        _ => String::new(),
    };
    let ms = |us: &[f64]| number(median(us).map(|us| us / 1e3), 2);
    format!(
        "{:14} {:>10} {:>17} {:>9} {:>9} {:>9} {:>9}   {}",
        peer.name,
        number(median(cpu), 1),
        span,
        number(median(&peer.messages_per_second), 0),
        ms(&peer.p50_us),
        ms(&peer.p99_us),
        ms(&peer.p999_us),
        number(cpu_ratio(comparison, &peer.name, &comparison.against), 2),
    )
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// The target is weir's; without weir there is nothing to judge.
fn verdict(comparison: &Comparison) -> String {
    let against = &comparison.against;
    match (cpu_ratio(comparison, "weir", against), comparison.target) {
        (Some(ratio), Some(target)) if ratio <= target => {
            format!("weir to {against}: {ratio:.2}, target {target}: met\n")
        }
        (Some(ratio), Some(target)) => {
            format!("weir to {against}: {ratio:.2}, target {target}: MISSED\n")
        }
        _ => String::new(),
    }
}

/// The second table of the same rounds: only its last line is new.
pub fn further(comparison: &Comparison) -> String {
    match peer(comparison, &comparison.against) {
        Some(_) => verdict(comparison),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_every_peer_its_ratio_and_a_verdict() {
        let rounds = |name: &str, cpu_us: &[f64], absent: Option<&str>| PeerRounds {
            name: name.to_owned(),
            cpu_us: cpu_us.to_vec(),
            messages_per_second: vec![1000.0],
            p50_us: vec![2500.0],
            absent: absent.map(str::to_owned),
            ..PeerRounds::default()
        };
        let comparison = Comparison {
            title: "new connection per message, 4 KiB".to_owned(),
            peers: vec![
                rounds("direct", &[], None),
                rounds("haproxy", &[100.0, 90.0, 130.0], None),
                rounds("nginx-mail", &[], Some("nginx is not installed")),
                rounds("weir", &[45.0, 55.0], None),
            ],
            against: "haproxy".to_owned(),
            target: Some(0.5),
        };
        let text = table(&comparison);
        for want in [
            "(90.0 to 130.0)",
            "absent: nginx is not installed",
            "weir to haproxy: 0.50, target 0.5: met",
            "2.50",
        ] {
            assert!(text.contains(want), "{want}\n{text}");
        }
    }
}
