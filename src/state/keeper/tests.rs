//! The thread, with real files: from one start to the next.

use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::policy::news::TupleKey;
use crate::state::file;

const NOW: u64 = 1_800_000_000;
/// Long enough for any disk.
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<News>>>);

impl Told {
    fn sorted(&self) -> Vec<News> {
        let mut told = self.0.lock().unwrap().clone();
        told.sort_by_key(|news| format!("{news:?}"));
        told
    }
}

fn start(path: &Path, told: &Told) -> Keeper {
    let keeping = Keeping {
        path: path.into(),
        room: Room {
            tuples: 10_000_000,
            networks: 10_000,
        },
        lives: Lives::default(),
        prefix: ClientPrefix::default(),
    };
    let began = Instant::now();
    let wall = move || NOW * 1_000_000 + began.elapsed().as_micros() as u64;
    let told = told.clone();
    let deliver = move |news: Arc<[News]>| told.0.lock().unwrap().extend_from_slice(&news);
    Keeper::start(keeping, Box::new(wall), Box::new(deliver)).unwrap()
}

/// A disk that hangs must not cost all memory there is.
#[test]
fn what_waits_for_a_thread_that_is_stuck_is_bounded() {
    let place = tempfile::tempdir().unwrap();
    let keeping = Keeping {
        path: place.path().join("state"),
        room: Room {
            tuples: 10_000_000,
            networks: 10_000,
        },
        lives: Lives::default(),
        prefix: ClientPrefix::default(),
    };
    let stuck = Arc::new(Mutex::new(()));
    let (held, waits_for) = (stuck.lock().unwrap(), Arc::clone(&stuck));
    let wall = move || {
        drop(waits_for.lock().unwrap());
        NOW * 1_000_000
    };
    let keeper = Keeper::start(keeping, Box::new(wall), Box::new(drop)).unwrap();
    let letter: Arc<[News]> = tuples(0..65_536).into();
    for _ in 0..WAITING_MAX / 65_536 + 3 {
        keeper.keep(Arc::clone(&letter));
    }
    assert_eq!(keeper.readings().dropped, 3 * 65_536);
    drop(held);
    keeper.finish();
    keeper.keep(letter);
    assert_eq!(
        keeper.readings().dropped,
        4 * 65_536,
        "it waits for nobody any more"
    );
}

fn wait_until(keeper: &Keeper, what: &str, met: impl Fn(Readings) -> bool) {
    let began = Instant::now();
    while !met(keeper.readings()) {
        assert!(began.elapsed() < LONG, "{what}: {:?}", keeper.readings());
        thread::sleep(Duration::from_millis(5));
    }
}

fn tuples(numbers: std::ops::Range<u64>) -> Vec<News> {
    let tuple = |number| News::Tuple {
        key: TupleKey(number),
        first: NOW as Seconds - 10,
    };
    numbers.map(tuple).collect()
}

fn sorted(mut news: Vec<News>) -> Vec<News> {
    news.sort_by_key(|news| format!("{news:?}"));
    news
}

#[test]
fn what_was_learnt_is_told_at_the_next_start() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("state");
    let keeper = start(&path, &Told::default());
    keeper.keep(tuples(0..1000).into());
    keeper.finish();
    let told = Told::default();
    let keeper = start(&path, &told);
    wait_until(&keeper, "read", |readings| readings.is_loaded);
    assert_eq!(told.sorted(), sorted(tuples(0..1000)));
    keeper.keep(tuples(1000..1001).into());
    wait_until(&keeper, "written", |readings| readings.tuples == 1001);
    assert_eq!(keeper.readings().loaded, 1000);
    keeper.finish();
}

#[test]
fn an_unfit_file_is_put_aside_and_a_new_one_begun() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("state");
    fs::write(&path, "not a database, by far. ".repeat(500)).unwrap();
    let keeper = start(&path, &Told::default());
    keeper.keep(tuples(0..10).into());
    wait_until(&keeper, "written", |readings| readings.tuples == 10);
    assert_eq!(keeper.readings().set_aside, 1);
    assert!(!keeper.readings().is_failing);
    keeper.finish();
    assert!(
        fs::read_to_string(aside(&path))
            .unwrap()
            .starts_with("not a")
    );
}

/// A restart where the old process takes its time: the new one waits, and forgets nothing.
#[test]
fn a_file_in_use_is_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("state");
    let lives = Lives::default();
    let room = Room {
        tuples: 100,
        networks: 100,
    };
    let other = file::File::open(&path, room, lives).unwrap();
    let keeper = start(&path, &Told::default());
    keeper.keep(tuples(0..10).into());
    wait_until(&keeper, "told", |readings| readings.is_failing);
    assert_eq!(keeper.readings().set_aside, 0);
    drop(other);
    wait_until(&keeper, "written", |readings| readings.tuples == 10);
    assert!(!keeper.readings().is_failing);
    keeper.finish();
}

#[test]
fn a_place_that_is_no_place_is_told_and_tried_again() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("later").join("state");
    let keeper = start(&path, &Told::default());
    keeper.keep(tuples(0..10).into());
    wait_until(&keeper, "told", |readings| readings.is_failing);
    fs::create_dir(path.parent().unwrap()).unwrap();
    wait_until(&keeper, "written", |readings| readings.tuples == 10);
    keeper.finish();
}

/// Letters that nobody reads are not sent on and on; what nobody lets go of is given up in the end.
#[test]
fn few_letters_are_under_way() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("state");
    let keeper = start(&path, &Told::default());
    keeper.keep(tuples(0..10_000).into());
    keeper.finish();
    let held = Arc::new(Mutex::new(Vec::new()));
    let keeper = {
        let held = Arc::clone(&held);
        let keeping = Keeping {
            path,
            room: Room {
                tuples: 10_000,
                networks: 10_000,
            },
            lives: Lives::default(),
            prefix: ClientPrefix::default(),
        };
        let deliver = move |news: Arc<[News]>| held.lock().unwrap().push(news);
        let wall = || NOW * 1_000_000;
        Keeper::start(keeping, Box::new(wall), Box::new(deliver)).unwrap()
    };
    wait_until(&keeper, "first letters", |readings| readings.loaded > 0);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(held.lock().unwrap().len(), UNDER_WAY);
    held.lock().unwrap().drain(..2);
    let began = Instant::now();
    while held.lock().unwrap().len() < UNDER_WAY {
        assert!(began.elapsed() < LONG);
        thread::sleep(Duration::from_millis(1));
    }
    assert!(!keeper.readings().is_loaded);
    keeper.finish();
}

#[test]
fn a_file_of_other_networks_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let room = Room {
        tuples: 10,
        networks: 10,
    };
    let prefix = |v4, v6| ClientPrefix::new(v4, v6).unwrap();
    let look = |wanted| {
        let file = file::File::open(&path, room, Lives::default()).unwrap();
        file.look_at_prefix(wanted)
    };
    look(prefix(24, 64)).unwrap();
    look(prefix(24, 64)).unwrap();
    let Err(Trouble::Unfit(why)) = look(prefix(16, 64)) else {
        panic!("it is another");
    };
    assert_eq!(
        why,
        "its networks are those of --network-prefix 24/64, not 16/64"
    );
    look(prefix(24, 64)).unwrap();
}
