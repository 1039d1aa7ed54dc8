//! Crews of shell scripts: what workers may do wrong, and what becomes of it.

use super::*;
use crate::grammar::samples::plan;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

/// A report of one stream as a worker writes it.
fn report(accepted: u64) -> String {
    let mut stream = StreamOutcome::default();
    stream.counts.accepted = accepted;
    let report = SourceReport {
        streams: vec![stream],
        sent: Sent::default(),
    };
    serde_json::to_string(&FromWorker::Report(Box::new(report))).unwrap()
}

/// Runs a crew whose workers are this shell script; it has read its plan.
fn run_script(script: &str, processes: u32) -> Result<Outcome> {
    let options = CrewOptions {
        processes: Some(processes),
        quiet: true,
        ..CrewOptions::default()
    };
    run_script_with(script, &options)
}

fn run_script_with(script: &str, options: &CrewOptions) -> Result<Outcome> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker");
    // Written and closed by a process of its own: a file still open for writing in a child forked elsewhere cannot be executed.
    let mut writer = std::process::Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 700 \"$0\""])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("#!/bin/sh\nread plan\n{script}\n");
    writer
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(writer.wait().unwrap().success());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let somebody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let plan = Plan {
        target: somebody.local_addr().unwrap(),
        ..plan(&["good: sessions=4"])
    };
    run_program(&path, &plan, options)
}

#[test]
fn reports_of_all_workers_add_up() {
    let script = format!(
        "echo '\"ready\"'; read go; echo '{{\"second\":[]}}'; echo '{}'",
        report(5)
    );
    let outcome = run_script(&script, 3).unwrap();
    assert_eq!(outcome.streams[0].counts.accepted, 15);
    assert_eq!(
        (
            outcome.streams[0].name.as_str(),
            outcome.streams[0].profile.as_str()
        ),
        ("good", "per-message")
    );
    assert_eq!(outcome.integrity, None);
}

#[test]
fn a_worker_that_fails_fails_the_run_with_its_last_words() {
    let ready = "echo '\"ready\"'; read go";
    let good = report(1);
    for (script, words) in [
        (
            "echo the disk is gone >&2; exit 3".to_owned(),
            "the disk is gone",
        ),
        (
            format!("{ready}; echo no port left >&2; exit 1"),
            "no port left",
        ),
        (format!("{ready}; kill -9 $$"), "signal: 9"),
        (format!("{ready}; echo '{good}'; exit 1"), "has died"),
        (format!("{ready}; exit 0"), "without a report"),
        (
            format!("{ready}; echo hello; exec sleep 60"),
            "said nonsense: 'hello'",
        ),
        (
            format!("{ready}; echo '{{\"report\":{{\"streams\":[],\"sent\":'"),
            "said nonsense",
        ),
        (
            format!("{ready}; echo '{good}'; echo '{good}'"),
            "reported twice",
        ),
        (
            format!("{ready}; {ready}; exec sleep 60"),
            "ready a second time",
        ),
        (
            format!("echo '{good}'; exec sleep 60"),
            "before it was told to go",
        ),
    ] {
        let began = Instant::now();
        let error = run_script(&script, 2)
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default();
        assert!(
            error.contains(words),
            "'{words}' is missing in '{error}' of: {script}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{script} was waited for"
        );
    }
}

#[test]
fn a_report_of_other_streams_is_nonsense() {
    let none = serde_json::to_string(&FromWorker::Report(Box::new(SourceReport {
        streams: Vec::new(),
        sent: Sent::default(),
    })));
    let script = format!("echo '\"ready\"'; read go; echo '{}'", none.unwrap());
    assert!(
        run_script(&script, 1)
            .unwrap_err()
            .to_string()
            .contains("0 streams of 1")
    );
}

#[test]
fn one_bad_worker_is_not_outvoted() {
    let script = format!(
        "case \"$plan\" in *'\"process\":1'*) bad=1;; esac\necho '\"ready\"'; read go\n[ \"$bad\" ] && kill -9 $$\necho '{}'",
        report(5)
    );
    let error = run_script(&script, 3).unwrap_err().to_string();
    assert!(error.contains("worker 1 has died"), "{error}");
}

#[test]
fn a_process_that_cannot_be_watched_is_told_before_the_run() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let gone = child.id();
    child.wait().unwrap();
    let script = "echo '\"ready\"'; read go; exec sleep 60";
    let options = CrewOptions {
        watch: Some(gone),
        processes: Some(1),
        quiet: true,
        ..CrewOptions::default()
    };
    let error = run_script_with(script, &options).unwrap_err();
    assert!(
        format!("{error:#}").contains(&format!("process {gone}")),
        "{error:#}"
    );
}

#[test]
fn too_few_processes_are_refused() {
    let options = CrewOptions {
        processes: Some(1),
        quiet: true,
        ..CrewOptions::default()
    };
    let plan = plan(&["bots: profile=idle connections=9m"]);
    let error = run_program(Path::new("/bin/false"), &plan, &options).unwrap_err();
    assert!(error.to_string().contains("--processes"), "{error:#}");
}

#[test]
fn a_target_that_is_not_there_is_told_before_the_run() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let plan = Plan {
        target: nobody,
        ..plan(&["good: sessions=4"])
    };
    let options = CrewOptions {
        quiet: true,
        ..CrewOptions::default()
    };
    let error = run_program(Path::new("/bin/false"), &plan, &options).unwrap_err();
    assert!(
        format!("{error:#}").contains(&nobody.to_string()),
        "{error:#}"
    );
}
