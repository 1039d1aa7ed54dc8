//! What shards learn goes around: from one to the others, to the file of --state, and from there to all.
//!
//! Nothing is kept here. A letter is the same memory for everybody who gets it; the shards are mailed and the keeper is left
//! a copy, and neither is waited for.

use std::io;
use std::sync::Arc;

use crate::shard::{Mail, Told, clock::Clock};
use crate::state::{Keeper, Keeping, View};

/// To all shards.
pub type ToAll = Arc<dyn Fn(Mail) + Send + Sync>;
/// To all but one.
pub type ToOthers = Box<dyn Fn(usize, Mail) + Send>;

/// Where news go.
pub struct Exchange {
    to_others: ToOthers,
    keeper: Option<Keeper>,
}

impl Exchange {
    /// Begins to read the file, if there is one.
    pub fn start(
        keeping: Option<Keeping>,
        clock: Clock,
        to_all: &ToAll,
        to_others: ToOthers,
    ) -> io::Result<Exchange> {
        let start = |keeping| {
            let to_all = Arc::clone(to_all);
            let wall = Box::new(move || clock.unix() * 1_000_000 + clock.now().as_micros());
            Keeper::start(
                keeping,
                wall,
                Box::new(move |news| to_all(Mail::News(news))),
            )
        };
        Ok(Exchange {
            to_others,
            keeper: keeping.map(start).transpose()?,
        })
    }

    /// A shard has learnt something.
    pub fn told(&self, told: Told) {
        (self.to_others)(told.shard, Mail::News(Arc::clone(&told.news)));
        if let Some(keeper) = &self.keeper {
            keeper.keep(told.news);
        }
    }

    /// For the metrics; None: nothing lasts.
    pub fn view(&self) -> Option<View> {
        self.keeper.as_ref().map(Keeper::view)
    }

    /// Writes what is left.
    pub fn finish(self) {
        if let Some(keeper) = self.keeper {
            keeper.finish();
        }
    }
}
