//! TLS at both ends of a run: how a source asks for it, what a sink shows, and the octets of either in plaintext or in TLS.
//!
//! rustls with aws-lc-rs, as weir has it. What is measured here is the other side: what a handshake costs the source is on nobody's account.

pub mod certificate;
pub mod client;
pub mod wire;
