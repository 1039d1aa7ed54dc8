//! What was typed, what it means, and whether this host is fit.
//!
//! [`args`] takes the command line apart, [`flags`] says what each flag is and means, [`config`] reads all of it and finds
//! everything wrong at once, [`check`] prints the plan, [`doctor`] looks at the host, [`manual`] makes docs/FLAGS.md.
//! Nothing is opened here but the files that are named as lists.

pub mod args;
pub mod check;
pub mod config;
pub mod doctor;
pub mod flags;
pub mod launch;
pub mod manual;
pub mod needs;
pub mod reader;
pub mod tls;
pub mod units;
