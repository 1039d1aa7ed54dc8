//! The file: against crashes at any moment, damage, strangers and crowds. On storage in memory, but for what is about files.

use std::sync::{Arc, Mutex};

use super::*;
use crate::policy::clients::ClientKey;
use crate::policy::news::Deed;
use crate::state::record::arbitrary::news;
use proptest::prelude::*;
use redb::backends::InMemoryBackend;

const NOW: Seconds = 1_800_000_000;
const ROOM: Room = Room {
    tuples: 1_000_000,
    networks: 1_000_000,
};

fn pending(news: &[News]) -> Pending {
    let mut pending = Pending::default();
    pending.add(news, NOW, &Lives::default());
    pending
}

fn tuples(numbers: std::ops::Range<u64>) -> Vec<News> {
    let tuple = |number| News::Tuple {
        key: TupleKey(number),
        first: NOW - number as Seconds,
    };
    numbers.map(tuple).collect()
}

fn proven(number: u64) -> News {
    News::Proven {
        network: ClientKey::from_bits(number),
        until: NOW + 100,
    }
}

/// All there is, in the order it is told.
fn all(file: &File) -> Vec<News> {
    let (mut told, mut place) = (Vec::new(), Place::START);
    while place != Place::End {
        let (news, next) = file.read(place, 7, NOW).unwrap();
        told.extend(news);
        place = next;
    }
    told
}

fn fresh(room: Room) -> File {
    File::on(InMemoryBackend::new(), room, Lives::default()).unwrap()
}

#[test]
fn what_is_written_is_there_at_the_next_start_and_merged() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("state");
    let open = || File::open(&path, ROOM, Lives::default());
    let mut file = open().unwrap();
    let mut counts = [0; Deed::COUNT];
    counts[Deed::Refused as usize] = 3;
    let deeds = News::Deeds {
        network: ClientKey::from_bits(9),
        asn: 64_500,
        at: NOW,
        counts,
    };
    file.commit(&pending(&tuples(0..20)), NOW).unwrap();
    file.commit(&pending(&[proven(9), deeds]), NOW).unwrap();
    file.commit(&pending(&[deeds, proven(1)]), NOW).unwrap();
    assert!(matches!(open(), Err(Trouble::InUse)));
    drop(file);
    let file = open().unwrap();
    counts[Deed::Refused as usize] = 6;
    let twice = News::Deeds {
        network: ClientKey::from_bits(9),
        asn: 64_500,
        at: NOW,
        counts,
    };
    let want = [&[proven(1), proven(9), twice][..], &tuples(0..20)].concat();
    assert_eq!(all(&file), want);
    assert_eq!(file.entries().unwrap(), (20, 2));
    use std::os::unix::fs::PermissionsExt;
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "it tells who writes to whom");
}

#[test]
fn what_is_over_goes_and_room_is_kept_to() {
    let room = Room {
        tuples: 500,
        networks: 500,
    };
    let mut file = fresh(room);
    file.commit(&pending(&tuples(0..20_000)), NOW).unwrap();
    assert_eq!(file.entries().unwrap(), (500, 0));
    // Those who are here longest are nearest to their end.
    let young = all(&file)
        .iter()
        .filter(|news| matches!(news, News::Tuple { first, .. } if *first > NOW - 10_000))
        .count();
    assert!(young > 400, "{young}");
    let networks: Vec<News> = (0..20_000).map(proven).collect();
    file.commit(&pending(&networks), NOW).unwrap();
    assert_eq!(file.entries().unwrap(), (500, 500));
    file.commit(&Pending::default(), NOW + 101).unwrap();
    assert_eq!(file.entries().unwrap().1, 0);
    file.commit(&Pending::default(), NOW + 86_400).unwrap();
    assert_eq!(file.entries().unwrap(), (0, 0));
}

