//! What is known of a client beyond its address: told by a trusted peer (PROXY, XCLIENT) or by the way its connection took.

use std::net::SocketAddr;

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
    /// The peer speaks TLS with it.
    pub secured: bool,
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
