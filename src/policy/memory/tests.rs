//! Stories of networks, told to one memory and passed on to another.

use weir_smtp::path;

use super::*;
use crate::policy::greylist::When;

fn config() -> Config {
    Config {
        on: true,
        greylist: greylist::Config {
            when: When::All,
            ..greylist::Config::default()
        },
        ..Config::default()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn tried(memory: &mut Memory, client: &str, now: Seconds) -> Option<Try> {
    let sender = path::parse(b"<a@x.example>").expect("a path").0;
    let recipient = path::parse(b"<b@y.example>").expect("a path").0;
    memory.tried(ip(client), &sender, &recipient, now)
}

fn pass_on(from: &mut Memory, to: &mut Memory, now: Seconds) {
    from.take_news().iter().for_each(|news| to.learn(news, now));
}

#[test]
fn a_network_that_came_back_is_proven_on_all_shards_for_as_long_as_it_sends() {
    let (mut here, mut there) = (Memory::new(config()), Memory::new(config()));
    let day = 86_400;
    assert_eq!(tried(&mut here, "192.0.2.1", 1000), Some(Try::First));
    pass_on(&mut here, &mut there, 1001);
    // A pool: it comes back from another address, to another shard.
    assert_eq!(tried(&mut there, "192.0.2.77", 1300), Some(Try::Passed));
    pass_on(&mut there, &mut here, 1301);
    assert_eq!(tried(&mut here, "192.0.2.200", 1302), None);
    assert!(there.take_news().is_empty(), "what was learnt is no news");
    // Each month a message, and it is never asked again.
    for month in 1..6 {
        let now = 1302 + month * 30 * day;
        assert_eq!(tried(&mut here, "192.0.2.3", now), None, "month {month}");
        pass_on(&mut here, &mut there, now + 1);
        assert!(there.known(ip("192.0.2.9"), now + 1).proven_until > now + 35 * day);
    }
    let late = 1302 + (150 + 37) * day;
    assert_eq!(tried(&mut here, "192.0.2.3", late), Some(Try::First));
    assert_eq!(tried(&mut here, "192.0.3.1", late), Some(Try::First));
    // Busy ones are not news with each message.
    assert_eq!(tried(&mut here, "192.0.3.1", late + 300), Some(Try::Passed));
    here.take_news();
    for second in 0..1000 {
        assert_eq!(tried(&mut here, "192.0.3.1", late + 301 + second), None);
    }
    assert_eq!(here.take_news(), []);
}

#[test]
fn deeds_of_a_second_are_one_piece_of_news_and_count_for_network_and_provider() {
    let (mut here, mut there) = (Memory::new(config()), Memory::new(config()));
    for host in 0..200 {
        let client = format!("198.51.100.{host}");
        here.did(ip(&client), 64500, Deed::UnknownRecipient, 1000);
    }
    here.did(ip("198.51.100.1"), 0, Deed::Accepted, 1000);
    let news = here.take_news();
    let counts = [1, 0, 200, 0, 0, 0];
    let network = here.network_of(ip("198.51.100.0"));
    let want = News::Deeds {
        network,
        asn: 64500,
        at: 1000,
        counts,
    };
    assert_eq!(news, [want]);
    there.learn(&want, 1001);
    for memory in [&here, &there] {
        let known = memory.known(ip("198.51.100.255"), 1001);
        assert_eq!((known.asn, known.history, known.provider), (64500, 3, 2));
        assert_eq!(memory.provider_points(64500, 1001), 2);
        assert_eq!(memory.known(ip("198.51.101.1"), 1001), Known::default());
    }
    here.did(ip("198.51.100.1"), 0, Deed::Refused, 1002);
    assert_eq!(here.take_news().len(), 1, "taken news are told anew");
}

#[test]
fn a_spamtrap_is_held_against_the_network_for_its_time() {
    let mut memory = Memory::new(config());
    assert_eq!(memory.trap(ip("2001:db8::1"), 0, 1000), 87_400);
    let known = |memory: &Memory, now| memory.known(ip("2001:db8::ffff"), now);
    assert_eq!(known(&memory, 87_399).trapped_until, 87_400);
    assert_eq!(known(&memory, 87_400).trapped_until, 0);
    assert_eq!(known(&memory, 1001).history, 3);
    let mut other = Memory::new(config());
    pass_on(&mut memory, &mut other, 1001);
    assert_eq!(known(&other, 1001).trapped_until, 87_400);
}

#[test]
fn wrong_clocks_do_little_harm() {
    let mut memory = Memory::new(config());
    let network = memory.network_of(ip("192.0.2.1"));
    let far = u32::MAX;
    for news in [
        News::Proven {
            network,
            until: far,
        },
        News::Trapped {
            network,
            until: far,
        },
        News::Deeds {
            network,
            asn: 1,
            at: far,
            counts: [1; Deed::COUNT],
        },
    ] {
        memory.learn(&news, 1000);
    }
    let known = memory.known(ip("192.0.2.1"), 1000);
    assert_eq!(known.proven_until, 1000 + 36 * 86_400);
    assert_eq!(known.trapped_until, 1000 + 86_400);
    // What is over is not learnt at all.
    let network = memory.network_of(ip("192.0.9.1"));
    memory.learn(
        &News::Proven {
            network,
            until: 999,
        },
        1000,
    );
    assert_eq!(memory.networks().len(), 1);
    // The clock goes back: nobody is asked who was proven, nothing overflows.
    assert_eq!(tried(&mut memory, "192.0.2.1", 5), None);
    memory.did(ip("192.0.2.1"), 0, Deed::Refused, 5);
    memory.sweep(5);
}

#[test]
fn what_nobody_takes_is_bounded_and_counted() {
    let mut memory = Memory::new(config());
    for number in 0..NEWS_MAX as u32 + 10 {
        let client = IpAddr::from((0x0a00_0000 + number * 256).to_be_bytes());
        memory.did(client, 0, Deed::HangUp, 1000);
    }
    assert_eq!(memory.take_news().len(), NEWS_MAX);
    assert_eq!(memory.news_dropped(), 10);
    assert_eq!(memory.networks().len(), NEWS_MAX + 10, "it knows itself");
}

#[test]
fn memory_that_is_off_remembers_nothing() {
    let mut memory = Memory::new(Config {
        on: false,
        ..config()
    });
    memory.did(ip("192.0.2.1"), 0, Deed::Refused, 1000);
    assert_eq!(memory.trap(ip("192.0.2.1"), 0, 1000), 0);
    assert_eq!(tried(&mut memory, "192.0.2.1", 1000), None);
    assert_eq!(memory.known(ip("192.0.2.1"), 1000), Known::default());
    assert!(memory.take_news().is_empty() && memory.networks().is_empty());
}
