//! What checks notice, and what may be done about it: findings, actions, and the table that joins them.
//!
//! A check only *finds*. What a finding leads to is set apart from it, by `--on FINDING=ACTION` (`actions.rs`). The
//! defaults do what nobody regrets (refuse to relay, end a session of errors, close on HTTP); what could
//! cost somebody mail they want begins at `log`, and the metrics show what more would have refused.
//! A new finding is a variant, a row of [`TABLE`] and its replies in `verdict.rs`.

use std::fmt;
use std::str::FromStr;

use weir_smtp::gate;

use super::actions::OnError;

/// Something worth a decision.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
#[repr(u8)]
pub enum Finding {
    DenyList,
    Concurrency,
    RateConnections,
    RateMessages,
    RateRecipients,
    RateBytes,
    RateHandshakes,
    Pregreet,
    Pipelining,
    NonSmtp,
    BareNewline,
    Nul,
    Loop,
    ErrorsSoft,
    ErrorsHard,
    Junk,
    SlowBody,
    TlsInjection,
    TlsFailed,
    Relay,
    ForgedProxy,
    ForgedXclient,
    Overload,
    InterceptLoop,
    DenyHelo,
    DenySender,
    DenyRecipient,
    Dnsbl,
    Dnswl,
    NoReverse,
    ReverseMismatch,
    HeloSyntax,
    HeloLiteral,
    HeloUnresolved,
    HeloOurs,
    HeloMismatch,
    SenderUnresolved,
    SenderNullMx,
    Greylist,
    Spamtrap,
    Trapped,
    History,
    Origin,
    ScoreDelay,
    ScoreStutter,
    ScoreDefer,
    ScoreReject,
    ScoreDrop,
}

/// What to do about a finding.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
#[repr(u8)]
pub enum Action {
    /// Nothing, and nothing is counted.
    Off,
    /// Counted and logged.
    Log,
    /// The client's replies are delayed from now on, for a while.
    Delay,
    /// The client's replies go out a byte at a time from now on, for a while.
    Stutter,
    /// 4xx to this command; 421 and close where there is no command to refuse.
    Defer,
    /// 5xx to this command; 554 and close where there is no command to refuse.
    Reject,
    /// A reply, and the connection is closed.
    Drop,
}

/// One finding: its word in flags, logs and metrics, and what may be done about it.
pub struct Row {
    pub finding: Finding,
    pub word: &'static str,
    pub default: Action,
    pub allowed: &'static [Action],
    /// For the manual: what was noticed.
    pub help: &'static str,
}

use Action::{Defer, Delay, Drop, Log, Off, Reject, Stutter};

const ANY: &[Action] = &[Off, Log, Delay, Stutter, Defer, Reject, Drop];
const CLOSING: &[Action] = &[Defer, Reject, Drop];

