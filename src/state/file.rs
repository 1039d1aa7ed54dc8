//! The file of --state FILE: a redb database of two tables and a mark.
//!
//! ```text
//!   tuples    TupleKey -> when first seen
//!   networks  network  -> record.rs, 40 octets
//!   weir      "form"   -> which form this is
//!             "prefix" -> what makes a network
//! ```
//! Opening it reads all of it once, to see whether it is whole. A commit merges what is pending with what is there, looks at a slice
//! of each table for what is over, and makes room where there are too many. It is atomic: after a crash the file is as one of the
//! last two commits left it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{
    Database, Key, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, Table,
    TableDefinition, TableError, TableHandle, Value, WriteTransaction,
};

use crate::net::ClientPrefix;
use crate::policy::news::{News, Seconds, TupleKey};

use super::pending::Pending;
use super::record::{Lives, Network};

const TUPLES: TableDefinition<'_, u64, u32> = TableDefinition::new("tuples");
const NETWORKS: TableDefinition<'_, u64, &[u8; Network::OCTETS]> = TableDefinition::new("networks");
const WEIR: TableDefinition<'_, &str, u64> = TableDefinition::new("weir");
const FORM: &str = "form";
const PREFIX: &str = "prefix";

/// Raised when the tables above change their meaning.
const FORM_NOW: u64 = 1;

/// What redb may hold in memory of the file.
pub const CACHE: usize = 32 << 20;

/// Entries of each table that one commit looks at.
const SLICE: usize = 8192;
/// Slices of one commit where there are too many entries: enough to give up as many as one commit may add.
const SLICES_MAX: usize = 2 * super::pending::PENDING_MAX / SLICE;

/// How many entries the file may have.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Room {
    pub tuples: u64,
    pub networks: u64,
}

/// What has gone wrong with the file.
#[derive(Debug)]
pub enum Trouble {
    /// Another process has it.
    InUse,
    /// Not a file of this weir, or not whole any more: no use to try again.
    Unfit(String),
    /// Full disk, permissions, a disk that fails.
    Failed(String),
}

impl Trouble {
    /// A disk that gives other octets than were written makes redb panic here and there.
    pub fn of_panic() -> Trouble {
        Trouble::Unfit("damaged: what is in it contradicts itself".into())
    }
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Trouble {
        use redb::Error;
        match &error {
            Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch => Trouble::InUse,
            Error::Io(inner) if is_content(inner) => {
                Trouble::Unfit(format!("damaged, or no state file: {error}"))
            }
            Error::Io(_) | Error::PreviousIo => Trouble::Failed(error.to_string()),
            Error::UpgradeRequired(_) => Trouble::Unfit(format!("of another version: {error}")),
            Error::TableTypeMismatch { .. } | Error::TableIsMultimap(_) => {
                Trouble::Unfit(format!("of another program: {error}"))
            }
            _ => Trouble::Unfit(format!("damaged: {error}")),
        }
    }
}

/// Not the disk failed, but what is on it is not right.
fn is_content(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

/// Any of redb's errors.
fn trouble(error: impl Into<redb::Error>) -> Trouble {
    error.into().into()
}

/// How far reading has come.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Place {
    /// Networks first: who is proven there needs no tuple.
    Networks(u64),
    Tuples(u64),
    End,
}

impl Place {
    pub const START: Place = Place::Networks(0);
}

