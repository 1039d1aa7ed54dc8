//! Landlock: what of the file system the process can still open. Sockets are not concerned.
//!
//! A rule holds for an inode and what lies below it. Files that are replaced by others of the same name (certificates, lists,
//! logs) are therefore needed by their folder. What a path names is looked up when the fence goes up.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
};

use landlock::{
    ABI, Access, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

/// A file or folder, with all that is below it, that is used after the start.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Need {
    pub path: PathBuf,
    pub used: Use,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Use {
    Read,
    /// Files are made and written there.
    Write,
    /// Files are made, read, written, cut and given another name there.
    Keep,
}

/// What the kernel enforces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fence {
    /// All that is asked for.
    Whole,
    /// What this version of Landlock knows; the words say what is missing.
    Older(&'static str),
    /// Nothing, and why.
    None(String),
}

/// The newest version that this was written and tried with.
const KNOWN: ABI = ABI::V6;

impl Need {
    /// What is used below a folder, or of a file that is never replaced.
    pub fn of(path: impl Into<PathBuf>, used: Use) -> Need {
        Need {
            path: path.into(),
            used,
        }
    }

    /// What it takes to use a file which may be replaced by another of its name: its folder; and if it is a link, the folder it points to. A folder is used itself.
    pub fn of_replaceable(path: &Path, used: Use) -> Vec<Need> {
        let real = path.canonicalize().ok();
        let mut needs: Vec<Need> = [Some(path), real.as_deref()]
            .into_iter()
            .flatten()
            .map(|path| Need::of(folder(path), used))
            .collect();
        needs.dedup();
        needs
    }
}

/// The folder of a file; the path itself where that would be everything, and where it is a folder, a device or a pipe.
fn folder(path: &Path) -> &Path {
    use std::os::unix::fs::FileTypeExt;
    let kind = path.metadata().map(|metadata| metadata.file_type());
    if kind.is_ok_and(|kind| kind.is_dir() || kind.is_char_device() || kind.is_fifo()) {
        return path;
    }
    match path.parent() {
        Some(parent) if parent == Path::new("") => Path::new("."),
        Some(parent) if parent == Path::new("/") => path,
        Some(parent) => parent,
        None => path,
    }
}

/// Puts the fence up around this thread and those it makes, and refuses new privileges for them, without which there is none.
pub fn raise(needs: &[Need]) -> Fence {
    match restrict(needs) {
        Ok(status) => met(&status.landlock),
        Err(error) => Fence::None(error.to_string()),
    }
}

/// What this kernel would enforce: tried by a thread that ends with its fence.
pub fn probe() -> Fence {
    let tried = thread::Builder::new().spawn(|| raise(&[]));
    let ended = tried.and_then(|thread| {
        let panicked = |_| io::Error::other("the thread that tried it panicked");
        thread.join().map_err(panicked)
    });
    ended.unwrap_or_else(|error| Fence::None(error.to_string()))
}

fn restrict(needs: &[Need]) -> Result<RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::Signal)?
        .create()?;
    for need in needs {
        // What is not there, or not to be reached, needs no rule.
        let Ok(place) = PathFd::new(&need.path) else {
            continue;
        };
        rules = rules.add_rule(PathBeneath::new(place, need.used.rights(&need.path)))?;
    }
    rules.restrict_self()
}

impl Use {
    fn rights(self, path: &Path) -> BitFlags<AccessFs> {
        let whole = match self {
            Use::Read => AccessFs::ReadFile | AccessFs::ReadDir,
            Use::Write => AccessFs::WriteFile | AccessFs::MakeReg,
            // A file that grows and shrinks, and is put aside by another name.
            Use::Keep => {
                AccessFs::ReadFile
                    | AccessFs::WriteFile
                    | AccessFs::Truncate
                    | AccessFs::MakeReg
                    | AccessFs::RemoveFile
            }
        };
        // A file has no entries.
        match path.is_dir() {
            true => whole,
            false => whole & AccessFs::from_file(KNOWN),
        }
    }
}

