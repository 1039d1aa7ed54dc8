//! Who the process is for the kernel: user, groups, capabilities.
//!
//! Capabilities and `no_new_privs` belong to threads, and a new thread has those of its maker. So all of this is for a
//! process that still has one thread only; [`confine`] refuses to do half of the work.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs;
use std::io;

/// A user of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    /// Its first group; the others are asked for when it is needed.
    pub gid: u32,
}

/// A capability that weir has a use for (capabilities(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Capability {
    Setgid = 6,
    Setuid = 7,
    Setpcap = 8,
    NetBindService = 10,
    NetAdmin = 12,
    NetRaw = 13,
    IpcLock = 14,
}

/// A set of capabilities, as the kernel writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities(pub u64);

impl Capabilities {
    pub const NONE: Capabilities = Capabilities(0);

    pub fn of(these: &[Capability]) -> Capabilities {
        Capabilities(these.iter().fold(0, |bits, one| bits | 1 << *one as u32))
    }

    pub fn has(self, one: Capability) -> bool {
        self.0 & 1 << one as u32 != 0
    }

    fn is_within(self, other: Capabilities) -> bool {
        self.0 & !other.0 == 0
    }
}

/// By name what weir keeps, the rest in hexadecimal as /proc/PID/status has it.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = [
            (Capability::NetAdmin, "CAP_NET_ADMIN"),
            (Capability::NetRaw, "CAP_NET_RAW"),
            (Capability::IpcLock, "CAP_IPC_LOCK"),
        ];
        let (mut rest, mut between) = (self.0, "");
        for (one, name) in kept.into_iter().filter(|(one, _)| self.has(*one)) {
            write!(f, "{between}{name}")?;
            (rest, between) = (rest & !(1 << one as u32), " ");
        }
        match rest {
            0 if self.0 == 0 => f.write_str("none"),
            0 => Ok(()),
            rest => write!(f, "{between}{rest:#x}"),
        }
    }
}

/// What the kernel did not grant, with the call's name.
#[derive(Debug)]
pub struct Refused {
    pub call: &'static str,
    pub error: io::Error,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.error)
    }
}