/// Opens a file of that name as it is, or makes an empty one. Only its owner may read it: it tells who has written.
pub fn reach(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

pub struct File {
    database: Database,
    room: Room,
    lives: Lives,
    /// Where the next look at a slice begins.
    swept_tuples: u64,
    swept_networks: u64,
}

impl File {
    /// Opens the file; makes it if there is none.
    pub fn open(path: &Path, room: Room, lives: Lives) -> Result<File, Trouble> {
        let file = reach(path).map_err(|error| Trouble::Failed(error.to_string()))?;
        File::on(FileBackend::new(file).map_err(trouble)?, room, lives)
    }

    /// On anything that holds octets.
    pub fn on(storage: impl StorageBackend, room: Room, lives: Lives) -> Result<File, Trouble> {
        let mut database = Database::builder()
            .set_cache_size(CACHE)
            .create_with_backend(storage)
            .map_err(trouble)?;
        // Octets that the disk has changed are found now, by their checksums, for the time it takes to read the file once. redb would
        // come upon them later, in a commit or in closing, and may panic there while it unwinds, which ends the process.
        database.check_integrity().map_err(trouble)?;
        let file = File {
            database,
            room,
            lives,
            swept_tuples: 0,
            swept_networks: 0,
        };
        file.look_at_form()?;
        Ok(file)
    }

    /// Is it ours? An empty one becomes so.
    fn look_at_form(&self) -> Result<(), Trouble> {
        let reading = self.database.begin_read().map_err(trouble)?;
        let form = match reading.open_table(WEIR) {
            Ok(table) => table.get(FORM).map_err(trouble)?.map(|form| form.value()),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(trouble(error)),
        };
        let names = reading.list_tables().map_err(trouble)?;
        let strange = names.map(|table| table.name().to_owned()).next();
        match (form, strange) {
            (Some(FORM_NOW), _) => Ok(()),
            (Some(other), _) => Err(Trouble::Unfit(format!(
                "of another version: form {other}, this weir writes {FORM_NOW}"
            ))),
            (None, Some(name)) => Err(Trouble::Unfit(format!(
                "of another program: it has a table {name:?}"
            ))),
            (None, None) => self.make(),
        }
    }

    fn make(&self) -> Result<(), Trouble> {
        let writing = self.database.begin_write().map_err(trouble)?;
        writing.open_table(TUPLES).map_err(trouble)?;
        writing.open_table(NETWORKS).map_err(trouble)?;
        let mut weir = writing.open_table(WEIR).map_err(trouble)?;
        weir.insert(FORM, FORM_NOW).map_err(trouble)?;
        drop(weir);
        writing.commit().map_err(trouble)
    }

    /// Are its networks those of this prefix? A new one's become so.
    pub fn look_at_prefix(&self, prefix: ClientPrefix) -> Result<(), Trouble> {
        let (v4, v6) = prefix.bits();
        let ours = u64::from(v4) << 8 | u64::from(v6);
        let writing = self.database.begin_write().map_err(trouble)?;
        let mut weir = writing.open_table(WEIR).map_err(trouble)?;
        let theirs = weir.get(PREFIX).map_err(trouble)?.map(|bits| bits.value());
        match theirs {
            Some(bits) if bits == ours => Ok(()),
            Some(bits) => Err(Trouble::Unfit(format!(
                "its networks are those of --network-prefix {}/{}, not {v4}/{v6}",
                bits >> 8,
                bits & 0xff
            ))),
            None => {
                weir.insert(PREFIX, ours).map_err(trouble)?;
                drop(weir);
                writing.commit().map_err(trouble)
            }
        }
    }

    /// Entries: tuples, networks.
    pub fn entries(&self) -> Result<(u64, u64), Trouble> {
        let reading = self.database.begin_read().map_err(trouble)?;
        let tuples = reading.open_table(TUPLES).map_err(trouble)?;
        let networks = reading.open_table(NETWORKS).map_err(trouble)?;
        Ok((
            tuples.len().map_err(trouble)?,
            networks.len().map_err(trouble)?,
        ))
    }

    /// What the next entries have to tell, and where to go on.
    pub fn read(
        &self,
        place: Place,
        entries: usize,
        now: Seconds,
    ) -> Result<(Vec<News>, Place), Trouble> {
        let reading = self.database.begin_read().map_err(trouble)?;
        let mut news = Vec::with_capacity(entries);
        let next = match place {
            Place::Networks(from) => {
                let table = reading.open_table(NETWORKS).map_err(trouble)?;
                let last = each(&table, from, entries, |key, octets| {
                    let network = Network::from_octets(octets);
                    network.tell(key, now, &self.lives, &mut |told| news.push(told));
                })?;
                last.map_or(Place::Tuples(0), Place::Networks)
            }
            Place::Tuples(from) => {
                let table = reading.open_table(TUPLES).map_err(trouble)?;
                let last = each(&table, from, entries, |key, first| {
                    let tuple = News::Tuple {
                        key: TupleKey(key),
                        first,
                    };
                    news.extend(self.lives.put_right(tuple, now));
                })?;
                last.map_or(Place::End, Place::Tuples)
            }
            Place::End => Place::End,
        };
        Ok((news, next))
    }

    /// Writes what is pending, and forgets what is over.
    pub fn commit(&mut self, pending: &Pending, now: Seconds) -> Result<(), Trouble> {
        let mut writing = self.database.begin_write().map_err(trouble)?;
        // A file of millions is else walked from end to end after a crash.
        writing.set_quick_repair(true);
        self.commit_tuples(&writing, pending, now)?;
        self.commit_networks(&writing, pending, now)?;
        writing.commit().map_err(trouble)
    }

    fn commit_tuples(
        &mut self,
        writing: &WriteTransaction,
        pending: &Pending,
        now: Seconds,
    ) -> Result<(), Trouble> {
        let mut tuples = writing.open_table(TUPLES).map_err(trouble)?;
        for (key, first) in &pending.tuples {
            let known = tuples.get(key.0).map_err(trouble)?.map(|was| was.value());
            // A moment ahead of now is the word of a clock that was wrong.
            let known = known.filter(|known| *known <= now);
            if known.is_none_or(|known| *first < known) {
                tuples.insert(key.0, *first).map_err(trouble)?;
            }
        }
        let life = self.lives.tuple;
        let over = |first: Seconds| first.saturating_add(life) <= now;
        let sweep = Sweep {
            from: &mut self.swept_tuples,
            max: self.room.tuples,
        };
        sweep.run(&mut tuples, |first| (over(first), first))
    }

    fn commit_networks(
        &mut self,
        writing: &WriteTransaction,
        pending: &Pending,
        now: Seconds,
    ) -> Result<(), Trouble> {
        let lives = self.lives;
        let mut networks = writing.open_table(NETWORKS).map_err(trouble)?;
        for (key, news) in &pending.networks {
            let known = networks.get(key).map_err(trouble)?;
            let mut network = known.map_or_else(Network::default, |octets| {
                Network::from_octets(octets.value())
            });
            network.hold_to(now, &lives);
            network.merge(news, &lives);
            networks
                .insert(key, &network.to_octets())
                .map_err(trouble)?;
        }
        let sweep = Sweep {
            from: &mut self.swept_networks,
            max: self.room.networks,
        };
        sweep.run(&mut networks, |octets| {
            let network = Network::from_octets(octets);
            (network.is_over(now, &lives), network.worth())
        })
    }
}

/// Calls for the entries from `from` on, at most so many. Where to go on; None: that was all. Keys rise, or else the file is
/// damaged: whoever went on from a key that lies behind would go round for ever.
fn each<V: Value + 'static>(
    table: &impl ReadableTable<u64, V>,
    from: u64,
    entries: usize,
    mut call: impl for<'v> FnMut(u64, V::SelfType<'v>),
) -> Result<Option<u64>, Trouble> {
    let (mut least, mut seen) = (Some(from), 0);
    let range = table.range(from..).map_err(trouble)?;
    for entry in range.take(entries) {
        let (key, value) = entry.map_err(trouble)?;
        let key = key.value();
        if least.is_none_or(|least| key < least) {
            return Err(Trouble::Unfit("damaged: its keys are out of order".into()));
        }
        call(key, value.value());
        least = key.checked_add(1);
        seen += 1;
    }
    Ok(least.filter(|_| seen == entries))
}

/// A look at a part of a table.
struct Sweep<'a> {
    from: &'a mut u64,
    max: u64,
}

impl Sweep<'_> {
    /// Takes out what is over; while there are too many, also the half of each slice that is worth least.
    /// `judge`: whether an entry is over, and what it is worth.
    fn run<V: Value + 'static>(
        self,
        table: &mut Table<'_, u64, V>,
        judge: impl for<'v> Fn(V::SelfType<'v>) -> (bool, Seconds),
    ) -> Result<(), Trouble>
    where
        u64: Key,
    {
        for _ in 0..SLICES_MAX {
            let mut seen: Vec<(bool, Seconds, u64)> = Vec::new();
            let next = each(table, *self.from, SLICE, |key, value| {
                let (over, worth) = judge(value);
                seen.push((!over, worth, key));
            })?;
            *self.from = next.unwrap_or(0);
            seen.sort_unstable();
            let over = seen.partition_point(|(lasts, ..)| !*lasts);
            let excess = table.len().map_err(trouble)?.saturating_sub(self.max) as usize;
            let going = over.max(excess.min(seen.len().div_ceil(2)));
            for (.., key) in &seen[..going] {
                table.remove(key).map_err(trouble)?;
            }
            if excess <= going {
                return Ok(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