fn met(landlock: &LandlockStatus) -> Fence {
    match landlock {
        LandlockStatus::NotImplemented => {
            Fence::None("this kernel is built without Landlock".into())
        }
        LandlockStatus::NotEnabled => {
            Fence::None("Landlock is not among the kernel's lsm= modules".into())
        }
        LandlockStatus::Available { effective_abi, .. } => match effective_abi {
            ABI::Unsupported => Fence::None("this kernel has no version of Landlock".into()),
            ABI::V1 | ABI::V2 => Fence::Older(
                "Landlock before Linux 6.2: truncating files, device ioctls and signals to others are not kept from weir",
            ),
            ABI::V3 | ABI::V4 => Fence::Older(
                "Landlock before Linux 6.10: device ioctls and signals to others are not kept from weir",
            ),
            ABI::V5 => {
                Fence::Older("Landlock before Linux 6.12: signals to others are not kept from weir")
            }
            _ => Fence::Whole,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn paths(path: &Path) -> Vec<PathBuf> {
        let needs = Need::of_replaceable(path, Use::Read);
        needs.into_iter().map(|need| need.path).collect()
    }

    #[test]
    fn replaceable_files_are_needed_by_their_folders() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let (live, archive) = (root.join("live"), root.join("archive"));
        fs::create_dir(&live).unwrap();
        fs::create_dir(&archive).unwrap();
        fs::write(archive.join("key3.pem"), "").unwrap();
        symlink("../archive/key3.pem", live.join("key.pem")).unwrap();
        assert_eq!(
            paths(&live.join("key.pem")),
            [live.clone(), archive.clone()]
        );
        assert_eq!(paths(&archive.join("key3.pem")), [&*archive]);
        assert_eq!(paths(&archive.join("not there")), [&*archive]);
        symlink("archive", root.join("current")).unwrap();
        assert_eq!(
            paths(&root.join("current")),
            [root.join("current"), archive]
        );
    }

    #[test]
    fn no_folder_is_everything() {
        assert_eq!(folder(Path::new("/weir.log")), Path::new("/weir.log"));
        assert_eq!(folder(Path::new("weir.log")), Path::new("."));
        assert_eq!(folder(Path::new("/dev/null")), Path::new("/dev/null"));
        assert_eq!(folder(Path::new("/")), Path::new("/"));
    }

    /// Landlock holds for a thread: this one ends with its fence.
    #[test]
    fn what_is_not_needed_cannot_be_opened() {
        let place = tempfile::tempdir().unwrap();
        let [read, write, keep, other] = ["read", "write", "keep", "other"].map(|name| {
            let folder = place.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("file"), "old").unwrap();
            folder
        });
        let needs = [
            Need::of(&read, Use::Read),
            Need::of(&write, Use::Write),
            Need::of(&keep, Use::Keep),
            Need::of("/not there", Use::Read),
        ];
        let fenced = thread::spawn(move || {
            let fence = raise(&needs);
            // A kernel without it keeps nothing back, and says so.
            if matches!(fence, Fence::None(_)) {
                return;
            }
            assert_eq!(fs::read(read.join("file")).unwrap(), b"old");
            assert_eq!(fs::read_dir(&read).unwrap().count(), 1);
            fs::write(write.join("new"), "new").unwrap();
            fs::rename(write.join("new"), write.join("moved")).unwrap_err();
            let denied = |outcome: io::Result<()>| {
                assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            };
            let kept = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(keep.join("file"));
            kept.unwrap().set_len(100).unwrap();
            fs::rename(keep.join("file"), keep.join("aside")).unwrap();
            fs::write(keep.join("file"), "new").unwrap();
            denied(fs::read(other.join("file")).map(drop));
            denied(fs::write(other.join("file"), "new"));
            denied(fs::write(read.join("file"), "new"));
            denied(fs::remove_file(write.join("file")));
            denied(std::process::Command::new("/bin/true").status().map(drop));
        });
        fenced.join().unwrap();
    }

    #[test]
    fn this_kernel_can_be_asked() {
        let asked = probe();
        assert_eq!(asked, probe(), "asking changes nothing");
        fs::read("/proc/self/status").expect("this thread is outside");
    }
}
