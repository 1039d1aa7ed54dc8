//! One transaction's envelope: the reverse-path, the forward-paths and their parameters, verbatim,
//! in one arena that is recycled with the transaction.

use alloc::vec::Vec;

use crate::command::{BodyType, MailArgs, RcptArgs};
use crate::extension::ExtensionSet;
use crate::gate::{AskId, RouteId};
use crate::path::Path;
use crate::reply::ReplyText;
use crate::time::Moment;

/// Octets of the arena kept when a transaction is recycled; a larger one is given back.
const ARENA_KEPT: usize = 4096;
/// Recipient rows kept when a transaction is recycled.
const RECIPIENTS_KEPT: usize = 64;

/// A range of the arena.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
struct Text {
    start: u32,
    len: u16,
}

/// Where a recipient stands.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum RecipientState {
    /// Waits for its verdict.
    Asked(AskId),
    /// May go up.
    Cleared,
    /// Went up; its reply is owed.
    Sent,
    /// The upstream took it and the client knows.
    Accepted,
    /// Refused by weir; the client is told when its turn comes.
    Refusing,
    /// Refused, and the client knows.
    Refused,
}

#[derive(Debug)]
pub(crate) struct Recipient {
    argument: Text,
    mailbox: Text,
    pub(crate) state: RecipientState,
    pub(crate) route: RouteId,
    /// When RCPT was read: its reply is due a fixed time after.
    pub(crate) since: Moment,
}

/// The envelope of the open transaction.
#[derive(Debug, Default)]
pub struct Envelope {
    arena: Vec<u8>,
    mail_path: Text,
    mail_mailbox: Text,
    mail_params: Text,
    body: BodyType,
    smtputf8: bool,
    uses: ExtensionSet,
    pub(crate) recipients: Vec<Recipient>,
    /// Replies of recipients in state `Refusing`, by index, in ascending order.
    refusals: Vec<(u16, ReplyText)>,
}

impl Envelope {
    /// The reverse-path without its brackets and source route; empty for the null sender.
    pub fn sender(&self) -> &[u8] {
        self.text(self.mail_mailbox)
    }

    /// The reverse-path as it was written, brackets included.
    pub fn mail_path(&self) -> &[u8] {
        self.text(self.mail_path)
    }

    /// The parameters of MAIL as they were written.
    pub fn mail_params(&self) -> &[u8] {
        self.text(self.mail_params)
    }

    /// MAIL declared SMTPUTF8.
    pub fn is_smtputf8(&self) -> bool {
        self.smtputf8
    }

    pub fn body_type(&self) -> BodyType {
        self.body
    }

    /// Extensions that this transaction needs of an upstream.
    pub fn uses(&self) -> ExtensionSet {
        self.uses
    }

    /// RCPT commands of this transaction, refused ones included.
    pub fn recipient_count(&self) -> usize {
        self.recipients.len()
    }

    /// The forward-path of recipient `index`, without brackets and source route.
    pub fn recipient(&self, index: u16) -> &[u8] {
        self.text(self.recipients[usize::from(index)].mailbox)
    }

    /// All that followed `TO:` for recipient `index`, verbatim.
    pub fn recipient_argument(&self, index: u16) -> &[u8] {
        self.text(self.recipients[usize::from(index)].argument)
    }

    /// Whether weir or an upstream has refused recipient `index`.
    pub fn is_refused(&self, index: u16) -> bool {
        use RecipientState::{Refused, Refusing};
        matches!(
            self.recipients[usize::from(index)].state,
            Refused | Refusing
        )
    }

    /// Recipients the upstream took.
    pub fn accepted(&self) -> usize {
        self.recipients
            .iter()
            .filter(|r| r.state == RecipientState::Accepted)
            .count()
    }

    pub(crate) fn set_mail(&mut self, args: &MailArgs<'_>) {
        self.mail_path = self.store(args.path.whole);
        self.mail_mailbox = mailbox(&args.path, self.mail_path);
        self.mail_params = self.store(args.params);
        self.body = args.body;
        self.smtputf8 = args.smtputf8;
        self.uses = args.uses;
    }

    pub(crate) fn add_recipient(&mut self, args: &RcptArgs<'_>, ask: AskId, now: Moment) -> u16 {
        let argument = self.store(args.argument);
        let whole = Text {
            start: argument.start + offset_in(args.argument, args.path.whole) as u32,
            len: args.path.whole.len() as u16,
        };
        self.uses = self.uses.union(args.uses);
        self.recipients.push(Recipient {
            argument,
            mailbox: mailbox(&args.path, whole),
            state: RecipientState::Asked(ask),
            route: RouteId::default(),
            since: now,
        });
        (self.recipients.len() - 1) as u16
    }

    /// Recipient `index` is refused by weir with `reply`, in its turn.
    pub(crate) fn refuse(&mut self, index: usize, reply: ReplyText) {
        self.recipients[index].state = RecipientState::Refusing;
        let at = self
            .refusals
            .partition_point(|&(other, _)| usize::from(other) < index);
        self.refusals.insert(at, (index as u16, reply));
    }

    /// The reply that recipient `index` is refused with.
    pub(crate) fn take_refusal(&mut self, index: usize) -> ReplyText {
        let at = self
            .refusals
            .binary_search_by_key(&index, |&(other, _)| usize::from(other))
            .expect("a recipient in state Refusing has its reply stored");
        self.refusals.remove(at).1
    }

    pub(crate) fn recycle(&mut self) {
        self.arena.clear();
        self.arena.shrink_to(ARENA_KEPT);
        self.recipients.clear();
        self.recipients.shrink_to(RECIPIENTS_KEPT);
        self.refusals.clear();
        self.refusals.shrink_to(0);
        self.uses = ExtensionSet::default();
    }

    fn text(&self, text: Text) -> &[u8] {
        &self.arena[text.start as usize..text.start as usize + usize::from(text.len)]
    }

    fn store(&mut self, bytes: &[u8]) -> Text {
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        Text {
            start,
            // a command line is at most limits::MAX_COMMAND_LINE octets
            len: bytes.len() as u16,
        }
    }
}

/// The mailbox of a path, as a range of that path where it is stored.
fn mailbox(path: &Path<'_>, whole: Text) -> Text {
    Text {
        start: whole.start + offset_in(path.whole, path.mailbox) as u32,
        len: path.mailbox.len() as u16,
    }
}

/// Where the subslice `inner` begins in `outer`; 0 for an empty one, which may point anywhere.
fn offset_in(outer: &[u8], inner: &[u8]) -> usize {
    if inner.is_empty() {
        return 0;
    }
    let offset = (inner.as_ptr() as usize).wrapping_sub(outer.as_ptr() as usize);
    assert!(
        offset + inner.len() <= outer.len(),
        "a parsed part lies inside of what was parsed"
    );
    offset
}
