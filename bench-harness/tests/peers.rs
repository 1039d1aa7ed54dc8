//! A short round through every peer that is installed: mail arrives whole, the table has a line for each. Speed is not judged.

use std::process::Command;

fn weir_bench(line: &str) -> (bool, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_weir-bench"))
        .args(line.split(' '))
        .output()
        .unwrap();
    let text = [done.stdout, done.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (done.status.success(), text)
}

const SHORT: &str = "--rounds 1 --for 300ms --sessions 4 --quiet";

#[test]
fn every_peer_carries_mail_or_says_why_not() {
    let peers = "--peers direct,haproxy,nginx-mail,nginx-stream,postfix";
    let (fine, text) = weir_bench(&format!("peers new-4k {peers} --sinks plain {SHORT}"));
    assert!(fine, "{text}");
    for peer in ["direct", "haproxy", "nginx-mail", "nginx-stream", "postfix"] {
        let line = text.lines().find(|line| line.starts_with(peer));
        let line = line.unwrap_or_else(|| panic!("no line of {peer}:\n{text}"));
        let told = line.contains("absent: ") || line.split_whitespace().count() > 4;
        assert!(told, "{line}");
    }
}

/// HAProxy ends TLS, tells who its client is, passes TLS on.
#[test]
fn mail_arrives_in_tls_behind_identities_and_through_tunnels() {
    let (fine, text) = weir_bench(&format!(
        "peers tls-new-4k dedicated-4k tunnel-1m --peers direct,haproxy --sinks plain {SHORT}"
    ));
    assert!(fine, "{text}");
    assert!(!text.contains("handshakes failed"), "{text}");
    let lines = text.lines().filter(|line| line.starts_with("haproxy"));
    assert_eq!(lines.count(), 3, "{text}");
}

#[test]
fn a_server_without_chunking_takes_no_part_in_bdat() {
    let (fine, text) = weir_bench(&format!(
        "peers bdat-4k --peers direct --sinks plain {SHORT}"
    ));
    assert!(fine, "{text}");
    assert!(text.contains("its EHLO reply offers no CHUNKING"), "{text}");
}

/// Whoever closed the pipe of a comparison lost its results: `println!` panicked.
#[test]
fn results_are_written_though_nobody_reads_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut full = std::fs::File::options();
    let full = full.write(true).open("/dev/full").unwrap();
    let line = format!("peers bdat-4k --peers direct --sinks plain {SHORT} --into");
    let done = Command::new(env!("CARGO_BIN_EXE_weir-bench"))
        .args(line.split(' '))
        .arg(folder.path())
        .stdout(full)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{told}");
    assert_eq!(told.matches("read by nobody").count(), 1, "{told}");
    assert!(folder.path().join("peers.json").exists());
}

#[test]
fn a_weir_that_is_not_there_is_named() {
    let (fine, text) = weir_bench("peers new-4k --peers weir --weir /nowhere/weir");
    assert!(!fine);
    assert!(text.contains("no weir at /nowhere/weir"), "{text}");
}
