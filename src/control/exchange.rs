//! What shards learn goes around: from one to the others, to the file of --state and to other hosts, and from there to all.
//!
//! Nothing is kept here. A letter is the same memory for everybody who gets it; the shards are mailed and the keeper is left
//! a copy, and neither is waited for.

use std::io;
use std::sync::Arc;

use crate::policy::budget::Owed;
use crate::policy::news::News;
use crate::shard::{Mail, Told, clock::Clock};
use crate::state::{Keeper, Keeping, Meeting, Sharing, SharingView, View};

/// To all shards.
pub type ToAll = Arc<dyn Fn(Mail) + Send + Sync>;
/// To all but one.
pub type ToOthers = Box<dyn Fn(usize, Mail) + Send>;

/// Where news go.
pub struct Exchange {
    to_others: ToOthers,
    keeper: Option<Arc<Keeper>>,
    sharing: Option<Sharing>,
}

/// For the metrics; None: there is no such thing.
pub struct Views {
    pub file: Option<View>,
    pub shared: Option<SharingView>,
}

impl Exchange {
    /// Begins to read the file, and to talk with the server, where they are. To be called on control's runtime.
    pub fn start(
        keeping: Option<Keeping>,
        meeting: Option<Meeting>,
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
        let keeper = keeping.map(start).transpose()?.map(Arc::new);
        let sharing = meeting.map(|meeting| {
            let (to_all, keeper) = (Arc::clone(to_all), keeper.clone());
            let to_all_news = Arc::clone(&to_all);
            let counts_before = keeper.is_none();
            let hear = move |news: Arc<[News]>| {
                if let Some(keeper) = &keeper {
                    keeper.keep(Arc::clone(&news));
                }
                to_all_news(Mail::News(news));
            };
            let owe = move |owed: Vec<Owed>| to_all(Mail::Owed(owed.into()));
            Sharing::start(meeting, counts_before, Box::new(hear), Box::new(owe))
        });
        Ok(Exchange {
            to_others,
            keeper,
            sharing,
        })
    }

    /// A shard has learnt something.
    pub fn told(&self, told: Told) {
        if let Some(sharing) = &self.sharing
            && !told.spent.is_empty()
        {
            sharing.spend(told.spent);
        }
        if told.news.is_empty() {
            return;
        }
        (self.to_others)(told.shard, Mail::News(Arc::clone(&told.news)));
        if let Some(keeper) = &self.keeper {
            keeper.keep(Arc::clone(&told.news));
        }
        if let Some(sharing) = &self.sharing {
            sharing.tell(told.news);
        }
    }

    pub fn views(&self) -> Views {
        Views {
            file: self.keeper.as_ref().map(|keeper| keeper.view()),
            shared: self.sharing.as_ref().map(Sharing::view),
        }
    }

    /// Writes what is left.
    pub async fn finish(self) {
        if let Some(sharing) = self.sharing {
            sharing.finish().await;
        }
        if let Some(keeper) = self.keeper {
            keeper.finish();
        }
    }
}
