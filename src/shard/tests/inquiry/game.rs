//! Clients under random treatment: questions asked and answered whenever, replies that wait, everybody leaving in the middle.
//! Each command has one reply, in order, and nothing is left.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Move {
    Arrive,
    /// The client goes on with its dialogue, by one command or a group of them.
    Say(u8, u8),
    Ask(u8, i16),
    /// One of the open questions is answered.
    Answer(u8, Option<i16>),
    Sleep(u16),
    HangUp(u8),
    Reset(u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => Just(Move::Arrive),
        4 => (any::<u8>(), 0..6u8).prop_map(|(client, what)| Move::Say(client, what)),
        3 => (any::<u8>(), -6..9i16).prop_map(|(client, weight)| Move::Ask(client, weight)),
        4 => (any::<u8>(), prop::option::of(-6..9i16)).prop_map(|(which, weight)| Move::Answer(which, weight)),
        2 => (1..4000u16).prop_map(Move::Sleep),
        1 => any::<u8>().prop_map(Move::HangUp),
        1 => any::<u8>().prop_map(Move::Reset),
    ];
    prop::collection::vec(one, 1..60)
}

const LINES: [&str; 6] = [
    "EHLO c.example\r\n",
    "MAIL FROM:<a@c.example>\r\n",
    "RCPT TO:<b@d.example>\r\n",
    "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\nRCPT TO:<e@d.example>\r\nDATA\r\n",
    "RSET\r\n",
    "NOOP\r\nRCPT TO:<b@d.example>\r\nQUIT\r\n",
];

/// What is known of a client from outside.
struct Seen {
    slot: SlotId,
    said: usize,
    heard: usize,
    gone: bool,
}

impl Seen {
    /// Replies end with a line whose code has no dash behind it.
    fn listen(&mut self, stage: &mut Stage) {
        let heard = stage.heard(self.slot);
        let ends = |line: &&str| line.as_bytes().get(3) == Some(&b' ');
        self.heard += heard.lines().filter(ends).count();
    }
}

fn play(moves: Vec<Move>, drops: bool) {
    let on = [
        "score-defer=defer",
        "score-reject=reject",
        "score-delay=delay",
        "score-drop=drop",
        "junk=off",
        "errors-hard=off",
        "errors-soft=off",
    ];
    let mut steps = vec![
        (Finding::ScoreDelay, 2),
        (Finding::ScoreDefer, 4),
        (Finding::ScoreReject, 8),
    ];
    if drops {
        steps.push((Finding::ScoreDrop, 12));
    }
    let mut stage = open(asking(&on, &steps));
    // Mail servers answer nothing here: recipients that pass wait for one, and give up with their clients.
    let mut clients: Vec<Seen> = Vec::new();
    let mut asked: Vec<(Asker, u16)> = Vec::new();
    let mut zones = 0;
    for step in moves {
        let pick = |n: u8, len: usize| usize::from(n) % len.max(1);
        match step {
            Move::Arrive if clients.len() < 20 => {
                let slot = stage.client();
                clients.push(Seen {
                    slot,
                    said: 0,
                    heard: 0,
                    gone: false,
                });
            }
            Move::Say(n, what) if !clients.is_empty() => {
                let at = pick(n, clients.len());
                let client = &mut clients[at];
                if !client.gone && stage.closed(client.slot).is_none() {
                    let line = LINES[usize::from(what)];
                    client.said += line.lines().count();
                    stage.say(client.slot, line);
                }
            }
            Move::Ask(n, weight) => {
                let sessions: Vec<Key> = stage.world.sessions.iter().map(|(key, _)| key).collect();
                if sessions.is_empty() {
                    continue;
                }
                let session = sessions[pick(n, sessions.len())];
                if let Some(inquiry) = stage.world.inquiry_of(session) {
                    zones += 1;
                    let asker = ask_about(&mut stage, inquiry, zones, weight.min(0), weight.max(0));
                    asked.push((asker, zones));
                }
            }
            Move::Answer(n, weight) if !asked.is_empty() => {
                let at = pick(n, asked.len());
                let (asker, _) = asked.swap_remove(at);
                answer(&mut stage, asker, weight);
            }
            Move::Sleep(millis) => stage.sleep(Duration::from_millis(millis.into())),
            Move::HangUp(n) | Move::Reset(n) if !clients.is_empty() => {
                let at = pick(n, clients.len());
                let client = &mut clients[at];
                if !client.gone && stage.closed(client.slot).is_none() {
                    client.gone = true;
                    client.listen(&mut stage);
                    match step {
                        Move::HangUp(_) => stage.hang_up(client.slot),
                        _ => stage.reset(client.slot),
                    }
                }
            }
            _ => {}
        }
        for client in &mut clients {
            client.listen(&mut stage);
            // The greeting is nobody's reply, nor is the 421 of an end.
            assert!(
                client.heard <= client.said + 2,
                "more replies than commands"
            );
        }
    }
    for client in &clients {
        if stage.closed(client.slot).is_none() {
            stage.reset(client.slot);
        }
    }
    stage.sleep(Duration::from_secs(400));
    for (asker, _) in asked {
        answer(&mut stage, asker, Some(1));
    }
    stage.assert_empty();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_when_nothing_is_left(moves in moves(), drops in any::<bool>()) {
        play(moves, drops);
    }
}
