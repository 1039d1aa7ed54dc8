//! What an operator tells weir about addresses beforehand: spamtraps, files of places, and what places weigh.

use super::origin::{Places, Weights};
use super::spamtraps::Spamtraps;

/// All of it. Read from files, shared by all shards, replaced whole on reload.
#[derive(Default)]
pub struct Lore {
    pub spamtraps: Spamtraps,
    pub places: Places,
    pub weights: Weights,
}
