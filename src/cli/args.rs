//! The command line as typed: subcommands, `WEIR_` environment variables, and `@file`s of flags.
//!
//! Nothing here means anything yet; `config.rs` reads the values. What clap itself refuses (an unknown flag, a missing value) is
//! collected and parsing goes on without it, so that it is reported together with the wrong values.

use std::{collections::BTreeSet, fs};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{
    flags::{Flags, upstreams::lines},
    reader::Wrong,
};

#[derive(Parser, Debug)]
#[command(
    name = "weir",
    bin_name = "weir",
    version,
    about = "An SMTP proxy: relays sessions live over a small pool of upstream connections, and keeps bad clients slow, cheap and outside.",
    long_about = None,
    args_override_self = true,
    subcommand_help_heading = "Commands",
    disable_help_subcommand = true,
    after_help = AFTER_HELP,
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

const AFTER_HELP: &str = "\
Every flag can also be set by environment (--pool-max by WEIR_POOL_MAX; several values separated by blanks) and from a file: \
weir @FILE, with one flag per line as on the command line, and # for comments. A file counts where it stands on the command \
line. Of a flag given twice the later counts; repeatable flags add up. The environment counts for flags given nowhere else; a WEIR_ \
variable that is no flag is warned of.

Signals: TERM and INT drain (a second one ends at once), HUP reopens the log and reads @FILE lists and access lists again.
Exit codes: 0 after a drain, 1 after a second signal, 64 for a wrong command line, 69 if something needed is not there, 70 for a defect.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Validate the flags and print the effective plan: mode, shards, limits, worst-case memory
    Check,
    /// Tell whether this host is fit: kernel, io_uring, limits, cores, and with --upstream the mail servers
    Doctor,
    /// Tell what a running weir knows of an address, and what it would do: weir explain ADDRESS --admin ADDR:PORT
    Explain {
        /// An IP address
        address: String,
    },
    /// Print a reference page
    #[command(hide = true)]
    Docs {
        #[arg(value_parser = ["flags", "metrics"])]
        page: String,
    },
}

/// What the user wants.
#[derive(Debug)]
pub enum Wanted {
    Run(Box<Flags>),
    Check(Box<Flags>),
    Doctor(Box<Flags>),
    /// Ask a running weir about an address; the flags say where its admin page is.
    Explain(String, Box<Flags>),
    /// Print a reference page and end.
    Page(Page),
    /// Help or version: print and end.
    Show(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Flags,
    Metrics,
}

/// Reads the command line, without the program's name. Wrong flags come beside what could be read, so that the values can
/// still be checked.
pub fn parse(args: impl IntoIterator<Item = String>) -> (Option<Wanted>, Vec<Wrong>) {
    let mut wrong = Vec::new();
    let mut args = expand(args.into_iter().collect(), 0, &mut wrong);
    loop {
        match command().try_get_matches_from(&args) {
            Ok(matches) => {
                let cli = Cli::from_arg_matches(&matches)
                    .expect("clap has matched what the struct declares");
                return (Some(wanted(cli)), wrong);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
                ) =>
            {
                return (Some(Wanted::Show(error.render().to_string())), wrong);
            }
            Err(error) => match drop_culprit(&mut args, &error) {
                Some(culprit) => wrong.push(culprit),
                None => {
                    wrong.push(plain(&error));
                    return (None, wrong);
                }
            },
        }
    }
}

/// The command as clap knows it, with everything that holds for all flags.
pub fn command() -> clap::Command {
    let everywhere = |arg: clap::Arg| {
        let long = arg.get_long().map(environment);
        let arg = if arg.is_positional() {
            arg
        } else {
            arg.global(true)
        };
        match long {
            Some(name) => arg.env(name).hide_env_values(true),
            None => arg,
        }
    };
    Cli::command().no_binary_name(true).mut_args(everywhere)
}

/// `--pool-max` to `WEIR_POOL_MAX`.
pub fn environment(long: &str) -> String {
    format!(
        "WEIR_{}",
        long.trim_start_matches("--")
            .replace('-', "_")
            .to_uppercase()
    )
}

/// Those of `names` that look like settings of weir's and are none: `WEIR_RELAY_DOMIANS` would be a relay rule that nobody obeys.
pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let command = command();
    let known: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|arg| arg.get_long().map(environment))
        .collect();
    let is_meant = |name: &String| name.starts_with("WEIR_") && !known.contains(name);
    names.into_iter().filter(is_meant).collect()
}

