//! Messages to a shard from other threads: a bounded channel and the shard's doorbell.

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::ring::Doorbell;

/// The shard's end.
pub struct Mailbox<T> {
    receiver: Receiver<T>,
}

/// The other end; any thread's.
pub struct MailSender<T> {
    sender: Sender<T>,
    doorbell: Doorbell,
}

/// Why a message could not be left; it comes back.
#[derive(Debug)]
pub enum Undelivered<T> {
    /// The shard has not read its letters for long.
    Full(T),
    /// The shard is no more.
    Ended(T),
}

/// A mailbox for `capacity` messages, whose senders ring `doorbell`.
pub fn mailbox<T>(capacity: usize, doorbell: Doorbell) -> (MailSender<T>, Mailbox<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    (MailSender { sender, doorbell }, Mailbox { receiver })
}

impl<T> Mailbox<T> {
    /// The next message, if there is one. To be emptied at each `Event::Doorbell`.
    pub fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

impl<T> MailSender<T> {
    /// Leaves a message and wakes the shard. Never blocks.
    pub fn send(&self, message: T) -> Result<(), Undelivered<T>> {
        match self.sender.try_send(message) {
            Ok(()) => {
                self.doorbell.ring();
                Ok(())
            }
            Err(TrySendError::Full(message)) => Err(Undelivered::Full(message)),
            Err(TrySendError::Disconnected(message)) => Err(Undelivered::Ended(message)),
        }
    }
}

impl<T> Clone for MailSender<T> {
    fn clone(&self) -> MailSender<T> {
        MailSender {
            sender: self.sender.clone(),
            doorbell: self.doorbell.clone(),
        }
    }
}
