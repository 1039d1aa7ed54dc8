//! The executors that host the shards, their placement, their background tasks and their mailboxes.
//!
//! The only module that names glommio. A shard is one task on its executor, the hot task: it sleeps in its own ring, not in glommio's, so glommio
//! runs only when the hot task lets it: see [`yield_background`]. SMTP never depends on that; reloads and files do.

mod background;
mod executors;
mod flags;
mod mailbox;
mod pages;
mod privileges;
mod scheduling;

pub use background::{has_background_work, spawn_background, yield_background};
pub use executors::{EXECUTOR_LOCKED, ShardIndex, Shards, allowed_cores, start_shards};
pub use flags::executor_rings;
pub use mailbox::{MailSender, Mailbox, Undelivered, mailbox};
pub use pages::keep_pages_small;
pub use privileges::{
    Account, Capabilities, Capability, Refused, account, capabilities, confine, effective_uid,
    refuse_new_privileges,
};
pub use scheduling::{give_way, step_back};
