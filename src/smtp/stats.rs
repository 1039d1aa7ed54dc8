//! What a session has done so far, as plain integers. The driver copies them into metrics and
//! the session's log line, and policy reads them to count errors.

/// Counts of one session. All saturate. Of a session that has opened no transaction, all but
/// commands, errors and junk are zero.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct SessionStats {
    /// Command lines read, well-formed or not.
    pub commands: u32,
    /// Violations, and recipients or messages refused with 5xx. Commands that failed only because
    /// an earlier one of their group did are not counted (smtp-rules 64, after Exim).
    pub errors: u16,
    /// NOOP, RSET, VRFY, EXPN, HELP and repeated EHLO since the last accepted message.
    pub junk: u16,
    /// MAIL commands that opened a transaction.
    pub transactions: u16,
    /// Messages an upstream answered with 2xx.
    pub accepted: u16,
    /// Messages answered with 4xx or 5xx after their body.
    pub refused: u16,
    /// Transactions that ended with a 4xx, and with a 5xx, whether or not their body came.
    pub deferred: u16,
    pub rejected: u16,
    /// Recipients accepted.
    pub recipients: u32,
    /// Body octets received, dots of transparency not counted.
    pub octets: u64,
}