/// Looks a user up by name, wherever this host keeps them (nsswitch.conf).
pub fn account(name: &str) -> io::Result<Option<Account>> {
    let Ok(c_name) = CString::new(name) else {
        return Ok(None); // no user has a NUL in its name
    };
    let mut texts = vec![0u8; 16 << 10];
    // SAFETY: all zero is a valid passwd, with null pointers in it.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are valid for the call, and `texts` is as long as is said.
    let error = unsafe {
        libc::getpwnam_r(
            c_name.as_ptr(),
            &mut entry,
            texts.as_mut_ptr().cast(),
            texts.len(),
            &mut found,
        )
    };
    match error {
        0 if found.is_null() => Ok(None),
        0 => Ok(Some(Account {
            name: name.to_owned(),
            uid: entry.pw_uid,
            gid: entry.pw_gid,
        })),
        // Both are ways to say that there is none (getpwnam(3)).
        libc::ENOENT | libc::ESRCH => Ok(None),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The user this process acts as.
pub fn effective_uid() -> u32 {
    // SAFETY: has no arguments and always succeeds.
    unsafe { libc::geteuid() }
}

/// What this thread may do now.
pub fn capabilities() -> io::Result<Capabilities> {
    Ok(Capabilities(capget()?.effective))
}

/// Becomes `account`, if one is given, and keeps of the capabilities only `keep`, for good. The whole process, which has to have one thread.
pub fn confine(account: Option<&Account>, keep: Capabilities) -> Result<(), Refused> {
    require_single_thread()?;
    let before = capget().map_err(refused("capget"))?;
    if !keep.is_within(Capabilities(before.permitted)) {
        let error = io::Error::from_raw_os_error(libc::EPERM);
        return Err(refused("capset")(error));
    }
    // Needs the capability that goes here. Without it the set stays; no_new_privs makes it useless.
    if Capabilities(before.effective).has(Capability::Setpcap) {
        narrow_bounding_set(keep)?;
    }
    if let Some(account) = account.filter(|account| account.uid != effective_uid()) {
        // Otherwise the change of user would take those too that are to be kept.
        prctl("PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, 1)?;
        become_user(account)?;
        prctl("PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, 0)?;
    }
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    prctl("PR_CAP_AMBIENT", libc::PR_CAP_AMBIENT, clear)?;
    capset(keep).map_err(refused("capset"))
}

/// From now on no program that is executed gets more rights than its caller has. Landlock asks for it, too.
pub fn refuse_new_privileges() -> Result<(), Refused> {
    prctl("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// A thread that exists already would keep all it has.
fn require_single_thread() -> Result<(), Refused> {
    let threads = fs::read_dir("/proc/self/task").map_err(refused("/proc/self/task"))?;
    match threads.count() {
        1 => Ok(()),
        n => Err(refused("/proc/self/task")(io::Error::other(format!(
            "{n} threads are there already, and would keep their privileges"
        )))),
    }
}

fn become_user(account: &Account) -> Result<(), Refused> {
    let name = CString::new(account.name.as_str()).expect("the name was found among the users");
    let name: &CStr = &name;
    // SAFETY: `name` ends in a NUL and lives through the call.
    let grouped = unsafe { libc::initgroups(name.as_ptr(), account.gid) };
    checked("initgroups", grouped)?;
    let (uid, gid) = (account.uid, account.gid);
    // SAFETY: the arguments are numbers. Groups first: a user without privileges cannot change them any more.
    checked("setresgid", unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: as above.
    checked("setresuid", unsafe { libc::setresuid(uid, uid, uid) })
}

fn narrow_bounding_set(keep: Capabilities) -> Result<(), Refused> {
    for number in 0..64 {
        if keep.0 & 1 << number != 0 {
            continue;
        }
        match prctl("PR_CAPBSET_DROP", libc::PR_CAPBSET_DROP, number) {
            Ok(()) => {}
            // This kernel has no more of them.
            Err(refused) if refused.error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(refused) => return Err(refused),
        }
    }
    Ok(())
}

/// The kernel's `__user_cap_header_struct`; version 3 has two words of each set.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// The kernel's `__user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

struct Sets {
    effective: u64,
    permitted: u64,
}

const THIS_THREAD: Header = Header {
    version: 0x2008_0522,
    pid: 0,
};

fn capget() -> io::Result<Sets> {
    let mut header = THIS_THREAD;
    let mut words = [Word::default(); 2];
    // SAFETY: version 3 makes the kernel fill two words, and there are two.
    let got = unsafe { libc::syscall(libc::SYS_capget, &mut header, words.as_mut_ptr()) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(words[0].effective, words[1].effective),
        permitted: join(words[0].permitted, words[1].permitted),
    })
}

/// Effective and permitted; what a program would inherit is nothing.
fn capset(keep: Capabilities) -> io::Result<()> {
    let mut header = THIS_THREAD;
    let word = |bits: u64| Word {
        effective: bits as u32,
        permitted: bits as u32,
        inheritable: 0,
    };
    let words = [word(keep.0), word(keep.0 >> 32)];
    // SAFETY: version 3 makes the kernel read two words, and there are two.
    match unsafe { libc::syscall(libc::SYS_capset, &mut header, words.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn prctl(call: &'static str, option: libc::c_int, argument: libc::c_ulong) -> Result<(), Refused> {
    let none: libc::c_ulong = 0;
    // SAFETY: none of the options used here takes a pointer.
    checked(call, unsafe {
        libc::prctl(option, argument, none, none, none)
    })
}

fn checked(call: &'static str, result: libc::c_int) -> Result<(), Refused> {
    match result {
        0 => Ok(()),
        _ => Err(refused(call)(io::Error::last_os_error())),
    }
}

fn refused(call: &'static str) -> impl Fn(io::Error) -> Refused {
    move |error| Refused { call, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        let root = account("root").unwrap().expect("every host has one");
        assert_eq!((root.uid, root.gid, root.name.as_str()), (0, 0, "root"));
        for nobody in ["no such user", "", "a\0b", "/no such value/"] {
            assert_eq!(account(nobody).unwrap(), None, "{nobody:?}");
        }
    }

    #[test]
    fn the_kernel_tells_what_this_thread_may_do() {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let told = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
        assert_eq!(capabilities().unwrap(), Capabilities(told));
    }

    #[test]
    fn sets() {
        let both = Capabilities::of(&[Capability::NetAdmin, Capability::NetRaw]);
        assert_eq!(both, Capabilities(0x3000));
        assert!(both.has(Capability::NetRaw) && !both.has(Capability::Setuid));
        assert_eq!(both.to_string(), "CAP_NET_ADMIN CAP_NET_RAW");
        assert_eq!(Capabilities(0x4001).to_string(), "CAP_IPC_LOCK 0x1");
        assert_eq!(Capabilities::NONE.to_string(), "none");
        assert!(Capabilities::NONE.is_within(both) && !both.is_within(Capabilities::NONE));
    }

    /// Test runners have threads of their own, which is what the rule is about.
    #[test]
    fn a_process_with_threads_is_not_confined() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        let before = capabilities().unwrap();
        let refused = confine(None, Capabilities::NONE).unwrap_err();
        assert!(refused.to_string().contains("threads"), "{refused}");
        assert_eq!(capabilities().unwrap(), before);
        drop(stop);
        other.join().unwrap().unwrap_err();
    }
}
