//! Where a session stands: what the client may say, what is awaited, and the upstream connection.

use crate::gate::AskId;
use crate::relay::LegId;

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Phase {
    /// No greeting yet.
    Connecting,
    /// The greeting was a refusal: only QUIT is served.
    Unwelcome,
    /// Greeted, no HELO yet.
    Greeted,
    /// Between transactions.
    Ready,
    /// The upstream has asked something in an AUTH exchange.
    Auth,
    /// After MAIL.
    Envelope,
    /// Inside DATA.
    Data,
    /// After a BDAT chunk that was not the last.
    BetweenChunks,
    /// Inside a BDAT chunk.
    Chunk,
    /// The body is complete; its reply is owed.
    Final,
    /// The client's bytes and the upstream's pass weir unread.
    Tunnel,
    /// Close has been asked for; nothing more is read.
    Closing,
}

/// What is awaited before the client's next line is read.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Waiting {
    Nothing,
    /// All replies that are owed: the next one is weir's, or belongs to a command that stands alone.
    Replies,
    /// The reply to a command behind which nothing is read.
    Reply,
    /// An upstream connection, and its greeting.
    Leg,
    /// The leg's own opening: then the client's EHLO goes up.
    Opening,
    /// Until the leg's queue has drained or its parts of a chunk are answered.
    Stream,
    /// The replies to all parts of a chunk that is whole.
    Parts,
    Connect(AskId),
    Helo(AskId),
    StartTls(AskId),
    /// Whether what was claimed by XCLIENT counts.
    Claim,
    /// The end of the handshake: nothing is read and nothing said until then.
    Handshake,
    Mail(AskId),
    Rcpt(AskId, u16),
    Data(AskId),
    /// The first BDAT: the chunk's size stays with the transaction.
    Chunk(AskId),
    EndOfHeaders(AskId),
    /// A bare newline in a chunk that is not the last.
    ChunkNewline(AskId),
    /// One of the questions at the end of the body.
    End(AskId),
    FinalReply(AskId),
    /// About the line that is next in the input.
    Line(AskId),
    /// The upstream's final reply.
    Final,
}

/// The session's one upstream connection.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Leg {
    No,
    /// `Act::Attach` is out.
    Asked,
    Yes(LegId),
    /// Given back or lost: there will be no other.
    Gone,
}

impl Waiting {
    pub(super) fn asks(self) -> Option<AskId> {
        match self {
            Self::Connect(id)
            | Self::Helo(id)
            | Self::StartTls(id)
            | Self::Mail(id)
            | Self::Rcpt(id, _)
            | Self::Data(id)
            | Self::Chunk(id)
            | Self::ChunkNewline(id)
            | Self::EndOfHeaders(id)
            | Self::End(id)
            | Self::FinalReply(id)
            | Self::Line(id) => Some(id),
            Self::Nothing
            | Self::Replies
            | Self::Reply
            | Self::Leg
            | Self::Opening
            | Self::Claim
            | Self::Handshake
            | Self::Stream
            | Self::Parts
            | Self::Final => None,
        }
    }
}
