//! What is known of a client beyond its address: told by a trusted peer (PROXY, XCLIENT) or by the way its connection took.

use std::net::SocketAddr;

use hashbrown::HashMap;

use crate::maillog::Told;
use crate::ring::SlotId;

/// Most sessions have none. The session's own peer is the real client, whoever told so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The trusted peer whose connection it is.
    pub by: Option<SocketAddr>,
    /// Where the client wanted to go.
    pub destination: Option<SocketAddr>,
    /// Its host name, as the peer found it.
    pub name: Option<Box<[u8]>>,
    /// Whom the peer has authenticated it as.
    pub login: Option<Box<[u8]>>,
    /// What the peer calls its connection.
    pub id: Option<Box<[u8]>>,
    /// The name it asked for when it began TLS with the peer.
    pub authority: Option<Box<[u8]>>,
    /// The peer speaks TLS with it.
    pub secured: bool,
    /// Told by XCLIENT.
    pub claimed: bool,
}

impl Introduction {
    /// Nobody spoke for it, but it wanted to go elsewhere.
    pub fn to(destination: SocketAddr) -> Introduction {
        Introduction {
            destination: Some(destination),
            ..Introduction::default()
        }
    }
}

/// For the log: who spoke for a client.
pub fn told(introduction: &Option<Box<Introduction>>) -> Told<'_> {
    introduction.as_ref().map_or(Told::default(), |told| Told {
        by: told.by,
        id: told.id.as_deref().unwrap_or_default(),
    })
}

/// Those of parked clients: few have one, so they lie beside the pit and not in its rows.
#[derive(Debug, Default)]
pub struct Introductions(HashMap<SlotId, Box<Introduction>, foldhash::fast::RandomState>);

impl Introductions {
    pub fn put(&mut self, slot: SlotId, introduction: Option<Box<Introduction>>) {
        if let Some(introduction) = introduction {
            self.0.insert(slot, introduction);
        }
    }

    /// Takes it out: its client is parked no more.
    pub fn take(&mut self, slot: SlotId) -> Option<Box<Introduction>> {
        if self.0.is_empty() {
            return None;
        }
        let introduction = self.0.remove(&slot);
        // A burst is not paid for when it is over.
        if self.0.is_empty() && self.0.capacity() > 1024 {
            self.0 = HashMap::default();
        }
        introduction
    }
}
