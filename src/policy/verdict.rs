//! From a finding and its action to what the session does: the ruling, and the replies.
//!
//! Texts follow what Postfix and its kin say in the same place, so that operators on the other side
//! know them. None names a cause that is ours as the client's: our own limits are 4xx.

use weir_smtp::gate::Verdict;
use weir_smtp::reply::ReplyText;

use super::finding::{Action, Finding, FindingSet};

/// What policy says to one event of a session.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Ruling {
    /// For the core: pass, refuse or close.
    pub verdict: Verdict,
    /// What decided: set if the action does more than log.
    pub by: Option<(Finding, Action)>,
    /// Everything that was noticed and is not off: to be counted and logged.
    pub noticed: FindingSet,
}

impl Ruling {
    pub const PASS: Ruling = Ruling {
        verdict: Verdict::Pass,
        by: None,
        noticed: FindingSet::EMPTY,
    };

    pub const fn passes(&self) -> bool {
        matches!(self.verdict, Verdict::Pass | Verdict::PassVia(_))
    }

    /// What a later check says, with what an earlier one, which let it pass, has noticed.
    pub fn and(self, later: Ruling) -> Ruling {
        Ruling {
            verdict: later.verdict,
            by: later.by.or(self.by),
            noticed: self.noticed.with(later.noticed),
        }
    }
}

/// What a refusing action makes of a finding; `Pass` for the others.
pub fn verdict(finding: Finding, action: Action) -> Verdict {
    match text(finding, action) {
        None => Verdict::Pass,
        Some(text) if closes(finding, action) => Verdict::Close(ReplyText::fixed(text)),
        Some(text) => Verdict::Refuse(ReplyText::fixed(text)),
    }
}

/// Findings about the connection as a whole have no command that could be refused: it ends.
fn closes(finding: Finding, action: Action) -> bool {
    use Finding::*;
    action == Action::Drop
        || matches!(
            finding,
            DenyList
                | Concurrency
                | RateConnections
                | Pregreet
                | ForgedProxy
                | Overload
                | InterceptLoop
        )
}

