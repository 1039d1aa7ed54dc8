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

/// The mailbox is full, or its shard has ended. The message comes back.
#[derive(Debug)]
pub struct Undelivered<T>(pub T);

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
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                Err(Undelivered(message))
            }
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
