//! The manual names only flags that some command has, and every command of the binary is in it.

use std::collections::BTreeSet;
use std::process::Command;

const MANUAL: &str = include_str!("../README.md");

/// The flag of every program, and one of cargo's in the lines that build.
const FOREIGN: &[&str] = &["--help", "--release"];

fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-bench"))
        .args(words)
        .arg("--help")
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).expect("the help is UTF-8")
}

/// The first words of the lines under "Commands:".
fn commands(help: &str) -> Vec<&str> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    list.split("\n\n")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect()
}

fn flags(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| word.starts_with("--") && word.bytes().any(|b| b != b'-'))
        .collect()
}

#[test]
fn flags_and_commands_of_the_manual_exist() {
    let overview = help(&[]);
    let commands = commands(&overview);
    assert!(commands.contains(&"source"), "{overview}");
    let pages: Vec<String> = commands.iter().map(|command| help(&[command])).collect();
    let known: BTreeSet<&str> = pages.iter().flat_map(|page| flags(page)).collect();
    for flag in flags(MANUAL) {
        assert!(
            known.contains(flag) || FOREIGN.contains(&flag),
            "README.md names {flag}, which no command has"
        );
    }
    for command in commands {
        assert!(
            MANUAL.contains(&format!("`{command}")),
            "README.md says nothing of {command}"
        );
    }
}
