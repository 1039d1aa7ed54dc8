//! The real binary against a sink of its own: whole runs, and what becomes of a run that is disturbed.
//!
//! Nothing here asserts a speed. Every process is ended by its own pid, every run has an end.

use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use weir_bench::outcome::{Outcome, Results};
use weir_bench::{proc, sink};

/// A sink in this process, and the flags that lead to it.
struct Sink {
    handle: sink::Handle,
}

impl Sink {
    fn start() -> Sink {
        let handle = sink::start(&sink::Config::default()).expect("the sink starts");
        Sink { handle }
    }

    fn target(&self) -> SocketAddr {
        self.handle.smtp[0]
    }

    fn source(&self, flags: &[&str]) -> Command {
        self.source_with_ledger(self.handle.control, flags)
    }

    /// The same, but somebody else is asked what arrived.
    fn source_with_ledger(&self, ledger: SocketAddr, flags: &[&str]) -> Command {
        let (target, ledger) = (self.target().to_string(), ledger.to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-bench"));
        command
            .args(["source", &target, "--ledger", &ledger, "--quiet"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("the run was not killed")
}

/// A file for results that goes away with the test.
struct File(tempfile::TempDir);

impl File {
    fn new() -> File {
        File(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> String {
        self.0.path().join("run.json").display().to_string()
    }

    fn outcome(&self) -> Outcome {
        let text = std::fs::read_to_string(self.path()).expect("results were written");
        let mut results: Results = serde_json::from_str(&text).expect("they are results");
        assert_eq!(
            (results.format.as_str(), results.runs.len()),
            (Results::FORMAT, 1)
        );
        results.runs.remove(0)
    }
}

/// The workers of a run, once there are so many.
fn workers(run: &Child, count: usize) -> Vec<u32> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let family = proc::family(run.id());
        if family.len() > count {
            return family[1..].to_vec();
        }
        assert!(
            Instant::now() < end,
            "the run has started {} workers of {count}",
            family.len() - 1
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(sent.expect("kill is there").success(), "{name} for {pid}");
}

#[test]
fn what_several_processes_sent_arrives_and_adds_up() {
    let (sink, file) = (Sink::start(), File::new());
    let flags = [
        "--sessions",
        "10",
        "--for",
        "1s",
        "--processes",
        "3",
        "--name",
        "direct",
        "--json",
        &file.path(),
        "--fail-if",
        "lost>0",
    ];
    let done = sink.source(&flags).output().unwrap();
    assert_eq!(
        code(&done),
        0,
        "{}{}",
        text(&done.stdout),
        text(&done.stderr)
    );
    let outcome = file.outcome();
    let integrity = outcome.integrity.expect("the sink was asked");
    assert!(integrity.is_clean(), "{integrity:?}");
    assert!(integrity.arrived > 0);
    assert_eq!(integrity.arrived, outcome.streams[0].counts.accepted);
    assert!(
        text(&done.stdout).contains("msg/s"),
        "{}",
        text(&done.stdout)
    );
}

#[test]
fn a_report_is_written_on_demand() {
    let (sink, folder) = (Sink::start(), tempfile::tempdir().unwrap());
    let into = folder.path().display().to_string();
    let flags = [
        "--rate", "20/s", "--for", "1s", "--name", "direct", "--into", &into,
    ];
    let done = sink.source(&flags).output().unwrap();
    assert_eq!(code(&done), 0, "{}", text(&done.stderr));
    for file in ["direct.json", "direct.html"] {
        assert!(
            folder.path().join(file).exists(),
            "{file}: {}",
            text(&done.stdout)
        );
    }
}

#[test]
fn a_worker_killed_in_mid_run_fails_it() {
    let (sink, file) = (Sink::start(), File::new());
    let flags = [
        "--rate",
        "50/s",
        "--for",
        "60s",
        "--processes",
        "2",
        "--json",
        &file.path(),
    ];
    let run = sink.source(&flags).spawn().unwrap();
    let workers = workers(&run, 2);
    std::thread::sleep(Duration::from_millis(300));
    signal(workers[1], "KILL");
    let done = run.wait_with_output().unwrap();
    assert_eq!(code(&done), 69);
    let told = text(&done.stderr);
    assert!(
        told.contains("worker") && told.contains("signal: 9"),
        "{told}"
    );
    assert!(
        !text(&done.stdout).contains("accepted"),
        "a result was printed: {}",
        text(&done.stdout)
    );
    assert!(
        !std::path::Path::new(&file.path()).exists(),
        "a result was written"
    );
    let end = Instant::now() + Duration::from_secs(10);
    while workers.iter().any(|pid| proc::rss(*pid).is_ok()) {
        assert!(Instant::now() < end, "a worker outlives its run");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupted_run_reports_what_it_has_seen() {
    for name in ["INT", "TERM"] {
        let (sink, file) = (Sink::start(), File::new());
        let began = Instant::now();
        let flags = ["--rate", "50/s", "--for", "60s", "--json", &file.path()];
        let run = sink.source(&flags).spawn().unwrap();
        workers(&run, 1);
        std::thread::sleep(Duration::from_millis(1500));
        signal(run.id(), name);
        let done = run.wait_with_output().unwrap();
        assert_eq!(code(&done), 130, "{}", text(&done.stderr));
        assert!(began.elapsed() < Duration::from_secs(30), "it went on");
        let outcome = file.outcome();
        assert!(outcome.streams[0].counts.accepted > 0);
        assert!(
            outcome.plan.lasts < Duration::from_secs(30),
            "rates would be those of a minute"
        );
        assert!(outcome.integrity.expect("the sink was asked").is_clean());
        assert!(
            outcome
                .machine
                .warnings
                .iter()
                .any(|warning| warning.contains("ended early"))
        );
    }
}

#[test]
fn workers_do_not_outlive_their_parent() {
    let sink = Sink::start();
    let mut run = sink
        .source(&["--rate", "50/s", "--for", "60s"])
        .spawn()
        .unwrap();
    let workers = workers(&run, 1);
    signal(run.id(), "KILL");
    run.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while proc::rss(workers[0]).is_ok() {
        assert!(Instant::now() < end, "worker {} is still there", workers[0]);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_broken_threshold_and_bad_usage_have_codes_of_their_own() {
    let sink = Sink::start();
    let short = ["--rate", "20/s", "--for", "1s"];
    for (flags, expected, words) in [
        (vec!["--fail-if", "p50>1us"], 1, "BROKEN  p50>1us"),
        (
            vec!["--fail-if", "p50>50s", "--fail-if", "lost>0"],
            0,
            "kept    lost>0",
        ),
        (vec!["--fail-if", "p50>1"], 64, "--fail-if 'p50>1'"),
        (vec!["--sizes", "4k"], 64, "--sizes"),
        (vec!["--watch", "4000000000"], 69, "4000000000"),
    ] {
        let done = sink.source(&short).args(&flags).output().unwrap();
        let told = text(&done.stdout) + &text(&done.stderr);
        assert_eq!(code(&done), expected, "{flags:?}: {told}");
        assert!(told.contains(words), "{words} is missing in {told}");
    }
}

#[test]
fn a_sink_that_does_not_answer_fails_the_run() {
    let sink = Sink::start();
    // A port that was just free.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let short = ["--rate", "20/s", "--for", "1s"];
    let done = sink.source_with_ledger(nobody, &short).output().unwrap();
    assert_eq!(code(&done), 69);
    assert!(
        text(&done.stderr).contains(&nobody.to_string()),
        "{}",
        text(&done.stderr)
    );
}

#[test]
fn held_clients_are_counted_and_charged() {
    let (sink, file) = (Sink::start(), File::new());
    let me = std::process::id().to_string();
    let done = Command::new(env!("CARGO_BIN_EXE_weir-bench"))
        .args([
            "hold",
            &sink.target().to_string(),
            "--connections",
            "200",
            "--opening",
            "1000/s",
            "--for",
            "4s",
            "--watch",
            &me,
            "--json",
            &file.path(),
            "--quiet",
        ])
        .output()
        .unwrap();
    assert_eq!(code(&done), 0, "{}", text(&done.stderr));
    let told = text(&done.stdout);
    assert!(
        told.contains("200 alive at the end") && told.contains("octets of RSS"),
        "{told}"
    );
    assert!(file.outcome().samples.len() > 8);
}

/// It panicked, and left no results: the summary was printed first, and by `print!`.
#[test]
fn results_are_written_though_nobody_reads_the_summary() {
    let (sink, file) = (Sink::start(), File::new());
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let done = sink
        .source(&["--rate", "20/s", "--for", "1s", "--json", &file.path()])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(code(&done), 69, "{}", text(&done.stderr));
    assert!(
        text(&done.stderr).contains("cannot print"),
        "{}",
        text(&done.stderr)
    );
    assert!(file.outcome().streams[0].counts.accepted > 0);
}

/// A sink that is there and does not answer kept the run for a minute, whatever was pressed.
#[test]
fn a_sink_that_hangs_does_not_hold_the_operator() {
    let sink = Sink::start();
    // takes connections by its backlog, and never answers
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let began = Instant::now();
    let ledger = mute.local_addr().unwrap();
    let short = ["--rate", "20/s", "--for", "1s"];
    let run = sink.source_with_ledger(ledger, &short).spawn().unwrap();
    let _asked = mute.accept().unwrap();
    signal(run.id(), "INT");
    let done = run.wait_with_output().unwrap();
    assert_eq!(code(&done), 69);
    assert!(
        text(&done.stderr).contains("interrupted"),
        "{}",
        text(&done.stderr)
    );
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );
}

/// Mail was loaded when the plan's clock ran already, in each process for itself: seconds late where there was much of it.
#[test]
fn a_worker_is_ready_when_its_mail_is() {
    let (sink, file) = (Sink::start(), File::new());
    let done = sink
        .source(&["--rate", "20/s", "--for", "1s", "--json", &file.path()])
        .output()
        .unwrap();
    assert_eq!(code(&done), 0, "{}", text(&done.stderr));
    let mut plan = file.outcome().plan;
    plan.streams[0].bodies = weir_bench::plan::Bodies::Files {
        from: "/nowhere/mail".into(),
    };
    let mut worker = Command::new(env!("CARGO_BIN_EXE_weir-bench"))
        .arg("worker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let line = serde_json::to_string(&plan).unwrap() + "\n";
    let mut input = worker.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, line.as_bytes()).unwrap();
    let done = worker.wait_with_output().unwrap();
    assert_eq!(text(&done.stdout), "", "it said that it is ready");
    assert!(
        text(&done.stderr).contains("/nowhere/mail"),
        "{}",
        text(&done.stderr)
    );
}
