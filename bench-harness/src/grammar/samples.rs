//! Plans for tests, in the words of `--stream`.

use std::net::SocketAddr;
use std::time::Duration;

use super::problem::Problems;
use super::stream::Settings;
use crate::plan::Plan;

/// Ten seconds of these streams against loopback. Its bounds are not checked: that is tested where they are drawn.
pub(crate) fn plan(streams: &[&str]) -> Plan {
    let target = SocketAddr::from(([127, 0, 0, 1], 2525));
    let lasts = Duration::from_secs(10);
    let build = |text: &&str| {
        let mut problems = Problems::default();
        let settings = Settings::parse(text, &mut problems);
        let stream = settings.and_then(|settings| settings.build(target, lasts, &mut problems));
        stream.unwrap_or_else(|| panic!("{text}: {problems}"))
    };
    Plan {
        target,
        ledger: None,
        lasts,
        warmup: Duration::ZERO,
        grace: Duration::from_secs(10),
        streams: streams.iter().map(build).collect(),
        seed: 1,
        run: 1,
        process: 0,
        tls: None,
    }
}
