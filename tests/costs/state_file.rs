//! Makes a state file of many entries, or tells how long one takes to be read.
//!
//! `cargo bench --bench state_file -- make PATH ENTRIES` writes so many: of every five, four greylisted tuples and one
//! network that has passed. `cargo bench --bench state_file -- read PATH` hands out what is in it as weir does at its
//! start, to somebody who lets go of it at once.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir::net::ClientPrefix;
use weir::policy::clients::ClientKey;
use weir::policy::news::{News, Seconds, TupleKey};
use weir::state::{Keeper, Keeping, Lives, Room};

fn main() {
    // cargo adds a word of its own.
    let words = std::env::args().skip(1).filter(|word| word != "--bench");
    let words: Vec<String> = words.collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", path, entries] => make(path.as_ref(), entries.parse().expect("a number")),
        ["read", path] => read(path.as_ref()),
        _ => println!("make PATH ENTRIES, or read PATH: nothing was asked for"),
    }
}

fn start(path: &Path) -> Keeper {
    let keeping = Keeping {
        path: path.into(),
        room: Room {
            tuples: u64::MAX,
            networks: u64::MAX,
        },
        lives: Lives::default(),
        prefix: ClientPrefix::new(24, 64).expect("within their ranges"),
    };
    let wall = || now().as_micros() as u64;
    Keeper::start(keeping, Box::new(wall), Box::new(drop)).expect("a thread")
}

fn make(path: &Path, entries: u64) {
    let now = now().as_secs() as Seconds;
    let keeper = start(path);
    let began = Instant::now();
    // Spread as SHA-256 and the world's networks are.
    let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let entry = |number: u64| match number % 5 {
        0 => News::Proven {
            network: ClientKey::from_bits(spread(number)),
            until: now + 86_400,
        },
        _ => News::Tuple {
            key: TupleKey(spread(number)),
            first: now,
        },
    };
    let numbers: Vec<u64> = (0..entries).collect();
    for part in numbers.chunks(100_000) {
        let news: Arc<[News]> = part.iter().map(|number| entry(*number)).collect();
        keeper.keep(news);
        let written = part.last().map_or(0, |last| last + 1);
        while keeper.readings().tuples + keeper.readings().networks < written {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    keeper.finish();
    let size = path.metadata().expect("it was written").len();
    println!("{entries} entries, {size} bytes, {:?}", began.elapsed());
}

fn read(path: &Path) {
    let began = Instant::now();
    let keeper = start(path);
    while !keeper.readings().is_loaded {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!(
        "{} things told in {:?}",
        keeper.readings().loaded,
        began.elapsed()
    );
    keeper.finish();
}

fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970")
}
