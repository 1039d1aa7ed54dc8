//! CPU time of a server with all its processes.
//!
//! A server like Postfix ends its processes after some connections and forks others. What they used is not lost: it is in the
//! account of children waited for of the process that waited (fields `cutime`, `cstime` of /proc/PID/stat, in hundredths of a second).

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::proc;

/// User plus system time of the process and its descendants, living and waited for.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for member in proc::family(pid) {
        match (proc::cpu_time(member), buried(member)) {
            (Ok(own), Ok(ended)) => total += own + ended,
            // A child may end between the listing and the reading; its time then is in its parent's account the next time.
            _ if member != pid => {}
            (own, ended) => {
                own?;
                ended?;
            }
        }
    }
    Ok(total)
}

/// Resident memory of the process and its descendants. Pages they share count once for each.
pub fn rss(pid: u32) -> Result<u64> {
    let first = proc::rss(pid)?;
    let rest = proc::family(pid)
        .into_iter()
        .skip(1)
        .filter_map(|member| proc::rss(member).ok());
    Ok(first + rest.sum::<u64>())
}

/// Time of the children that a process has waited for.
fn buried(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    children_time(&stat).with_context(|| format!("{path} is not as proc(5) has it"))
}

/// Fields 16 and 17. The name in field 2 may have blanks and brackets: count from its end.
fn children_time(stat: &str) -> Option<Duration> {
    /// USER_HZ, the same on every architecture that has io_uring.
    const TICK: Duration = Duration::from_millis(10);
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(13);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * (user + system))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_account_is_read_behind_a_strange_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 0 1 2 3 4 50 60 11 22 20 0 1 0 99\n";
        assert_eq!(children_time(stat), Some(Duration::from_millis(330)));
        assert_eq!(children_time("7 (a"), None);
    }

    /// The busy loop runs in a child that has ended by the time we look.
    #[test]
    fn ended_children_are_not_forgotten() {
        let busy =
            "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; echo done; read x; true";
        let mut child = Command::new("sh")
            .args(["-c", busy])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        use std::io::BufRead as _;
        std::io::BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let (own, whole) = (
            proc::cpu_time(child.id()).unwrap(),
            cpu_time(child.id()).unwrap(),
        );
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(whole > own + Duration::from_millis(15), "{own:?} {whole:?}");
    }
}