#[test]
fn a_clock_that_was_ahead_has_not_the_last_word() {
    let mut file = fresh(ROOM);
    let later = NOW + 1_000_000;
    let mut ahead = Pending::default();
    let tuple = |first| News::Tuple {
        key: TupleKey(1),
        first,
    };
    ahead.add(&[tuple(later)], later, &Lives::default());
    file.commit(&ahead, later).unwrap();
    assert_eq!(all(&file), [tuple(NOW)]);
    file.commit(&pending(&[tuple(NOW - 5)]), NOW).unwrap();
    assert_eq!(all(&file), [tuple(NOW - 5)]);
}

#[test]
fn strangers_are_known_as_such() {
    let place = tempfile::tempdir().unwrap();
    let why = |name: &str, make: &dyn Fn(&Path)| {
        let path = place.path().join(name);
        make(&path);
        match File::open(&path, ROOM, Lives::default()) {
            Err(Trouble::Unfit(why)) => why,
            other => panic!("{name}: {:?}", other.map(drop)),
        }
    };
    let text = why("text", &|path| {
        std::fs::write(path, "hello\n".repeat(1000)).unwrap();
    });
    assert!(text.contains("no state file"), "{text}");
    let program = why("program", &|path| {
        let database = Database::create(path).unwrap();
        let writing = database.begin_write().unwrap();
        writing
            .open_table(TableDefinition::<u64, u64>::new("cats"))
            .unwrap();
        writing.commit().unwrap();
    });
    assert!(program.contains("\"cats\""), "{program}");
    let version = why("version", &|path| {
        let file = File::open(path, ROOM, Lives::default()).unwrap();
        let writing = file.database.begin_write().unwrap();
        writing.open_table(WEIR).unwrap().insert(FORM, 7).unwrap();
        writing.commit().unwrap();
    });
    assert!(version.contains("form 7"), "{version}");
    let cut = why("cut", &|path| {
        let mut file = File::open(path, ROOM, Lives::default()).unwrap();
        file.commit(&pending(&tuples(0..50_000)), NOW).unwrap();
        drop(file);
        let half = path.metadata().unwrap().len() / 2;
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(half).unwrap();
    });
    assert!(!cut.is_empty());
}

/// Storage that can be copied at any moment, as a machine that stops would leave it.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    octets: Vec<u8>,
    /// What a power cut leaves for sure: as of the last sync.
    synced: Vec<u8>,
    /// Writes since then: the disk may have any of them.
    since: Vec<(usize, Vec<u8>)>,
    /// Operations until the disk is full.
    room: Option<u32>,
    /// A copy for each operation, with whether each write since the last sync made it.
    copies: Vec<Vec<u8>>,
    is_copied: bool,
    chance: u64,
}

impl Platter {
    fn step(&mut self) -> io::Result<()> {
        if let Some(room) = &mut self.room {
            if *room == 0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            *room -= 1;
        }
        if !self.is_copied {
            return Ok(());
        }
        self.copies.push(self.octets.clone());
        let mut torn = self.synced.clone();
        for (at, written) in &self.since {
            self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005) + 1;
            if self.chance >> 63 == 0 {
                let end = at + written.len();
                torn.resize(torn.len().max(end), 0);
                torn[*at..end].copy_from_slice(written);
            }
        }
        self.copies.push(torn);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().octets.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock().unwrap();
        let from = offset as usize;
        let found = platter.octets.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        platter.octets.resize(len as usize, 0);
        // A journalled file system does this in order.
        platter.synced.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        platter.synced = platter.octets.clone();
        platter.since.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        let from = offset as usize;
        platter.octets[from..from + data.len()].copy_from_slice(data);
        platter.since.push((from, data.to_vec()));
        Ok(())
    }
}

impl Disk {
    fn of(octets: Vec<u8>) -> Disk {
        let disk = Disk::default();
        disk.0.lock().unwrap().octets = octets;
        disk
    }
}

