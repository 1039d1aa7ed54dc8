//! `weir-bench hold`: opens connections, keeps them, and tells how many live and what they cost.

use crate::cli::run::{self, RunFlags};
use crate::cli::source::{OneStream, PlanFlags};
use crate::exit::Exit;
use crate::grammar::problem::Problems;
use crate::hold;
use crate::plan::Plan;

/// Opens and keeps connections: how many are alive, how long they were kept, what the watched process pays.
///
/// Name the process with --watch; memory of the kernel is that of the whole machine, so keep the machine quiet beside it.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct HoldFlags {
    /// Whom to connect to, as 127.0.0.1:2525
    pub target: String,
    /// How a client behaves: pregreet, slow-loris, idle, silent, spambot [default: idle]
    #[arg(long)]
    pub profile: Option<String>,
    /// So many connections [default: 1000]
    #[arg(long, value_name = "N")]
    pub connections: Option<String>,
    /// How fast they are opened [default: 2000/s]
    #[arg(long, value_name = "RATE")]
    pub opening: Option<String>,
    /// Source addresses: 127.4.0.1+50, 127.4.0.1-127.4.0.50, any [default: of 127.64.0.0/10, one for 16 clients]
    #[arg(long, value_name = "ADDRS")]
    pub from: Option<String>,
    /// Time between two octets, slow-loris [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub every: Option<String>,
    /// How long a reply may take [default: longer than the run]
    #[arg(long, value_name = "TIME")]
    pub patience: Option<String>,
    #[command(flatten)]
    pub plan: PlanFlags,
    #[command(flatten)]
    pub run: RunFlags,
}

impl HoldFlags {
    pub fn plan(&self) -> Result<Plan, Problems> {
        let one = OneStream {
            profile: self.profile.clone().or_else(|| Some("idle".to_owned())),
            connections: self.connections.clone().or_else(|| Some("1000".to_owned())),
            opening: self.opening.clone(),
            from: self.from.clone(),
            every: self.every.clone(),
            patience: self.patience.clone().or_else(|| Some("25h".to_owned())),
            ..OneStream::default()
        };
        let mut problems = Problems::default();
        let plan = self
            .plan
            .plan(&self.target, &[one.settings()], &mut problems);
        problems.end(plan)
    }
}

pub fn command(flags: &HoldFlags) -> anyhow::Result<Exit> {
    run::command(flags.plan(), &flags.run, hold::text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Arrivals, Profile};

    #[test]
    fn a_target_alone_holds_a_thousand() {
        let flags = HoldFlags {
            target: "127.0.0.1:2525".to_owned(),
            ..HoldFlags::default()
        };
        let plan = flags.plan().unwrap();
        assert_eq!(plan.streams[0].profile, Profile::Idle);
        assert_eq!(
            plan.streams[0].arrivals,
            Arrivals::Held {
                connections: 1000,
                per_second: 2000
            }
        );
    }

    #[test]
    fn profiles_that_come_and_go_are_not_held() {
        let flags = HoldFlags {
            target: "127.0.0.1:2525".to_owned(),
            profile: Some("persistent".to_owned()),
            ..HoldFlags::default()
        };
        assert_eq!(flags.plan().unwrap_err().0[0].flag, "--connections");
    }
}
