//! TLS on both sides at random: clients inside TLS send mail through a few pooled connections inside TLS. What is sent arrives in any
//! pieces, sockets clog, connections are cut anywhere, with close_notify and without. Every message that a client was told
//! is accepted lies at the server whole and once; none lies there in part, or twice.

mod peers;

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};

use self::peers::{Chance, Client, End, Server, Version};
use super::secure::with_tls;
use super::secure_leg::upstream;
use super::*;
use crate::net::ClientTls;
use crate::tls::UpstreamMode;
use crate::tls::testing::client_config;

const CLIENTS: usize = 4;
const MESSAGES: usize = 4;
/// Turns in which nothing moves, before time passes.
const PATIENCE: usize = 60;
const TURNS_MAX: usize = 100_000;

fn body(number: usize, chance: &mut Chance) -> Vec<u8> {
    let mut text = format!("Subject: {number}\r\n\r\n").into_bytes();
    let len = [200, 3000, 60_000][chance.below(3)];
    while text.len() < len {
        let line = match chance.below(4) {
            0 => "..\r\n".into(),
            1 => ".\r\n".into(),
            _ => format!("{}\r\n", "x".repeat(chance.below(900))),
        };
        text.extend(line.into_bytes());
    }
    text
}

/// Everything, and how often something may still be cut.
struct Lab {
    stage: Stage,
    chance: Chance,
    clients: Vec<Client>,
    servers: Vec<Server>,
    implicit: bool,
    version: Version,
    extensions: &'static str,
    cuts: usize,
    sent: HashMap<usize, Vec<u8>>,
    accepted: Vec<usize>,
    queue: Vec<Vec<u8>>,
}

impl Lab {
    fn new(seed: u64, cuts: usize) -> Lab {
        let mut chance = Chance(seed);
        let version = [&TLS13, &TLS12][chance.below(2)];
        let implicit = chance.one_in(2);
        let mut config = with_tls(ClientTls::May);
        // Some bodies stream, others are held.
        config.hold_max = 16 << 10;
        let mut stage = Stage::new(config, 0, 3);
        let spec = UpstreamSpec {
            name: "mx1.example:25".into(),
            weight: 1,
            max: 3,
            addresses: vec![server(1)],
            tls: Some(upstream(
                UpstreamMode::Verify,
                implicit,
                client_config(&[version]),
            )),
        };
        let mail = Mail::Upstreams(vec![spec].into());
        stage.world.handle_mail(stage.now, mail);
        stage.settle();
        let mut lab = Lab {
            stage,
            implicit,
            version,
            extensions: [
                "",
                "250-PIPELINING\r\n",
                "250-PIPELINING\r\n250-CHUNKING\r\n",
            ][chance.below(3)],
            chance,
            clients: Vec::new(),
            servers: Vec::new(),
            cuts,
            sent: HashMap::new(),
            accepted: Vec::new(),
            queue: Vec::new(),
        };
        for client in 0..CLIENTS {
            let numbers = (0..MESSAGES).map(|nth| client * MESSAGES + nth);
            let left: VecDeque<_> = numbers.map(|n| (n, body(n, &mut lab.chance))).collect();
            lab.sent.extend(left.iter().cloned());
            lab.clients.push(Client {
                end: End::new(SlotId(0)),
                due: VecDeque::new(),
                version,
                left,
            });
            lab.clients[client].connect(&mut lab.stage);
        }
        lab
    }

    fn run(&mut self) {
        let mut still = 0;
        for _ in 0..TURNS_MAX {
            self.meet();
            let ends = self.clients.len() + self.servers.len();
            if self.clients.is_empty() {
                return;
            }
            let moved = match self.chance.below(ends) {
                at if at < self.clients.len() => self.turn_client(at),
                at => self.turn_server(at - self.clients.len()),
            };
            still = if moved { 0 } else { still + 1 };
            if still > PATIENCE {
                self.stage.sleep(Duration::from_secs(1));
                still = 0;
            }
        }
        panic!("it comes to no end");
    }

    /// Connections that weir has opened.
    fn meet(&mut self) {
        for slot in self.stage.legs(1) {
            if !self.servers.iter().any(|server| server.end.slot == slot) {
                let server = Server::new(slot, self.implicit, self.version, self.extensions);
                self.servers.push(server);
            }
        }
    }

    fn may_cut(&mut self) -> bool {
        let cuts = self.cuts > 0 && self.chance.one_in(100);
        self.cuts -= usize::from(cuts);
        cuts
    }

    fn turn_client(&mut self, at: usize) -> bool {
        let cuts = self.may_cut();
        let client = &mut self.clients[at];
        let mut moved = client.end.turn(&mut self.stage, &mut self.chance);
        client.work(&mut self.chance, &mut self.accepted);
        if cuts && !client.end.gone {
            moved |= client.end.cut(&mut self.stage, &mut self.chance);
            // It does not know what became of the present one.
            client.left.pop_front();
        }
        if !client.end.gone {
            return moved;
        }
        if client.left.is_empty() {
            let mut client = self.clients.swap_remove(at);
            client.end.cut(&mut self.stage, &mut self.chance);
        } else {
            client.connect(&mut self.stage);
        }
        true
    }

    fn turn_server(&mut self, at: usize) -> bool {
        let cuts = self.may_cut();
        let server = &mut self.servers[at];
        if server.end.gone {
            return false;
        }
        let moved = server.end.turn(&mut self.stage, &mut self.chance);
        server.work(&mut self.queue);
        moved | (cuts && server.end.cut(&mut self.stage, &mut self.chance))
    }

    fn judge(&self) {
        let mut copies: HashMap<usize, usize> = HashMap::new();
        for message in &self.queue {
            let line = message.split(|octet| *octet == b'\r').next();
            let number = line.and_then(|line| str::from_utf8(line).ok()?[9..].parse().ok());
            let number = number.expect("a message begins with its number");
            assert!(
                self.sent[&number] == *message,
                "message {number} is not whole"
            );
            *copies.entry(number).or_default() += 1;
        }
        assert!(copies.values().all(|count| *count == 1), "{copies:?}");
        for number in &self.accepted {
            assert!(copies.contains_key(number), "message {number} is lost");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn accepted_mail_arrives_whole_and_once(seed: u64, cuts in 0usize..12) {
        let mut lab = Lab::new(seed, cuts);
        lab.run();
        lab.judge();
        if cuts == 0 {
            prop_assert_eq!(lab.accepted.len(), CLIENTS * MESSAGES);
        }
    }
}
