//! What a shard's table knows of one client address, for whoever asks: looking changes nothing.

use std::net::IpAddr;
use std::time::Duration;

use weir_smtp::time::Moment;

use super::clients::ClientKey;
use super::finding::Finding;
use super::pipeline::Policy;
use super::rate::{Rate, Tick};
use super::temper::Temper;

/// One address, as limits and tarpit see it.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Remembered {
    /// Open connections, parked ones included.
    pub connections: u32,
    /// For how long an accepted message still speaks for it; zero: none does.
    pub known_for: Duration,
    /// Errors that its next session begins with.
    pub errors: u16,
    pub temper: Temper,
    /// Until that gets better by a step.
    pub temper_for: Duration,
    /// Of each rate that is limited: what is noticed beyond it, and how many are allowed now.
    pub rates: Vec<(Finding, Rate, u32)>,
}

impl Policy {
    /// None: nothing is remembered, which is how a stranger is treated.
    pub fn remembered(&self, ip: IpAddr, now: Moment) -> Option<Remembered> {
        let config = self.config();
        let client = self.clients().peek(ClientKey::of(ip, config.prefix), now)?;
        let rates = [
            (
                Finding::RateConnections,
                config.rate_connections,
                client.connections,
            ),
            (Finding::RateMessages, config.rate_messages, client.messages),
            (
                Finding::RateRecipients,
                config.rate_recipients,
                client.recipients,
            ),
            (
                Finding::RateHandshakes,
                config.rate_handshakes,
                client.handshakes,
            ),
        ];
        let limited = rates
            .into_iter()
            .filter(|(_, rate, _)| !rate.is_unlimited());
        let mut temper = client.temper;
        Some(Remembered {
            connections: client.active(),
            known_for: client.known_for(now),
            errors: client.errors.left(now),
            temper: temper.at(&config.temper, now),
            temper_for: client.temper.holds(&config.temper, now),
            rates: limited
                .map(|(finding, rate, state)| (finding, rate, rate.left(state, Tick::from(now))))
                .collect(),
        })
    }
}