/// Two commits, and a power cut at each operation of the second: what is found is one of both states, whole.
#[test]
fn a_crash_at_any_moment_leaves_one_of_two_commits() {
    let disk = Disk::default();
    let mut file = File::on(disk.clone(), ROOM, Lives::default()).unwrap();
    file.commit(&pending(&tuples(0..300)), NOW).unwrap();
    let before = all(&file);
    disk.0.lock().unwrap().is_copied = true;
    let more = [tuples(300..600), (0..100).map(proven).collect()].concat();
    file.commit(&pending(&more), NOW).unwrap();
    let after = all(&file);
    let copies = std::mem::take(&mut disk.0.lock().unwrap().copies);
    assert!(copies.len() > 20 && before != after, "{}", copies.len());
    let (mut old, mut new) = (0, 0);
    for (moment, copy) in copies.into_iter().enumerate() {
        let found = File::on(Disk::of(copy), ROOM, Lives::default());
        let found = all(&found.unwrap_or_else(|trouble| panic!("moment {moment}: {trouble:?}")));
        assert!(found == before || found == after, "moment {moment}");
        *if found == before { &mut old } else { &mut new } += 1;
    }
    assert!(old > 0, "{old} {new}");
}

#[test]
fn a_full_disk_is_a_trouble_that_may_pass_and_costs_nothing_written() {
    let disk = Disk::default();
    let mut file = File::on(disk.clone(), ROOM, Lives::default()).unwrap();
    file.commit(&pending(&tuples(0..300)), NOW).unwrap();
    let before = all(&file);
    for room in 0.. {
        disk.0.lock().unwrap().room = Some(room);
        let outcome = file.commit(&pending(&tuples(0..600)), NOW);
        disk.0.lock().unwrap().room = None;
        drop(file);
        file = File::on(disk.clone(), ROOM, Lives::default()).unwrap();
        match outcome {
            Ok(()) => break,
            Err(Trouble::Failed(_)) => assert!(all(&file).len() == 300 || all(&file).len() == 600),
            Err(other) => panic!("{room}: {other:?}"),
        }
    }
    assert_eq!(all(&file), tuples(0..600));
    assert_ne!(before, all(&file));
}

const READS_MAX: u32 = 1000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// How news fall into commits makes no difference, but for rounding of counts.
    #[test]
    fn tuples_and_marks_are_as_one_merge_has_them(news in prop::collection::vec(news(), 1..60), cut in any::<prop::sample::Index>()) {
        let (one, other) = news.split_at(cut.index(news.len()));
        let mut whole = fresh(ROOM);
        whole.commit(&pending(&news), NOW).unwrap();
        let mut parts = fresh(ROOM);
        parts.commit(&pending(one), NOW).unwrap();
        parts.commit(&pending(other), NOW).unwrap();
        let marks = |file: &File| {
            let mut told = all(file);
            told.retain(|news| !matches!(news, News::Deeds { .. }));
            told
        };
        prop_assert_eq!(marks(&whole), marks(&parts));
    }

    /// Octets changed anywhere: it is read, or known as unfit, in an end; whoever guards it against panics goes on.
    #[test]
    fn damage_is_survived(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
        let disk = Disk::default();
        let mut file = File::on(disk.clone(), ROOM, Lives::default()).unwrap();
        file.commit(&pending(&tuples(0..2000)), NOW).unwrap();
        drop(file);
        let mut octets = std::mem::take(&mut disk.0.lock().unwrap().octets);
        for (at, with) in changes {
            let at = at.index(octets.len());
            octets[at] = with;
        }
        // A panic within a panic would end the tests here, as it would weir.
        let outcome = std::panic::catch_unwind(|| {
            let mut file = File::on(Disk::of(octets), ROOM, Lives::default())?;
            let (mut place, mut reads) = (Place::START, 0);
            while place != Place::End && reads < READS_MAX {
                place = file.read(place, 100, NOW)?.1;
                reads += 1;
            }
            file.commit(&pending(&tuples(5000..5100)), NOW)?;
            Ok(reads)
        });
        // 20 for what was written; a damaged file may have more, and never turns in a circle.
        prop_assert!(!matches!(outcome, Ok(Ok(READS_MAX))));
        prop_assert!(!matches!(outcome, Ok(Err(Trouble::InUse))));
    }
}
