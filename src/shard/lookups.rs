//! Who asks the resolver, and where answers go.

use crate::dns::{Answer, Question};
use crate::policy::names::Topic;
use crate::ring::Wire;

use super::slab::Key;
use super::world::World;

/// For whom a question is asked. Who is gone by the time of the answer is not found; the cache has it all the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asker {
    /// What is inquired of a client, and which of its questions it is.
    Inquiry(Key, About, u16),
    /// A test point of a list (RFC 5782, 5), by the list's number and which of its points.
    TestPoint(u16, u8),
}

/// What a question of an inquiry is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum About {
    /// Is the client on this list?
    Zone(u16),
    /// Why is it there?
    Reason(u16),
    /// The name of the address, in HELO, of the sender's domain.
    Name(Topic),
}

impl<W: Wire> World<W> {
    /// Asks for records. Some: the answer is known; None: it comes by [`World::heard`], once, within the resolver's patience.
    pub fn look_up(&mut self, question: &Question, asker: Asker) -> Option<Answer> {
        #[cfg(test)]
        if let Some(asked) = &mut self.asked {
            asked.push((question.clone(), asker));
            return None;
        }
        self.resolver.ask(question, asker, self.now)
    }

    /// As [`World::look_up`], but of a server even if an answer is remembered, which the new one takes the place of.
    pub fn look_up_afresh(&mut self, question: &Question, asker: Asker) -> Option<Answer> {
        #[cfg(test)]
        if let Some(asked) = &mut self.asked {
            asked.push((question.clone(), asker));
            return None;
        }
        self.resolver.ask_afresh(question, asker, self.now)
    }

    /// An answer that was waited for.
    pub fn heard(&mut self, asker: Asker, answer: &Answer) {
        match asker {
            Asker::Inquiry(inquiry, about, serial) => {
                self.inquiry_heard(inquiry, about, serial, answer);
            }
            Asker::TestPoint(list, point) => self.point_answered(list, point, &answer.outcome),
        }
    }
}
