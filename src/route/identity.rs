//! By what a mail server sees whom weir speaks for.

/// `--identity`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Identity {
    /// Not at all: every connection is weir's own.
    #[default]
    None,
    /// By a Received field in front of each message (RFC 5321, 4.4).
    Received,
    /// By XFORWARD in front of each transaction: for the log only.
    Xforward,
    /// By XCLIENT: the server takes the client for its own.
    Xclient,
    /// By a PROXY header in front of everything, as text or binary.
    ProxyV1,
    ProxyV2,
    /// By the client's own address as the source of the connection.
    Transparent,
}

impl Identity {
    /// An upstream connection serves one client only, from its beginning to its end.
    pub const fn is_dedicated(self) -> bool {
        match self {
            Identity::None | Identity::Received | Identity::Xforward => false,
            Identity::Xclient | Identity::ProxyV1 | Identity::ProxyV2 | Identity::Transparent => {
                true
            }
        }
    }
}

/// `--transparent-starttls`: what becomes of a client's STARTTLS on an upstream connection of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Starttls {
    /// Client and server talk TLS with each other.
    Tunnel,
    /// weir answers with its own certificate.
    Terminate,
    /// 454.
    Refuse,
}
