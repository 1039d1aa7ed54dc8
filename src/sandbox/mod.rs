//! What weir gives up once its ports are open: the user it was started as, capabilities, new privileges, most of the files.
//!
//! [`enter`] is called by the only thread there is; threads that come later have what it left. What is still needed is said by
//! [`Need`]s, which cli gathers from the flags in one table.

mod fence;

use std::fmt;

use crate::rt::{self, Account, Capabilities, Capability, Refused};

pub use fence::{Fence, Need, Use, probe};

/// How far to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sandbox {
    /// None: whoever started weir.
    pub user: Option<Account>,
    /// Whether capabilities, new privileges and files are given up as well.
    pub fenced: bool,
    /// Sockets are bound to clients' addresses, or marked, for as long as weir runs.
    pub foreign_addresses: bool,
    /// The rings may need more locked memory than the limit for an unprivileged user.
    pub locks_much: bool,
    /// The files that are still needed.
    pub needs: Vec<Need>,
}

/// What has become of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entered {
    pub uid: u32,
    pub kept: Capabilities,
    /// None: no fence was asked for.
    pub fence: Option<Fence>,
}

/// Why weir cannot be confined, and what helps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for Trouble {}

/// For the log.
impl fmt::Display for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "runs as user {}, capabilities {}", self.uid, self.kept)?;
        f.write_str(match &self.fence {
            Some(Fence::Whole) => ", fenced by Landlock",
            Some(Fence::Older(_)) => ", fenced by an older Landlock",
            Some(Fence::None(_)) | None => ", not fenced",
        })
    }
}

impl Sandbox {
    /// Whether a process with these capabilities can do it. Changes nothing.
    pub fn trouble(&self, uid: u32, has: Capabilities) -> Option<Trouble> {
        let stranger = self.user.as_ref().filter(|user| user.uid != uid);
        if let Some(user) = stranger
            && !(has.has(Capability::Setuid) && has.has(Capability::Setgid))
        {
            return Some(Trouble {
                what: format!("--user {}: this process may not change its user", user.name),
                remedy: "start weir as root, or leave --user out and let the service manager change the user (User= or DynamicUser= in the systemd unit)".into(),
            });
        }
        if self.foreign_addresses && self.capability(has).is_none() {
            return Some(Trouble {
                what: "--identity transparent and --transparent-mark need CAP_NET_RAW or CAP_NET_ADMIN, which this process has not".into(),
                remedy: "start weir as root with --user, or with AmbientCapabilities=CAP_NET_RAW in the systemd unit".into(),
            });
        }
        None
    }

    /// The lesser of those that do: the other could change the host's network.
    fn capability(&self, has: Capabilities) -> Option<Capability> {
        [Capability::NetRaw, Capability::NetAdmin]
            .into_iter()
            .find(|one| has.has(*one))
    }

    fn keep(&self, has: Capabilities) -> Capabilities {
        let foreign = self.capability(has).filter(|_| self.foreign_addresses);
        let lock = Capability::IpcLock;
        let lock = Some(lock).filter(|lock| self.locks_much && has.has(*lock));
        let both: Vec<Capability> = foreign.into_iter().chain(lock).collect();
        Capabilities::of(&both)
    }
}

/// Goes in, for good.
pub fn enter(sandbox: &Sandbox) -> Result<Entered, Trouble> {
    let has = rt::capabilities().map_err(|error| Trouble {
        what: format!("the capabilities of this process cannot be read: {error}"),
        remedy: "allow capget in the container's seccomp profile".into(),
    })?;
    if let Some(trouble) = sandbox.trouble(rt::effective_uid(), has) {
        return Err(trouble);
    }
    if sandbox.fenced || sandbox.user.is_some() {
        rt::confine(sandbox.user.as_ref(), sandbox.keep(has)).map_err(trouble)?;
    }
    let mut fence = None;
    if sandbox.fenced {
        rt::refuse_new_privileges().map_err(trouble)?;
        fence = Some(fence::raise(&sandbox.needs));
    }
    Ok(Entered {
        uid: rt::effective_uid(),
        kept: rt::capabilities().unwrap_or(has),
        fence,
    })
}

fn trouble(refused: Refused) -> Trouble {
    Trouble {
        what: format!("privileges cannot be given up: {refused}"),
        remedy: "let the service manager or the container do it: --sandbox no, without --user"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(user: Option<u32>, foreign_addresses: bool) -> Sandbox {
        let account = |uid| Account {
            name: "mail".into(),
            uid,
            gid: uid,
        };
        Sandbox {
            user: user.map(account),
            fenced: true,
            foreign_addresses,
            locks_much: false,
            needs: Vec::new(),
        }
    }

    const ROOT: Capabilities = Capabilities(u64::MAX);

    #[test]
    fn what_a_change_of_user_needs() {
        for (user, uid, has, fine) in [
            (None, 1000, Capabilities::NONE, true),
            (Some(8), 0, ROOT, true),
            (Some(8), 8, Capabilities::NONE, true),
            (Some(8), 1000, Capabilities::NONE, false),
            (Some(8), 0, Capabilities::of(&[Capability::Setuid]), false),
        ] {
            let trouble = sandbox(user, false).trouble(uid, has);
            assert_eq!(trouble.is_none(), fine, "{user:?} {uid} {has:?}");
        }
    }

    #[test]
    fn foreign_addresses_keep_one_capability_and_nothing_else_keeps_any() {
        use Capability::{NetAdmin, NetBindService, NetRaw};
        let kept = |has| sandbox(None, true).keep(has);
        assert_eq!(kept(ROOT), Capabilities::of(&[NetRaw]));
        let admin = Capabilities::of(&[NetAdmin, NetBindService]);
        assert_eq!(kept(admin), Capabilities::of(&[NetAdmin]));
        assert_eq!(sandbox(None, false).keep(ROOT), Capabilities::NONE);

        let none = Capabilities::of(&[NetBindService]);
        assert!(sandbox(None, true).trouble(1000, none).is_some());
        assert!(sandbox(None, true).trouble(1000, admin).is_none());
    }

    #[test]
    fn much_locked_memory_keeps_its_capability_if_it_is_there() {
        let mut sandbox = sandbox(Some(8), true);
        sandbox.locks_much = true;
        let both = Capabilities::of(&[Capability::NetRaw, Capability::IpcLock]);
        assert_eq!(sandbox.keep(ROOT), both);
        let one = Capabilities::of(&[Capability::NetRaw]);
        assert_eq!(sandbox.keep(one), one);
    }
}