/// All findings, in the order of their numbers.
#[rustfmt::skip]
pub const TABLE: [Row; Finding::COUNT] = [
    Row { finding: Finding::DenyList, word: "deny-list", default: Drop, allowed: ANY, help: "the client's address is on --deny-list" },
    Row { finding: Finding::Concurrency, word: "concurrency", default: Defer, allowed: ANY, help: "more connections at a time from one client address than --client-concurrency" },
    Row { finding: Finding::RateConnections, word: "rate-connections", default: Defer, allowed: ANY, help: "new connections from one client address beyond --rate-connections" },
    Row { finding: Finding::RateMessages, word: "rate-messages", default: Defer, allowed: ANY, help: "messages from one client address beyond --rate-messages" },
    Row { finding: Finding::RateRecipients, word: "rate-recipients", default: Defer, allowed: ANY, help: "recipients from one client address beyond --rate-recipients" },
    Row { finding: Finding::RateBytes, word: "rate-bytes", default: Delay, allowed: &[Off, Log, Delay], help: "message data from one client address beyond --rate-bytes; delay slows the reading down to that rate" },
    Row { finding: Finding::RateHandshakes, word: "rate-handshakes", default: Defer, allowed: ANY, help: "TLS handshakes of one client address beyond --rate-handshakes" },
    Row { finding: Finding::Pregreet, word: "pregreet", default: Log, allowed: ANY, help: "the client spoke before the greeting" },
    Row { finding: Finding::Pipelining, word: "pipelining", default: Log, allowed: ANY, help: "commands sent ahead where RFC 2920 forbids it" },
    Row { finding: Finding::NonSmtp, word: "non-smtp", default: Drop, allowed: &[Off, Log, Delay, Stutter, Reject, Drop], help: "a command of another protocol, or header text as a command" },
    // A message with a bare newline cannot go on under `--bare-newline reject`: nothing weaker than a refusal is possible.
    Row { finding: Finding::BareNewline, word: "bare-newline", default: Reject, allowed: CLOSING, help: "a bare LF or CR in a message under --bare-newline reject" },
    Row { finding: Finding::Nul, word: "nul", default: Log, allowed: &[Off, Log, Defer, Reject, Drop], help: "a NUL octet in a text message" },
    Row { finding: Finding::Loop, word: "loop", default: Reject, allowed: &[Log, Defer, Reject, Drop], help: "a hundred or more Received fields" },
    Row { finding: Finding::ErrorsSoft, word: "errors-soft", default: Delay, allowed: &[Off, Log, Delay, Stutter], help: "more errors in a session than --errors-soft" },
    Row { finding: Finding::ErrorsHard, word: "errors-hard", default: Drop, allowed: &[Off, Log, Delay, Stutter, Drop], help: "more errors in a session than --errors-hard" },
    Row { finding: Finding::Junk, word: "junk", default: Drop, allowed: &[Off, Log, Delay, Stutter, Drop], help: "more commands that lead to no mail (NOOP, RSET, VRFY) than --junk-max" },
    Row { finding: Finding::SlowBody, word: "slow-body", default: Drop, allowed: &[Off, Log, Drop], help: "message data slower than --min-data-rate while it holds an upstream" },
    Row { finding: Finding::TlsInjection, word: "tls-injection", default: Log, allowed: &[Off, Log, Delay, Stutter, Drop], help: "octets behind STARTTLS and in front of the handshake; they are thrown away in any case" },
    // Nothing can be said to such a client: what remains is how it is treated when it comes again.
    Row { finding: Finding::TlsFailed, word: "tls-failed", default: Log, allowed: &[Off, Log, Delay, Stutter], help: "a TLS handshake that failed or took too long, or a TLS stream that broke the rules" },
    // Never weaker than a refusal: an open relay has to be asked for by name, --relay-domains any.
    Row { finding: Finding::Relay, word: "relay", default: Reject, allowed: CLOSING, help: "a recipient that is neither in --relay-domains nor sent by a client of --relay-from" },
    Row { finding: Finding::ForgedProxy, word: "forged-proxy", default: Reject, allowed: &[Off, Log, Defer, Reject, Drop], help: "a PROXY header from a client that is not in --trust, on a listener without ,proxy, or behind another header" },
    // Never obeyed: 550 whatever is done about it.
    Row { finding: Finding::ForgedXclient, word: "forged-xclient", default: Reject, allowed: &[Off, Log, Delay, Stutter, Reject, Drop], help: "XCLIENT from a client that is not in --trust; refused in any case" },
    Row { finding: Finding::Overload, word: "overload", default: Defer, allowed: &[Defer, Drop], help: "no room for this client" },
    Row { finding: Finding::InterceptLoop, word: "intercept-loop", default: Defer, allowed: CLOSING, help: "an intercepted connection to weir itself, or one that weir itself has opened" },
    Row { finding: Finding::DenyHelo, word: "deny-helo", default: Reject, allowed: ANY, help: "the client calls itself by a name on --deny-helo" },
    Row { finding: Finding::DenySender, word: "deny-sender", default: Reject, allowed: ANY, help: "a sender on --deny-sender" },
    Row { finding: Finding::DenyRecipient, word: "deny-recipient", default: Reject, allowed: ANY, help: "a recipient on --deny-recipient" },
    Row { finding: Finding::Dnsbl, word: "dnsbl", default: Log, allowed: ANY, help: "the client's address is on a list of --dnsbl" },
    Row { finding: Finding::Dnswl, word: "dnswl", default: Log, allowed: &[Off, Log], help: "the client's address is on a list of --dnsbl with a negative weight" },
    Row { finding: Finding::NoReverse, word: "no-reverse", default: Log, allowed: ANY, help: "the client's address has no name" },
    Row { finding: Finding::ReverseMismatch, word: "reverse-mismatch", default: Log, allowed: ANY, help: "none of the names of the client's address leads back to it" },
    Row { finding: Finding::HeloSyntax, word: "helo-syntax", default: Log, allowed: ANY, help: "the client calls itself by what is neither a host name nor an address literal" },
    Row { finding: Finding::HeloLiteral, word: "helo-literal", default: Log, allowed: ANY, help: "the client calls itself by an address literal that is not its address" },
    Row { finding: Finding::HeloUnresolved, word: "helo-unresolved", default: Log, allowed: ANY, help: "the client calls itself by a name that has no address and no mail server" },
    Row { finding: Finding::HeloOurs, word: "helo-ours", default: Log, allowed: ANY, help: "the client calls itself by weir's own name or address" },
    Row { finding: Finding::HeloMismatch, word: "helo-mismatch", default: Log, allowed: ANY, help: "the client calls itself by a name that leads elsewhere" },
    Row { finding: Finding::SenderUnresolved, word: "sender-unresolved", default: Log, allowed: ANY, help: "a sender whose domain has neither a mail server nor an address" },
    Row { finding: Finding::SenderNullMx, word: "sender-null-mx", default: Log, allowed: ANY, help: "a sender whose domain takes no mail (RFC 7505)" },
    Row { finding: Finding::Greylist, word: "greylist", default: Log, allowed: &[Off, Log, Defer], help: "the first mail of this sender to this recipient from this network, not yet --greylist-delay ago" },
    Row { finding: Finding::Spamtrap, word: "spamtrap", default: Log, allowed: ANY, help: "a recipient on --spamtraps" },
    Row { finding: Finding::Trapped, word: "trapped", default: Log, allowed: ANY, help: "the client's network has written to a spamtrap lately" },
    Row { finding: Finding::History, word: "history", default: Log, allowed: ANY, help: "what the client's network, or the provider it belongs to, has done before" },
    Row { finding: Finding::Origin, word: "origin", default: Log, allowed: ANY, help: "the country or the provider of the client's address has a weight in --origin" },
    Row { finding: Finding::ScoreDelay, word: "score-delay", default: Log, allowed: &[Off, Log, Delay], help: "the score of all findings reaches --score-delay" },
    Row { finding: Finding::ScoreStutter, word: "score-stutter", default: Log, allowed: &[Off, Log, Stutter], help: "the score reaches --score-stutter" },
    Row { finding: Finding::ScoreDefer, word: "score-defer", default: Log, allowed: &[Off, Log, Defer], help: "the score reaches --score-defer" },
    Row { finding: Finding::ScoreReject, word: "score-reject", default: Log, allowed: &[Off, Log, Reject], help: "the score reaches --score-reject" },
    Row { finding: Finding::ScoreDrop, word: "score-drop", default: Log, allowed: &[Off, Log, Drop], help: "the score reaches --score-drop" },
];

