//! What a completion says about itself: the operation, the slot and which life of the slot it belongs to.
//!
//! A cancelled receive may complete after its slot was closed and handed out again; the generation tells the lives apart.

use super::wire::Group;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Op {
    Accept,
    Connect,
    /// The armed, multishot receive.
    Receive,
    /// One non-blocking receive.
    Look,
    /// A receive whose bytes nobody will see.
    Discard,
    /// A send of one buffer.
    Send,
    /// A gathered send.
    Gather,
    /// A send out of the slot's own sixteen bytes.
    Drip,
    Shutdown,
    Disconnect,
    Close,
    Option,
    Cancel,
    Doorbell,
    Background,
    /// A descriptor for a slot.
    Extract,
}

const OPS: [Op; 16] = [
    Op::Accept,
    Op::Connect,
    Op::Receive,
    Op::Look,
    Op::Discard,
    Op::Send,
    Op::Gather,
    Op::Drip,
    Op::Shutdown,
    Op::Disconnect,
    Op::Close,
    Op::Option,
    Op::Cancel,
    Op::Doorbell,
    Op::Background,
    Op::Extract,
];

/// Lives of a slot that can be told apart; a completion that is eight million lives late does not exist.
pub(super) const GENERATION_MASK: u32 = (1 << 23) - 1;

/// The user data of a submission: operation (8 bits), group (1), generation (23), index (32).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub(super) op: Op,
    pub(super) group: Group,
    pub(super) generation: u32,
    pub(super) index: u32,
}

impl Token {
    /// For operations that belong to no slot.
    pub(super) fn plain(op: Op, index: u32) -> Token {
        Token {
            op,
            group: Group::Client,
            generation: 0,
            index,
        }
    }

    pub(super) fn pack(self) -> u64 {
        debug_assert!(self.generation <= GENERATION_MASK);
        let group = u64::from(self.group == Group::Upstream);
        (self.op as u64) << 56
            | group << 55
            | u64::from(self.generation) << 32
            | u64::from(self.index)
    }

    pub(super) fn unpack(data: u64) -> Token {
        Token {
            op: OPS[(data >> 56) as usize],
            group: if data >> 55 & 1 == 1 {
                Group::Upstream
            } else {
                Group::Client
            },
            generation: (data >> 32) as u32 & GENERATION_MASK,
            index: data as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_kernel() {
        for op in OPS {
            for group in [Group::Client, Group::Upstream] {
                let token = Token {
                    op,
                    group,
                    generation: GENERATION_MASK,
                    index: u32::MAX,
                };
                assert_eq!(Token::unpack(token.pack()), token);
            }
        }
    }
}
