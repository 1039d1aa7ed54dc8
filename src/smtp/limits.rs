//! The limits of the protocol core, in one place, each with what it costs. What an operator may set (message size, recipients, hold budget)
//! is configuration of `relay`; what stands here is fixed because the grammar or the peer's patience sets it.

/// A command line with its CRLF. RFC 5321, 4.5.3.1.4 asks for 512 and more with extensions (SMTPUTF8, ORCPT and ENVID add 1,100); Postfix
/// takes 2,048. Cost: a session that sends a line in pieces holds at most this much, outside of the receive buffers.
pub const COMMAND_LINE_MAX: usize = 4096;

/// The same for commands that no extension makes longer (RFC 5321, 4.5.3.1.4), without the CRLF, where they pass to a server.
pub const SHORT_LINE_MAX: usize = 510;

/// A line of an AUTH exchange, without CRLF (RFC 4954, 4 asks for so much). Cost: as of a command line, where an upstream offers AUTH
/// to a client of its own.
pub const AUTH_LINE_MAX: usize = 12_288;
/// Answers of a client within one AUTH exchange: no mechanism needs more than a few.
pub const AUTH_LINES_MAX: u8 = 32;

/// The argument of HELO and EHLO. RFC 5321, 4.5.3.1.2 caps a domain at 255; address literals and careless hosts are somewhat longer.
/// Cost: kept for the whole session.
pub const HELO_MAX: usize = 512;

/// A mailbox inside its `<>`. RFC 5321, 4.5.3.1.3 says 256; rewritten (SRS) and per-recipient (VERP) senders are longer.
/// Cost: one an envelope entry.
pub const MAILBOX_MAX: usize = 512;

/// A whole reply of an upstream. RFC 5321, 4.5.3.1.5 caps a line at 512 and says nothing of the whole; EHLO replies stay below 2 KiB.
/// Cost: an outbound leg whose reply arrives in pieces holds at most this much.
pub const REPLY_BYTES_MAX: usize = 16 * 1024;
/// Lines of one reply.
pub const REPLY_LINES_MAX: usize = 128;
/// One line of a reply, with CRLF: four times what RFC 5321, 4.5.3.1.5 allows.
pub const REPLY_LINE_MAX: usize = 2048;

/// RFC 3461, 4.4: ENVID is at most 100 characters.
pub const ENVID_MAX: usize = 100;
/// RFC 3461, 4.2: ORCPT is at most 500 characters.
pub const ORCPT_MAX: usize = 500;

/// A value of XCLIENT or XFORWARD: Postfix takes names of this length.
pub const ATTRIBUTE_MAX: usize = 255;
/// An XCLIENT or XFORWARD command that weir writes, with its CRLF (RFC 5321, 4.5.3.1.4).
pub const XCLIENT_COMMAND_MAX: usize = 512;

/// A text line without its CRLF and without its transparency dot (RFC 5321, 4.5.3.1.6). Longer ones pass, and are a finding.
pub const TEXT_LINE_MAX: usize = 998;

/// Received fields from which on a message is taken for looping (RFC 5321, 6.3 asks for at least 100).
pub const RECEIVED_MAX: u16 = 100;

/// Replies an upstream connection may owe at once. Cost: one byte each.
pub const COMMANDS_OWED_MAX: usize = 256;
/// Octets of MAIL and RCPT commands gathered for one flight; the rest goes with the next.
pub const ENVELOPE_FLIGHT_OCTETS: u64 = 32 * 1024;
/// How often a transaction asks for an upstream connection before it gives up.
pub const ATTACH_ATTEMPTS_MAX: u8 = 8;
/// Recipients of one client that may be unanswered at once; further ones are not read.
pub const RECIPIENTS_IN_FLIGHT_MAX: usize = 256;
/// Recipients of a message where the operator sets no limit. Cost: 64 bytes each, and their text.
pub const RECIPIENTS_LIMIT: usize = 50_000;
/// Octets of replies that may wait for a client to take them, before its next command is read. Cost: a session whose client sends and
/// does not read holds at most this much and the replies to one command.
pub const REPLIES_GATHERED_MAX: usize = 64 * 1024;
/// BDAT chunks of a streaming body whose replies may be outstanding.
pub const CHUNKS_OWED_MAX: u8 = 8;
/// A streaming body goes up in chunks of at least this many octets, but for the last.
pub const STREAM_CHUNK_MIN: u64 = 16 * 1024;

const _: () = assert!(
    ATTRIBUTE_MAX + 32 <= XCLIENT_COMMAND_MAX,
    "one attribute must fit into a command"
);
const _: () = assert!(
    REPLY_LINE_MAX <= REPLY_BYTES_MAX,
    "one line must fit into a reply"
);
const _: () = assert!(
    COMMAND_LINE_MAX >= 2 * MAILBOX_MAX + ORCPT_MAX + ENVID_MAX + 512,
    "a legal MAIL or RCPT with every parameter must fit into a command line"
);
