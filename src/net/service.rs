//! What a listener does with the connections it takes.

/// How clients of a listener come to TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientTls {
    /// STARTTLS is not offered.
    #[default]
    Off,
    /// Offered; mail is taken without it.
    May,
    /// No mail without it: 530 5.7.0 (RFC 3207, 4).
    Require,
    /// The handshake comes first, before the greeting (RFC 8314, 3.3).
    Implicit,
}

/// How connections that were meant for other hosts come to a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intercept {
    /// By TPROXY: the socket's own address is where the client wanted to go.
    Tproxy,
    /// By REDIRECT: conntrack knows where the client wanted to go (SO_ORIGINAL_DST).
    Redirect,
}

/// What is special about a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    pub tls: ClientTls,
    /// Peers of `--trust` have to begin with a PROXY header.
    pub proxy: bool,
    /// The upstream is where the client wanted to go.
    pub intercept: Option<Intercept>,
}
