//! One file per way to behave. Each is the story of one session; which steps it is made of is in `session`.

mod bdat;
mod hang_up;
mod idle;
mod kept;
mod per_message;
mod persistent;
mod pipelined;
mod pregreet;
mod silent;
mod slow_body;
mod slow_loris;
mod spambot;

#[cfg(test)]
pub use hang_up::{hang_up_after, octets_of as octets_of_session};
use tokio::task::spawn_local;

use super::start::Start;
use crate::plan::Profile;

/// Begins the session of a start; for profiles that keep connections, on an idle one where there is one.
pub fn spawn(start: Start) {
    // each has a task of its own size: a silent client costs less memory than one that sends mail
    match start.stream.plan.profile {
        Profile::PerMessage => drop(spawn_local(per_message::run(start))),
        Profile::Persistent => {
            on_connection(start, |start| drop(spawn_local(persistent::run(start))))
        }
        Profile::Pipelined => {
            on_connection(start, |start| drop(spawn_local(pipelined::run(start))))
        }
        Profile::Bdat => on_connection(start, |start| drop(spawn_local(bdat::run(start)))),
        Profile::SlowBody { bytes_per_second } => {
            drop(spawn_local(slow_body::run(start, bytes_per_second)));
        }
        Profile::HangUp => drop(spawn_local(hang_up::run(start))),
        Profile::Pregreet => drop(spawn_local(pregreet::run(start))),
        Profile::SlowLoris { every } => drop(spawn_local(slow_loris::run(start, every))),
        Profile::Idle => drop(spawn_local(idle::run(start))),
        Profile::Silent => drop(spawn_local(silent::run(start))),
        Profile::Spambot => drop(spawn_local(spambot::run(start))),
    }
}

fn on_connection(start: Start, open: impl FnOnce(Start)) {
    let stream = start.stream.clone();
    if let Err(start) = stream.seat(start) {
        open(start);
    }
}
