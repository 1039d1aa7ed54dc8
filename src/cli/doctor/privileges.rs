//! Whether this process may do what it is told to, and what it could not give up.

use super::Point;
use crate::cli::config::Config;
use crate::rt::{self, Capabilities, Capability};
use crate::sandbox::{self, Entered, Fence};

/// What can be said without changing anything.
pub(super) fn points(config: &Config, io_uring_disabled: &str) -> Vec<Point> {
    let sandbox = config.sandbox(false);
    let uid = rt::effective_uid();
    let trouble = sandbox.trouble(uid, rt::capabilities().unwrap_or_default());
    let mut points = vec![match trouble {
        Some(trouble) => Point::failure(trouble.what, trouble.remedy),
        None => user(sandbox.user.as_ref().map_or(uid, |user| user.uid)),
    }];
    if let (Some(user), "1") = (&sandbox.user, io_uring_disabled) {
        points.push(Point::warning(
            format!("kernel.io_uring_disabled is 1, and --user {}", user.name),
            "put that user into the group of kernel.io_uring_group, or sysctl kernel.io_uring_disabled=0",
        ));
    }
    if sandbox.fenced {
        points.push(fence(&sandbox::probe()));
    }
    points
}

/// What remains after all was given up that could be, for the log.
pub fn kept(entered: &Entered) -> Vec<Point> {
    let points = [Some(user(entered.uid)), entered.fence.as_ref().map(fence)];
    let lacks = |point: &Point| !point.remedy.is_empty();
    points.into_iter().flatten().filter(lacks).collect()
}

fn user(uid: u32) -> Point {
    match uid {
        0 => Point::warning(
            "weir keeps running as root",
            "--user NAME, or User= or DynamicUser= in the systemd unit",
        ),
        uid => Point::good(format!("weir runs as user {uid}")),
    }
}

fn fence(fence: &Fence) -> Point {
    match fence {
        Fence::Whole => Point::good("Landlock with all that is used"),
        Fence::Older(lacks) => Point::warning(*lacks, "a newer kernel"),
        Fence::None(why) => Point::warning(
            format!("files are not fenced off, weir can open all that its user can: {why}"),
            "a kernel with CONFIG_SECURITY_LANDLOCK and landlock in lsm=, and its system calls in the container's seccomp profile; or --sandbox no",
        ),
    }
}

/// Whether the user that weir will be can read what weir reads again. Becomes that user, for good: it is the last to be asked.
pub fn files_of_the_user(config: &Config) -> Option<Point> {
    let mut sandbox = config.sandbox(false);
    sandbox.fenced = false;
    sandbox.user.as_ref().filter(|_| rt::effective_uid() == 0)?;
    let trouble = match sandbox::enter(&sandbox) {
        Ok(_) => config.out_of_reach()?,
        Err(trouble) => trouble,
    };
    Some(Point::failure(trouble.what, trouble.remedy))
}

pub(super) fn low_port(
    config: &Config,
    unprivileged_start: &str,
    has: Capabilities,
) -> Option<Point> {
    let start: u16 = unprivileged_start.parse().unwrap_or(1024);
    let low = config
        .listening
        .addresses()
        .into_iter()
        .find(|address| address.port() < start && address.port() != 0)?;
    let what = format!("{low} is a privileged port");
    let remedy = "start weir as root with --user, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or setcap cap_net_bind_service+ep on the binary";
    Some(match has.has(Capability::NetBindService) {
        true => Point::good(what + ", and allowed"),
        false => Point::failure(what + ", and not allowed here", remedy),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Level, tests::config};
    use super::*;

    #[test]
    fn low_ports_need_a_capability() {
        let config = config(&["--listen", "127.0.0.1:25"]);
        let level = |start, has| low_port(&config, start, has).map(|point| point.level);
        let may = Capabilities::of(&[Capability::NetBindService]);
        assert_eq!(level("1024", may), Some(Level::Good));
        assert_eq!(level("1024", Capabilities::NONE), Some(Level::Failure));
        assert_eq!(level("0", Capabilities::NONE), None);
    }

    #[test]
    fn what_could_not_be_given_up_is_told() {
        let told = |fence| {
            kept(&Entered {
                uid: 65_534,
                kept: Capabilities::NONE,
                fence,
            })
            .len()
        };
        assert_eq!(told(Some(Fence::Whole)), 0);
        assert_eq!(told(None), 0);
        assert_eq!(told(Some(Fence::Older("less"))), 1);
        assert_eq!(told(Some(Fence::None("no kernel of ours".into()))), 1);
        assert_eq!(user(0).level, Level::Warning);
        assert_eq!(user(65_534).level, Level::Good);
    }

    #[test]
    fn a_ring_for_a_group_alone_is_told_where_the_user_changes() {
        let plain = points(&config(&[]), "1").len();
        let changed = points(&config(&["--user", "nobody"]), "1").len();
        assert_eq!(changed, plain + 1);
        assert_eq!(points(&config(&["--user", "nobody"]), "0").len(), plain);
    }
}
