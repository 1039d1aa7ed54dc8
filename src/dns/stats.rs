//! What the resolver counts.

/// Since the start. What is open or kept now is told by [`super::Stub`]'s methods.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct Stats {
    /// Questions put to the resolver, however they were answered.
    pub asked: u64,
    /// Of these, answered from the cache.
    pub hits: u64,
    /// Of these, joined to a question that was open already.
    pub joined: u64,
    /// Of these, turned away: too much was open.
    pub busy: u64,
    /// Questions that were answered by a server, by what came.
    pub records: u64,
    pub no_data: u64,
    pub no_name: u64,
    /// Questions that no server answered in time, or none could.
    pub timed_out: u64,
    pub failed: u64,
    /// Queries sent as datagrams, and those that went by TCP.
    pub datagrams: u64,
    pub over_tcp: u64,
    /// Of both, those that were not a question's first.
    pub repeated: u64,
    /// Tries that a server let pass.
    pub missed: u64,
    /// Answers cut short, which are asked for again by TCP.
    pub truncated: u64,
    /// Messages that answer nothing that was asked there: forged, or of a server gone wrong.
    pub strays: u64,
    /// Answers to questions that were answered already.
    pub late: u64,
    /// Messages that cannot be read.
    pub garbage: u64,
    /// Answers that repeat the question in another case.
    pub other_case: u64,
    /// Sockets left for TCP because so much came that was not asked for.
    pub floods: u64,
    pub ports_opened: u64,
    pub ports_failed: u64,
    pub streams_opened: u64,
    pub streams_failed: u64,
    /// Answers that left the cache before their time, for want of room.
    pub evicted: u64,
}
