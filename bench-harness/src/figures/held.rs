//! Clients that are held: `weir-bench hold` as a child, so that its files and its CPU time are not weir's.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::peers::child::Child;
use crate::peers::folder::Folder;
use crate::peers::sink::own_command;
use crate::peers::weir::Weir;
use crate::peers::workload::Setting;

/// What kind of client, and how weir counts it.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Greeted, said EHLO, silent since.
    Idle,
    /// The same in TLS.
    Secured,
    /// Says nothing and is told nothing yet: in the greet wait.
    Waiting,
    /// Talked before the greeting and is stuttered to.
    Stuttered,
}

impl Kind {
    fn profile(self) -> &'static str {
        match self {
            Kind::Idle | Kind::Secured => "idle",
            Kind::Waiting => "silent",
            Kind::Stuttered => "pregreet",
        }
    }

    /// What weir has to listen for.
    pub fn setting(self) -> Setting {
        match self {
            Kind::Secured => Setting::Tls,
            Kind::Idle | Kind::Waiting | Kind::Stuttered => Setting::Plain,
        }
    }

    /// The gauge that counts those who are where they should be.
    fn gauge(self) -> &'static str {
        match self {
            Kind::Idle | Kind::Secured => "weir_sessions_active",
            Kind::Waiting | Kind::Stuttered => "weir_pit_rows",
        }
    }
}

pub struct Held {
    pub kind: Kind,
    child: Child,
}

impl Held {
    /// Returns when weir holds at least 98 in 100 of them, and has settled.
    pub fn open(
        folder: &Folder,
        weir: &mut Weir,
        kind: Kind,
        count: u32,
        per_second: u32,
    ) -> Result<Held> {
        let mut command = own_command("hold")?;
        match kind {
            Kind::Secured => command
                .arg(weir.smtp_tls.to_string())
                .args(["--tls", "implicit", "--tls-version", "1.3"])
                .arg("--tls-insecure"),
            _ => command.arg(weir.smtp.to_string()),
        };
        command
            .args(["--profile", kind.profile()])
            .args(["--connections", &count.to_string()])
            .args(["--opening", &format!("{per_second}/s")])
            // A hundred connections an address.
            .args(["--from", &format!("127.8.0.1+{}", count.div_ceil(100))])
            .args(["--for", "1h", "--quiet"]);
        let mut child = Child::spawn("hold", command, folder.path())?;
        let enough = f64::from(count) * 0.98;
        let patience = Duration::from_secs(60 + 4 * u64::from(count / per_second.max(1)));
        weir.wait_metric(kind.gauge(), patience, |held| held >= enough)
            .with_context(|| {
                format!(
                    "{count} clients ({}) are not held; hold said:\n{}",
                    kind.profile(),
                    child.words()
                )
            })?;
        child.check()?;
        std::thread::sleep(Duration::from_secs(3));
        Ok(Held { kind, child })
    }

    /// How many weir says it holds: what a figure per client is divided by.
    pub fn really(&self, weir: &Weir) -> Result<f64> {
        weir.metric(self.kind.gauge())
    }

    /// Ends them all; returns when weir has none any more.
    pub fn close(mut self, weir: &mut Weir) -> Result<()> {
        self.child.signal(libc::SIGTERM)?;
        self.child.wait_ended(Duration::from_secs(60))?;
        let patience = Duration::from_secs(60);
        weir.wait_metric(self.kind.gauge(), patience, |held| held < 1.0)?;
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }
}

/// Flags of a weir that parks so many: a table of open files holds 20,000 on many systems, and every shard has a table of its own.
/// Clients are spread by address, not evenly; at 70 % of a table weir starts to shed load, so shards are filled to 60 %.
pub fn pit_flags(count: u32, threads: u32) -> String {
    let shards = count.div_ceil(12_500).max(threads);
    format!(
        "--shards {shards} --max-connections {0} --pit-max {0} --greet-wait 1s --on pregreet=stutter --stutter-interval 10s --timeout-idle 600s",
        (count * 2).max(20_000)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_grow_with_the_parked() {
        assert!(pit_flags(500, 2).starts_with("--shards 2 --max-connections 20000 "));
        assert!(pit_flags(100_000, 2).starts_with("--shards 8 --max-connections 200000 "));
    }
}
