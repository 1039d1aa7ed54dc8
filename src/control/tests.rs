//! The control plane with a crew of closures in place of shards: pages, names, and what is mailed.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Mutex,
    time::Instant,
};

use super::*;
use crate::maillog::{self, Writer};
use crate::metrics::Outcome;
use crate::policy::clients::ClientKey;
use crate::policy::news::News;
use crate::policy::remembered::Remembered;
use crate::policy::{Action, Finding, Temper};
use crate::shard::explain::{Explanation, Found, Home, MarkWords, Would};
use crate::tls::Material;

/// A control plane that runs on a thread of its own, and what it mailed.
struct Bench {
    admin: SocketAddr,
    counters: Vec<Arc<Counters>>,
    mailed: Arc<Mutex<Vec<Mail>>>,
    /// By which shard others were told what.
    passed_on: Arc<Mutex<Vec<(usize, Mail)>>>,
    tell: mpsc::Sender<Told>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<ExitCode>>,
}

impl Bench {
    fn start() -> Self {
        Self::keeping(None)
    }

    fn keeping(keeping: Option<Keeping>) -> Self {
        let upstreams = vec![Target {
            name: "127.0.0.1:2526".into(),
            host: "127.0.0.1".into(),
            port: 2526,
            weight: 1,
            max: 7,
            tls: None,
        }];
        let config = Config {
            admin: Some(bind_admin("127.0.0.1:0".parse().unwrap()).unwrap()),
            upstreams,
            tls: Material::empty(),
            resolvers: Resolvers::named(Vec::new()),
            resolve_interval: Duration::ZERO,
            drain: Duration::from_secs(1),
            reload: Box::new(|| Err(vec!["not in this test".into()])),
            keeping,
            meeting: None,
            clock: Clock::start(),
            first: shard::Lists {
                access: Arc::default(),
                relay: Arc::default(),
                lore: Arc::default(),
            },
            about: About {
                hostname: "mx.example".into(),
                listen: vec!["127.0.0.1:2525".parse().unwrap()],
                mode: "multiplexed",
                lists: vec!["bl.example".into()],
            },
        };
        let (address, addressed) = std::sync::mpsc::channel();
        let counters = vec![Arc::new(Counters::default()), Arc::new(Counters::default())];
        let mailed: Arc<Mutex<Vec<Mail>>> = Arc::default();
        let passed_on: Arc<Mutex<Vec<(usize, Mail)>>> = Arc::default();
        let for_others = Arc::clone(&passed_on);
        let (tell, told) = mpsc::channel(8);
        let (end, ended) = oneshot::channel();
        let (for_mail, for_counters) = (Arc::clone(&mailed), counters.clone());
        let run = move || {
            let control = Control::open(config).unwrap();
            address.send(control.admin_address().unwrap()).unwrap();
            let mail = Arc::new(move |letter| {
                if let Mail::Explain(asked) = &letter {
                    (0..2).for_each(|shard| (asked.tell)(explanation(shard)));
                }
                for_mail.lock().unwrap().push(letter);
            });
            let to_others =
                Box::new(move |shard, letter| for_others.lock().unwrap().push((shard, letter)));
            let writer = Writer::start(
                maillog::Config {
                    file: Some("/dev/null".into()),
                    ..Default::default()
                },
                Instant::now(),
            )
            .unwrap();
            let code = control.run(
                Crew {
                    mail,
                    to_others,
                    told,
                    counters: for_counters,
                    ended,
                },
                writer.logs(),
            );
            writer.finish();
            code.unwrap()
        };
        let thread = Some(std::thread::spawn(run));
        Self {
            admin: addressed.recv().unwrap(),
            counters,
            mailed,
            passed_on,
            tell,
            end: Some(end),
            thread,
        }
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n"
        ))
    }

    fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    fn finish(mut self) -> ExitCode {
        self.end.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn the_pages_tell_what_the_counters_say() {
    let bench = Bench::start();
    assert_eq!(bench.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(
        bench.get("/readyz"),
        (503, "not ready: no upstream is up\n".into())
    );
    bench.counters[1].upstream_up.at(0).set(1);
    bench.counters[0].upstream_unheard.set(1);
    assert_eq!(
        bench.get("/readyz"),
        (503, "not ready: the first probes are under way\n".into())
    );
    bench.counters[0].upstream_up.at(0).set(1);
    bench.counters[0].upstream_unheard.set(0);
    assert_eq!(bench.get("/readyz").0, 200);

    bench.counters[0].messages.at(Outcome::Accepted).add(5);
    bench.counters[1].messages.at(Outcome::Accepted).add(2);
    bench.counters[1]
        .findings
        .at(
            crate::policy::Finding::Pregreet as usize,
            crate::policy::Action::Log as usize,
        )
        .inc();
    let (code, metrics) = bench.get("/metrics");
    assert_eq!(code, 200);
    for line in [
        "weir_messages_total{outcome=\"accepted\"} 7",
        "weir_upstream_up_shards{upstream=\"127.0.0.1:2526\"} 2",
        "weir_findings_total{finding=\"pregreet\",action=\"log\"} 1",
        "# TYPE process_resident_memory_bytes gauge",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in\n{metrics}");
    }

    let (code, status) = bench.get("/status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (code, &status["state"], &status["ready"]),
        (200, &"running".into(), &true.into())
    );
    assert_eq!(
        (&status["totals"]["messages_accepted"], &status["hostname"]),
        (&7.into(), &"mx.example".into())
    );
    assert_eq!(
        (
            &status["upstreams"][0]["addresses"][0],
            &status["upstreams"][0]["max"]
        ),
        (&"127.0.0.1:2526".into(), &7.into())
    );
    assert_eq!(status["shards"].as_array().unwrap().len(), 2);
    bench.finish();
}

/// Of an address that belongs to shard 1, and has left traces on both.
fn explanation(shard: usize) -> Explanation {
    let mark = MarkWords {
        finding: Finding::Dnsbl,
        weight: 4,
        detail: "bl.example".into(),
        action: Action::Reject,
        holds: Some(Duration::from_secs(90)),
    };
    let home = || Home {
        reputation: true,
        found: Found {
            score: 4,
            marks: vec![mark],
        },
        would: Would {
            refuse: Some(("rcpt", Finding::Dnsbl, Action::Reject)),
            ..Would::default()
        },
        ..Home::default()
    };
    Explanation {
        shard,
        remembered: Some(Remembered {
            connections: shard as u32,
            known_for: Duration::ZERO,
            errors: 2,
            temper: Temper::Delayed,
            temper_for: Duration::from_secs(5),
            rates: Vec::new(),
        }),
        sessions: Vec::new(),
        home: (shard == 1).then(home),
    }
}

#[test]
fn what_the_shards_know_of_an_address_is_put_together() {
    let bench = Bench::start();
    let (code, page) = bench.get("/status/client/::ffff:192.0.2.1");
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!((code, &page["address"]), (200, &"192.0.2.1".into()));
    assert_eq!(
        (&page["complete"], &page["score"]),
        (&true.into(), &4.into())
    );
    let mark = &page["marks"][0];
    assert_eq!(
        (
            &mark["finding"],
            &mark["detail"],
            &mark["check"],
            &mark["seconds"]
        ),
        (
            &"dnsbl".into(),
            &"bl.example".into(),
            &"dns list".into(),
            &90.into()
        )
    );
    assert_eq!(page["would"]["refuse_at"], "rcpt");
    assert_eq!(page["shards"][1]["connections"], 1);
    assert_eq!(bench.get("/status/client/mx.example").0, 400);
    assert_eq!(bench.get("/status/client/").0, 400);
    bench.finish();
}

#[test]
fn every_key_of_the_status_is_in_the_manual() {
    let bench = Bench::start();
    let status: serde_json::Value = serde_json::from_str(&bench.get("/status").1).unwrap();
    bench.finish();
    let manual = include_str!("../../docs/OPERATING.md");
    let chapter = manual.split("## The status page").nth(1).unwrap();
    let parts = [
        &status,
        &status["totals"],
        &status["shards"][0],
        &status["upstreams"][0],
        &status["lists"][0],
    ];
    for key in parts
        .iter()
        .flat_map(|part| part.as_object().unwrap().keys())
    {
        let written = [format!("`{key}`"), format!("`{key}[]`")];
        assert!(
            written.iter().any(|name| chapter.contains(name)),
            "docs/OPERATING.md does not explain {key}"
        );
    }
}

#[test]
fn only_reading_is_possible_and_unknown_pages_are_told() {
    let bench = Bench::start();
    assert_eq!(
        bench
            .ask(
                "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            .0,
        405
    );
    assert_eq!(
        bench.ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        (200, String::new())
    );
    assert_eq!(bench.get("/nothing").0, 404);
    assert_eq!(bench.ask("EHLO weir\r\n\r\n").0, 400);
    bench.finish();
}

#[test]
fn the_shards_get_the_table_of_upstreams_and_their_end_ends_control() {
    let bench = Bench::start();
    bench.get("/healthz");
    let mailed = Arc::clone(&bench.mailed);
    let code = bench.finish();
    assert_eq!(
        format!("{code:?}"),
        format!("{:?}", ExitCode::from(SOFTWARE)),
        "shards that end unasked are a defect"
    );
    let mailed = mailed.lock().unwrap();
    assert!(
        matches!(&mailed[..], [Mail::Upstreams(table)] if table.len() == 1 && table[0].addresses.len() == 1)
    );
}

/// What one shard learns the others are told, and all of them after the next start.
#[test]
fn what_a_shard_learns_goes_around_and_lasts() {
    let place = tempfile::tempdir().unwrap();
    let keeping = || {
        Some(Keeping {
            path: place.path().join("state"),
            room: crate::state::Room {
                tuples: 100,
                networks: 100,
            },
            lives: crate::state::Lives::default(),
            prefix: crate::net::ClientPrefix::default(),
        })
    };
    let news: Arc<[News]> = Arc::new([News::Proven {
        network: ClientKey::from_bits(7),
        until: u32::MAX,
    }]);
    let bench = Bench::keeping(keeping());
    let told = Told {
        shard: 1,
        news: Arc::clone(&news),
        spent: Vec::new(),
    };
    assert!(bench.tell.try_send(told).is_ok());
    let passed_on = Arc::clone(&bench.passed_on);
    wait_for(|| !passed_on.lock().unwrap().is_empty());
    bench.finish();
    let passed_on = passed_on.lock().unwrap();
    assert!(matches!(&passed_on[..], [(1, Mail::News(passed))] if *passed == news));

    let bench = Bench::keeping(keeping());
    let mailed = Arc::clone(&bench.mailed);
    wait_for(|| {
        mailed
            .lock()
            .unwrap()
            .iter()
            .any(|mail| matches!(mail, Mail::News(_)))
    });
    let (_, metrics) = bench.get("/metrics");
    assert!(
        metrics.contains("weir_state_entries{table=\"networks\"} 1"),
        "{metrics}"
    );
    bench.finish();
}

fn wait_for(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_admin_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind_admin(address).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("--admin {address}: ")),
        "{error}"
    );
}