fn wanted(cli: Cli) -> Wanted {
    let flags = Box::new(cli.flags);
    match cli.command {
        None => Wanted::Run(flags),
        Some(Command::Check) => Wanted::Check(flags),
        Some(Command::Doctor) => Wanted::Doctor(flags),
        Some(Command::Explain { address }) => Wanted::Explain(address, flags),
        Some(Command::Docs { page }) if page == "flags" => Wanted::Page(Page::Flags),
        Some(Command::Docs { .. }) => Wanted::Page(Page::Metrics),
    }
}

/// Flags whose value may itself be `@FILE`, which is then a list and not a file of flags.
const LISTS: &[&str] = &[
    "--upstream",
    "--relay-domains",
    "--relay-from",
    "--resolver",
];

/// Files may include files this deep.
const DEPTH_MAX: usize = 8;

/// Puts the flags of `@FILE`s where these stand.
fn expand(args: Vec<String>, depth: usize, wrong: &mut Vec<Wrong>) -> Vec<String> {
    let mut expanded: Vec<String> = Vec::new();
    for arg in args {
        let is_value = expanded
            .last()
            .is_some_and(|last| LISTS.contains(&last.as_str()));
        let Some(path) = arg.strip_prefix('@').filter(|_| !is_value) else {
            expanded.push(arg);
            continue;
        };
        let fault = |why: String, remedy: &str| Wrong {
            flag: arg.clone(),
            value: String::new(),
            why,
            remedy: remedy.into(),
        };
        if depth == DEPTH_MAX {
            wrong.push(fault(
                "is included too deep".into(),
                "does a file include itself?",
            ));
            continue;
        }
        match fs::read_to_string(path) {
            Ok(text) => {
                let inside = words(&text, |line| {
                    wrong.push(fault(
                        format!("has the line {line:?}"),
                        "write one --flag VALUE, or @FILE, per line",
                    ))
                });
                expanded.extend(expand(inside, depth + 1, wrong));
            }
            Err(error) => wrong.push(fault(
                format!("cannot be read: {error}"),
                "name a readable file of flags",
            )),
        }
    }
    expanded
}

/// The arguments in a file of flags: `--flag`, `--flag=value`, `--flag value` (all to the end of the line), a value on the line
/// after its flag, `@file`.
fn words(text: &str, mut odd: impl FnMut(&str)) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for line in lines(text) {
        let wants_value = words
            .last()
            .is_some_and(|last| last.starts_with("--") && !last.contains('='));
        match line.split_once(char::is_whitespace) {
            _ if line.starts_with('@') => words.push(line.to_owned()),
            Some((flag, value)) if line.starts_with("--") && !flag.contains('=') => {
                words.extend([flag.to_owned(), value.trim().to_owned()])
            }
            _ if line.starts_with("--") || wants_value => words.push(line.to_owned()),
            _ => odd(line),
        }
    }
    words
}

/// Takes the argument out that clap stumbled over, so that parsing can go on, and says what was wrong with it.
fn drop_culprit(args: &mut Vec<String>, error: &clap::Error) -> Option<Wrong> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let blamed =
        context(ContextKind::InvalidArg).or_else(|| context(ContextKind::InvalidSubcommand))?;
    let name = blamed.split([' ', '=']).next()?.to_owned();
    let at = args
        .iter()
        .position(|arg| arg.split('=').next() == Some(&name))?;
    let (why, remedy) = match error.kind() {
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => {
            let close = context(ContextKind::SuggestedArg)
                .or_else(|| context(ContextKind::SuggestedSubcommand));
            (
                "is unknown",
                close.map_or("see weir --help".into(), |close| {
                    format!("did you mean {close}? See weir --help")
                }),
            )
        }
        ErrorKind::InvalidValue => ("has no value", format!("write {blamed}; see weir --help")),
        ErrorKind::TooManyValues => ("takes no value", format!("write {name} alone")),
        _ => return None,
    };
    let arg = args.remove(at);
    let takes_next =
        error.kind() == ErrorKind::UnknownArgument && arg.starts_with('-') && !arg.contains('=');
    if takes_next && args.get(at).is_some_and(|next| !next.starts_with('-')) {
        args.remove(at);
    }
    Some(Wrong {
        flag: name,
        value: String::new(),
        why: why.into(),
        remedy,
    })
}