impl Finding {
    pub const COUNT: usize = Finding::ScoreDrop as usize + 1;

    pub fn all() -> impl Iterator<Item = Finding> {
        TABLE.iter().map(|row| row.finding)
    }

    /// The word for flags, logs and metrics.
    pub const fn word(self) -> &'static str {
        self.row().word
    }

    pub const fn default_action(self) -> Action {
        self.row().default
    }

    pub const fn allowed(self) -> &'static [Action] {
        self.row().allowed
    }

    /// Whether `--on` may give it a weight. Lists, history and origin have theirs from flags of their own; what the score itself
    /// leads to cannot add to it, nor what no session comes of.
    pub const fn has_weight(self) -> bool {
        use Finding::*;
        !matches!(
            self,
            Dnsbl
                | Dnswl
                | Greylist
                | History
                | Origin
                | ScoreDelay
                | ScoreStutter
                | ScoreDefer
                | ScoreReject
                | ScoreDrop
                | Overload
                | InterceptLoop
        )
    }

    /// What it adds to the score where `--on` does not say. What good mail servers are seen with is a hint; what they are never
    /// seen with is enough to be refused for where the score is set to refuse.
    pub const fn default_weight(self) -> i8 {
        use Finding::*;
        match self {
            HeloOurs | Spamtrap => 5,
            Pregreet | NonSmtp | SenderNullMx => 3,
            NoReverse | SenderUnresolved => 2,
            // The network's history has the trap as well: its neighbours are not to be refused for one of them.
            Pipelining | ReverseMismatch | HeloSyntax | HeloLiteral | HeloUnresolved | Trapped => 1,
            _ => 0,
        }
    }

    const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

