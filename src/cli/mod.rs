//! What was typed, what it means, and whether this host is fit.
//!
//! [`args`] takes the command line apart, [`flags`] says what each flag is and means, [`config`] reads all of it and finds
//! everything wrong at once, [`tls`] with what the certificates' files say. [`check`] prints the plan, [`sizes`] is how large weir
//! may come to be, [`needs`] which files it goes on using, [`doctor`] looks at the host, [`explain`] asks a weir
//! that runs. [`launch`] turns the configuration into
//! what shards and control go by, [`manual`] makes docs/FLAGS.md. Nothing is opened here but lists, certificates and keys.

pub mod args;
pub mod check;
pub mod config;
pub mod doctor;
pub mod explain;
pub mod flags;
pub mod launch;
pub mod manual;
pub mod needs;
pub mod reader;
pub mod sizes;
pub mod tls;
pub mod units;