fn plain(error: &clap::Error) -> Wrong {
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    Wrong {
        flag: String::new(),
        value: String::new(),
        why: first.trim_start_matches("error: ").to_owned(),
        remedy: "see weir --help".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn args(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    fn run(words: &[&str]) -> Flags {
        match parse(args(words)) {
            (Some(Wanted::Run(flags)), wrong) if wrong.is_empty() => *flags,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn the_command_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn subcommands_take_the_same_flags_on_either_side() {
        for words in [["check", "--pool-max", "7"], ["--pool-max", "7", "check"]] {
            let (Some(Wanted::Check(flags)), wrong) = parse(args(&words)) else {
                panic!("{words:?}")
            };
            assert_eq!(
                (flags.upstreams.pool_max.as_str(), wrong.len()),
                ("7", 0),
                "{words:?}"
            );
        }
        assert!(matches!(
            parse(args(&["doctor"])),
            (Some(Wanted::Doctor(_)), _)
        ));
        assert!(matches!(
            parse(args(&["docs", "flags"])),
            (Some(Wanted::Page(Page::Flags)), _)
        ));
    }

    #[test]
    fn a_file_stands_for_its_flags_and_the_last_word_counts() {
        let inner = file("--pool-max\n50\n");
        let outer = file(&format!(
            "# profile\n--listen 0.0.0.0:25   # all\n--upstream @servers.txt\n\n@{}\n--demo\n",
            inner.path().display()
        ));
        let flags = run(&[
            "--listen",
            "[::]:25",
            &format!("@{}", outer.path().display()),
            "--pool-max",
            "9",
        ]);
        assert_eq!(flags.listen.listen, ["[::]:25", "0.0.0.0:25"]);
        assert_eq!(flags.upstreams.upstream, ["@servers.txt"]);
        assert_eq!(flags.upstreams.pool_max, "9");
        assert!(flags.running.demo);
    }

    #[test]
    fn a_list_file_stays_the_value_of_its_flag() {
        let flags = run(&[
            "--upstream",
            "@servers.txt",
            "--relay-domains",
            "@domains.txt",
        ]);
        assert_eq!(flags.upstreams.upstream, ["@servers.txt"]);
    }

    #[test]
    fn everything_unknown_is_told_and_the_rest_is_read() {
        let (wanted, wrong) = parse(args(&[
            "--pool-mx",
            "5",
            "--nonsense=1",
            "--queue-max",
            "--shards",
            "4",
            "--demo=maybe",
        ]));
        let named: Vec<&str> = wrong.iter().map(|w| w.flag.as_str()).collect();
        assert_eq!(
            named,
            ["--pool-mx", "--nonsense", "--queue-max", "--demo"],
            "{wrong:?}"
        );
        assert!(wrong[0].remedy.contains("--pool-max"), "{}", wrong[0]);
        let Some(Wanted::Run(flags)) = wanted else {
            panic!()
        };
        assert_eq!(flags.listen.shards.as_deref(), Some("4"));
    }

    #[test]
    fn files_that_cannot_be_read_or_make_no_sense_are_told() {
        let odd = file("listen 0.0.0.0:25\n");
        let myself = file("");
        let path = myself.path().display().to_string();
        fs::write(myself.path(), format!("@{path}\n")).unwrap();
        let (_, wrong) = parse(args(&[
            "@/nonexistent",
            &format!("@{}", odd.path().display()),
            &format!("@{path}"),
        ]));
        let why: Vec<&str> = wrong.iter().map(|w| w.why.as_str()).collect();
        assert!(why[0].starts_with("cannot be read"), "{why:?}");
        assert_eq!(
            &why[1..],
            ["has the line \"listen 0.0.0.0:25\"", "is included too deep"]
        );
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        for arg in command()
            .get_arguments()
            .filter(|arg| arg.get_long().is_some())
        {
            let expected = environment(arg.get_long().unwrap());
            assert_eq!(
                arg.get_env().and_then(|name| name.to_str()),
                Some(expected.as_str())
            );
        }
        assert_eq!(environment("--pool-max"), "WEIR_POOL_MAX");
    }

    #[test]
    fn a_misspelt_variable_is_noticed() {
        let names = [
            "WEIR_POOL_MAX",
            "WEIR_POOLMAX",
            "HOME",
            "WEIR_LISTEN",
            "WEIR_",
        ];
        assert_eq!(
            unknown_variables(names.map(str::to_owned)),
            ["WEIR_POOLMAX", "WEIR_"]
        );
    }

    #[test]
    fn help_and_version_are_shown() {
        let (Some(Wanted::Show(text)), _) = parse(args(&["--help"])) else {
            panic!()
        };
        assert!(
            text.contains("Listening:") && text.contains("--listen") && text.contains("Upstreams:")
        );
        assert!(matches!(
            parse(args(&["--version"])),
            (Some(Wanted::Show(_)), _)
        ));
    }
}
