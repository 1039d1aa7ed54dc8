//! What other shards have learnt: taken in a part at a time, and clients served in between.

use crate::policy::memory;
use crate::policy::news::{News, TupleKey};

use super::*;

fn remembering() -> WorldConfig {
    let policy = crate::policy::Config {
        memory: memory::Config {
            on: true,
            ..Default::default()
        },
        ..(*settings().policy).clone()
    };
    WorldConfig {
        policy: Arc::new(policy),
        ..settings()
    }
}

#[test]
fn a_long_letter_is_read_between_the_clients_turns() {
    let mut stage = Stage::new(remembering(), 1, 1);
    let now = stage.world.wall();
    let tuple = |key| News::Tuple {
        key: TupleKey(key),
        first: now,
    };
    let letter: Arc<[News]> = (0..10_000).map(tuple).collect();
    let moment = stage.world.now;
    stage.world.handle_mail(moment, Mail::News(letter.clone()));
    stage.world.tick(moment);
    assert!(stage.world.counters.news_learnt.value() < 1000);
    assert_eq!(stage.world.next_deadline(), moment, "there is more to read");
    let client = stage.client();
    assert_eq!(stage.code(client), "220");
    stage.settle();
    while stage.world.next_deadline() == moment {
        stage.world.tick(moment);
    }
    assert_eq!(stage.world.counters.news_learnt.value(), 10_000);
    assert_eq!(stage.world.memory.waits(TupleKey(9_999), now), Some(now));
    assert_eq!(Arc::strong_count(&letter), 1);
    assert!(
        stage.world.take_news().is_empty(),
        "hearsay is not passed on"
    );
    stage.say(client, "QUIT\r\n");
    stage.assert_empty();
}