impl From<gate::Finding> for Finding {
    fn from(finding: gate::Finding) -> Finding {
        match finding {
            gate::Finding::Pregreet => Finding::Pregreet,
            gate::Finding::Pipelining => Finding::Pipelining,
            gate::Finding::NonSmtp => Finding::NonSmtp,
            gate::Finding::BareNewline => Finding::BareNewline,
            gate::Finding::Nul => Finding::Nul,
            gate::Finding::Loop => Finding::Loop,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Finding {
    type Err = OnError;

    fn from_str(word: &str) -> Result<Finding, OnError> {
        let row = TABLE.iter().find(|row| row.word == word);
        row.map(|row| row.finding)
            .ok_or_else(|| OnError::UnknownFinding(word.into()))
    }
}

impl Action {
    pub const COUNT: usize = Action::Drop as usize + 1;
    pub const ALL: [Action; Action::COUNT] = [Off, Log, Delay, Stutter, Defer, Reject, Drop];

    pub const fn word(self) -> &'static str {
        match self {
            Off => "off",
            Log => "log",
            Delay => "delay",
            Stutter => "stutter",
            Defer => "defer",
            Reject => "reject",
            Drop => "drop",
        }
    }

    /// Whether the client gets what it asked for no more.
    pub const fn refuses(self) -> bool {
        matches!(self, Defer | Reject | Drop)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A set of findings.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct FindingSet(u64);

const _: () = assert!(Finding::COUNT <= 64, "findings have to fit a set");

impl FindingSet {
    pub const EMPTY: FindingSet = FindingSet(0);

    pub const fn insert(&mut self, finding: Finding) {
        self.0 |= 1 << finding as u64;
    }

    pub const fn extend(&mut self, others: FindingSet) {
        self.0 |= others.0;
    }

    pub const fn contains(self, finding: Finding) -> bool {
        self.0 & 1 << finding as u64 != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn with(self, others: FindingSet) -> FindingSet {
        FindingSet(self.0 | others.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Finding> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let row = TABLE.get(rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(row.finding)
        })
    }
}

impl FromIterator<Finding> for FindingSet {
    fn from_iter<I: IntoIterator<Item = Finding>>(findings: I) -> FindingSet {
        let mut set = FindingSet::EMPTY;
        findings.into_iter().for_each(|finding| set.insert(finding));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_its_defaults_are_allowed() {
        for (number, row) in TABLE.iter().enumerate() {
            assert_eq!(row.finding as usize, number, "{}", row.word);
            assert!(row.allowed.contains(&row.default), "{}", row.word);
            assert_eq!(row.word.parse(), Ok(row.finding));
            let weight = row.finding.default_weight();
            assert!(weight == 0 || row.finding.has_weight(), "{}", row.word);
        }
        for (number, action) in Action::ALL.iter().enumerate() {
            assert_eq!(*action as usize, number);
        }
    }
}