/// The reply for each finding and refusing action.
#[rustfmt::skip]
fn text(finding: Finding, action: Action) -> Option<&'static str> {
    use Action::{Defer, Drop, Reject};
    use Finding::*;
    Some(match (finding, action) {
        (DenyList, Defer) => "421 4.3.2 Service currently unavailable\r\n",
        (DenyList, Reject) => "554 5.3.2 Service currently unavailable\r\n",
        (DenyList, Drop) => "521 5.3.2 Service currently unavailable\r\n",
        (Concurrency, Defer | Drop) => "421 4.7.0 Error: too many connections\r\n",
        (Concurrency, Reject) => "554 5.7.0 Error: too many connections\r\n",
        (RateConnections, Defer | Drop) => "421 4.7.0 Error: too many new connections, try again later\r\n",
        (RateConnections, Reject) => "554 5.7.0 Error: too many new connections\r\n",
        (RateMessages, Defer) => "450 4.7.1 Error: too much mail, try again later\r\n",
        (RateMessages, Reject) => "550 5.7.1 Error: too much mail\r\n",
        (RateMessages, Drop) => "421 4.7.0 Error: too much mail, try again later\r\n",
        (RateRecipients, Defer) => "450 4.7.1 Error: too many recipients, try again later\r\n",
        (RateRecipients, Reject) => "550 5.7.1 Error: too many recipients\r\n",
        (RateRecipients, Drop) => "421 4.7.0 Error: too many recipients, try again later\r\n",
        (RateHandshakes, Defer) => "454 4.7.0 Error: too many new TLS sessions, try again later\r\n",
        (RateHandshakes, Reject) => "554 5.7.0 Error: too many new TLS sessions\r\n",
        (RateHandshakes, Drop) => "421 4.7.0 Error: too many new TLS sessions, try again later\r\n",
        (Pregreet, Defer) => "421 4.5.1 Protocol error\r\n",
        (Pregreet, Reject) => "554 5.5.1 Protocol error\r\n",
        (Pregreet, Drop) => "521 5.5.1 Protocol error\r\n",
        (Pipelining, Defer) => "451 4.5.0 Error: SMTP protocol synchronization\r\n",
        (Pipelining, Reject) => "554 5.5.0 Error: SMTP protocol synchronization\r\n",
        (Pipelining, Drop) => "521 5.5.0 Error: SMTP protocol synchronization\r\n",
        (NonSmtp, Reject) => "500 5.5.2 Error: not an SMTP command\r\n",
        (NonSmtp, Drop) => "521 5.5.2 Error: this port speaks SMTP. Goodbye.\r\n",
        (BareNewline, Defer) => "451 4.5.2 Error: bare <LF> or <CR> received\r\n",
        (BareNewline, Reject) => "550 5.5.2 Error: bare <LF> or <CR> received\r\n",
        (BareNewline, Drop) => "521 5.5.2 Error: bare <LF> or <CR> received\r\n",
        (Nul, Defer) => "451 4.6.0 Error: NUL octet in message\r\n",
        (Nul, Reject) => "550 5.6.0 Error: NUL octet in message\r\n",
        (Nul, Drop) => "521 5.6.0 Error: NUL octet in message\r\n",
        (Loop, Defer) => "451 4.4.6 Too many Received headers, possible mail loop\r\n",
        (Loop, Reject) => "554 5.4.6 Too many Received headers, possible mail loop\r\n",
        (Loop, Drop) => "521 5.4.6 Too many Received headers, possible mail loop\r\n",
        (ErrorsHard, Drop) => "421 4.7.0 Error: too many errors\r\n",
        (Junk, Drop) => "421 4.7.0 Error: too many commands without mail\r\n",
        (SlowBody, Drop) => "451 4.4.2 Error: message data came too slowly\r\n",
        (TlsInjection, Drop) => "421 4.7.0 Error: commands behind STARTTLS\r\n",
        (Relay, Defer) => "454 4.7.1 Relay access denied\r\n",
        (Relay, Reject) => "550 5.7.1 Relay access denied\r\n",
        (Relay, Drop) => "521 5.7.1 Relay access denied\r\n",
        (ForgedProxy, Defer) => "421 4.7.0 Error: no PROXY header is expected here\r\n",
        (ForgedProxy, Reject) => "554 5.7.0 Error: no PROXY header is expected here\r\n",
        (ForgedProxy, Drop) => "521 5.7.0 Error: no PROXY header is expected here\r\n",
        (ForgedXclient, Reject) => "550 5.7.0 Error: insufficient authorization\r\n",
        (ForgedXclient, Drop) => "521 5.7.0 Error: insufficient authorization\r\n",
        (Overload, Defer | Drop) => "421 4.3.2 Too busy now, try again later\r\n",
        (InterceptLoop, Defer) => "421 4.4.6 This connection leads back to where it came from\r\n",
        (InterceptLoop, Reject) => "554 5.4.6 This connection leads back to where it came from\r\n",
        (InterceptLoop, Drop) => "521 5.4.6 This connection leads back to where it came from\r\n",
        (DenyHelo, Defer) => "450 4.7.1 Helo command rejected: access denied\r\n",
        (DenyHelo, Reject) => "550 5.7.1 Helo command rejected: access denied\r\n",
        (DenyHelo, Drop) => "521 5.7.1 Helo command rejected: access denied\r\n",
        (DenySender, Defer) => "450 4.7.1 Sender address rejected: access denied\r\n",
        (DenySender, Reject) => "550 5.7.1 Sender address rejected: access denied\r\n",
        (DenySender, Drop) => "521 5.7.1 Sender address rejected: access denied\r\n",
        (DenyRecipient, Defer) => "450 4.7.1 Recipient address rejected: access denied\r\n",
        (DenyRecipient, Reject) => "550 5.7.1 Recipient address rejected: access denied\r\n",
        (DenyRecipient, Drop) => "521 5.7.1 Recipient address rejected: access denied\r\n",
        (Dnsbl, Defer) => "450 4.7.1 Service unavailable; client host is on a block list\r\n",
        (Dnsbl, Reject) => "550 5.7.1 Service unavailable; client host is on a block list\r\n",
        (Dnsbl, Drop) => "521 5.7.1 Service unavailable; client host is on a block list\r\n",
        (NoReverse, Defer) => "450 4.7.25 Client host rejected: cannot find your reverse hostname\r\n",
        (NoReverse, Reject) => "550 5.7.25 Client host rejected: cannot find your reverse hostname\r\n",
        (NoReverse, Drop) => "521 5.7.25 Client host rejected: cannot find your reverse hostname\r\n",
        (ReverseMismatch, Defer) => "450 4.7.25 Client host rejected: cannot find your hostname\r\n",
        (ReverseMismatch, Reject) => "550 5.7.25 Client host rejected: cannot find your hostname\r\n",
        (ReverseMismatch, Drop) => "521 5.7.25 Client host rejected: cannot find your hostname\r\n",
        (HeloSyntax, Defer) => "450 4.5.2 Helo command rejected: need fully-qualified hostname\r\n",
        (HeloSyntax, Reject) => "550 5.5.2 Helo command rejected: need fully-qualified hostname\r\n",
        (HeloSyntax, Drop) => "521 5.5.2 Helo command rejected: need fully-qualified hostname\r\n",
        (HeloLiteral, Defer) => "450 4.7.1 Helo command rejected: not your address\r\n",
        (HeloLiteral, Reject) => "550 5.7.1 Helo command rejected: not your address\r\n",
        (HeloLiteral, Drop) => "521 5.7.1 Helo command rejected: not your address\r\n",
        (HeloUnresolved, Defer) => "450 4.7.1 Helo command rejected: host not found\r\n",
        (HeloUnresolved, Reject) => "550 5.7.1 Helo command rejected: host not found\r\n",
        (HeloUnresolved, Drop) => "521 5.7.1 Helo command rejected: host not found\r\n",
        (HeloOurs, Defer) => "450 4.7.1 Helo command rejected: you are not me\r\n",
        (HeloOurs, Reject) => "550 5.7.1 Helo command rejected: you are not me\r\n",
        (HeloOurs, Drop) => "521 5.7.1 Helo command rejected: you are not me\r\n",
        (HeloMismatch, Defer) => "450 4.7.1 Helo command rejected: not your name\r\n",
        (HeloMismatch, Reject) => "550 5.7.1 Helo command rejected: not your name\r\n",
        (HeloMismatch, Drop) => "521 5.7.1 Helo command rejected: not your name\r\n",
        (SenderUnresolved, Defer) => "450 4.1.8 Sender address rejected: domain not found\r\n",
        (SenderUnresolved, Reject) => "550 5.1.8 Sender address rejected: domain not found\r\n",
        (SenderUnresolved, Drop) => "521 5.1.8 Sender address rejected: domain not found\r\n",
        (SenderNullMx, Defer) => "450 4.7.27 Sender address rejected: domain does not accept mail (null MX)\r\n",
        (SenderNullMx, Reject) => "550 5.7.27 Sender address rejected: domain does not accept mail (null MX)\r\n",
        (SenderNullMx, Drop) => "521 5.7.27 Sender address rejected: domain does not accept mail (null MX)\r\n",
        (Greylist, Defer) => "451 4.7.1 Greylisted, please try again later\r\n",
        (Spamtrap, Defer) => "450 4.7.1 Recipient address rejected: access denied\r\n",
        (Spamtrap, Reject) => "550 5.7.1 Recipient address rejected: access denied\r\n",
        (Spamtrap, Drop) => "521 5.7.1 Recipient address rejected: access denied\r\n",
        (Trapped, Defer) => "450 4.7.1 Service unavailable; too much unwanted mail from your network\r\n",
        (Trapped, Reject) => "550 5.7.1 Service unavailable; too much unwanted mail from your network\r\n",
        (Trapped, Drop) => "521 5.7.1 Service unavailable; too much unwanted mail from your network\r\n",
        (History, Defer) => "450 4.7.1 Service unavailable; too much unwanted mail from your network\r\n",
        (History, Reject) => "550 5.7.1 Service unavailable; too much unwanted mail from your network\r\n",
        (History, Drop) => "521 5.7.1 Service unavailable; too much unwanted mail from your network\r\n",
        (Origin, Defer) => "450 4.7.1 Service unavailable; mail from your network is not accepted here\r\n",
        (Origin, Reject) => "550 5.7.1 Service unavailable; mail from your network is not accepted here\r\n",
        (Origin, Drop) => "521 5.7.1 Service unavailable; mail from your network is not accepted here\r\n",
        // The others too, where neighbours have done what it is for.
        (ScoreDefer | ScoreReject | ScoreDrop, Defer) => "450 4.7.1 Service unavailable; client host has a poor reputation, try again later\r\n",
        (ScoreReject, Reject) => "550 5.7.1 Service unavailable; client host has a poor reputation\r\n",
        (ScoreDrop, Drop) => "521 5.7.1 Service unavailable; client host has a poor reputation\r\n",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusing_action_that_is_allowed_has_a_reply_of_its_class() {
        for finding in Finding::all() {
            for &action in finding.allowed() {
                let verdict = verdict(finding, action);
                let Some(text) = text(finding, action) else {
                    assert!(!action.refuses(), "{finding}={action} has no reply");
                    assert_eq!(verdict, Verdict::Pass);
                    continue;
                };
                assert!(action.refuses(), "{finding}={action} has a reply");
                assert!(text.ends_with("\r\n") && text.len() < 512, "{text}");
                // The class of the enhanced code is that of the code (RFC 2034, 4).
                assert_eq!(text.as_bytes()[0], text.as_bytes()[4], "{text}");
                match action {
                    Action::Defer => assert!(text.starts_with('4'), "{text}"),
                    Action::Reject => assert!(text.starts_with('5'), "{text}"),
                    _ => assert!(matches!(verdict, Verdict::Close(_)), "{text}"),
                }
            }
        }
    }
}
