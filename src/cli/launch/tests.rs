//! What flags come to for the shards and for control, and what a reload reads again.

use std::fs;

use super::*;
use crate::cli::args::{Wanted, parse};
use crate::net::ClientTls;
use crate::policy::access::Listed;
use crate::tls::fixtures::{Folder, ecdsa};

fn read(words: &[&str]) -> (Flags, Config) {
    let (Some(Wanted::Run(flags)), wrong) = parse(words.iter().map(|w| (*w).to_owned())) else {
        panic!("{words:?}")
    };
    let config = Config::read(&flags, Purpose::Relay, "mx.example", wrong)
        .unwrap_or_else(|wrong| panic!("{wrong:?}"));
    (*flags, config)
}

fn here(open_files: u64) -> Circumstances {
    Circumstances {
        cores: vec![0, 1],
        open_files,
        addresses: Vec::new(),
        clock: Clock::start(),
    }
}

#[test]
fn a_shard_that_looks_for_events_does_not_gather() {
    let ring = |words: &[&str]| read(words).1.ring(2, 20_000);
    let asleep = ring(&["--demo"]);
    assert!(!asleep.shows_news && !asleep.gather.is_zero());
    let awake = ring(&["--demo", "--busy-wait", "50us"]);
    assert!(awake.shows_news && awake.gather.is_zero());
}

#[test]
fn each_listener_has_its_service_at_the_same_number_everywhere() {
    let folder = Folder::fresh();
    folder.pair("mx", &ecdsa(&["mx.example"]));
    let words = [
        "--tls-dir",
        folder.root().to_str().expect("a plain name"),
        "--listen-tls",
        "127.0.0.1:465",
        "--listen",
        "127.0.0.1:25,proxy",
        "--listen",
        "127.0.0.1:24,tls=off",
        "--trust",
        "192.0.2.0/24",
        "--upstream",
        "mx",
    ];
    let config = read(&words).1;
    let of_listeners: Vec<Service> = config.listeners().iter().map(|l| l.service).collect();
    let shards = config.shards_config([].into(), &here(4000));
    assert_eq!(of_listeners, *shards.world.services);
    let shown: Vec<_> = of_listeners.iter().map(|s| (s.tls, s.proxy)).collect();
    assert_eq!(
        shown,
        [
            (ClientTls::May, true),
            (ClientTls::Off, false),
            (ClientTls::Implicit, false)
        ]
    );
    assert!(shards.world.tls.is_some());
    let steered: Vec<_> = config.listeners().iter().map(|l| l.steer).collect();
    assert_eq!(steered, [Steer::Kernel, Steer::Client, Steer::Client]);
}

#[test]
fn limits_over_all_shards_are_divided_and_tables_fit_the_open_file_limit() {
    let words = [
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        "mx",
        "--pit-max",
        "1001",
        "--hold-memory",
        "64MiB",
        "--max-connections",
        "5000",
    ];
    let config = read(&words).1.shards_config([].into(), &here(4000));
    assert_eq!(
        (config.shards, config.world.pit.rows_max, config.ring.chunks),
        (2, 501, 2048)
    );
    assert_eq!(
        (
            config.ring.slots,
            config.ring.reserve,
            config.ring.completions
        ),
        (4000, 164, 4096)
    );
    let few = read(&words).1.shards_config([].into(), &here(100));
    assert_eq!((few.ring.slots, few.ring.reserve), (100, 50));
}

#[test]
fn lifted_limits_are_never_zero_durations() {
    let words = [
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        "mx",
        "--timeout-idle",
        "0",
        "--pool-age",
        "0",
        "--queue-wait",
        "0",
        "--pit-max",
        "0",
    ];
    let world = read(&words)
        .1
        .shards_config([].into(), &here(1 << 20))
        .world;
    assert_eq!(
        [world.smtp.timeouts.idle, world.leg.age_max, world.wait.time],
        [FOR_EVER; 3]
    );
    assert!(world.pit.rows_max > 100_000);
}

#[test]
fn a_reload_reads_the_lists_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (servers, denied) = (path("servers"), path("denied"));
    fs::write(&servers, "127.0.0.1:2526\n").unwrap();
    fs::write(&denied, "192.0.2.0/24\n").unwrap();
    let (flags, config) = read(&[
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        &format!("@{servers}"),
        "--deny-list",
        &denied,
    ]);
    let control = config.control_config(flags, Vec::new(), None, None, Clock::start());
    assert_eq!(control.upstreams.len(), 1);

    fs::write(&servers, "127.0.0.1:2526,max=3\n127.0.0.1:2527\n").unwrap();
    fs::write(&denied, "198.51.100.0/24\n").unwrap();
    let lists = (control.reload)().ok().unwrap();
    assert_eq!(
        lists
            .upstreams
            .iter()
            .map(|target| target.max)
            .collect::<Vec<_>>(),
        [3, 100]
    );
    assert_eq!(
        lists.access.lookup("198.51.100.1".parse().unwrap()),
        Some(Listed::Deny)
    );

    fs::write(&servers, "# all gone\n").unwrap();
    fs::write(&denied, "nonsense\n").unwrap();
    assert_eq!(
        (control.reload)().err().unwrap().len(),
        2,
        "both errors are told"
    );
}
