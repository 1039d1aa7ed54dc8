//! The order of checks: what is asked at which stage of a session, cheap first.
//!
//! [`Policy`] is one shard's. The shard calls one method per stage and gets a [`Ruling`]: what the core is
//! told, what decided it, and what else was noticed. Nothing here waits, looks anything up outside the
//! process or allocates per call.
//!
//! | stage | checks, in this order |
//! |---|---|
//! | connect | allow and deny list · overload · concurrency · connection rate |
//! | handshake | handshake rate |
//! | HELO | deny list of names |
//! | MAIL | deny list of senders · message rate |
//! | RCPT | relay control · deny list of recipients · spamtraps · findings and score · greylist · recipient rate |
//! | body | byte rate |
//! | findings of the core, errors, junk, slow body | the action of the finding |
//!
//! Clients on the allow list are exempt from everything but relay control and what protects the
//! message (bare newline, NUL, loop, slow body).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use weir_smtp::path::Path;
use weir_smtp::time::Moment;

use crate::net::ClientPrefix;

use super::access::{Access, Listed, Subject};
use super::actions::Actions;
use super::budget::{Kind, Ledger, Owed, Spent};
use super::bytes::ByteRate;
use super::clients::{ClientId, ClientKey, Clients};
use super::errors::{self, Errors};
use super::finding::{Action, Finding, FindingSet};
use super::overload::Rung;
use super::rate::{Rate, Tick};
use super::relay::Relay;
use super::reputation::{self, Outlook, Stakes};
use super::temper::{self, Temper};
use super::verdict::{self, Ruling};
use super::{concurrency, dnsbl, memory, pace};

/// What policy goes by; the same for all shards.
#[derive(Clone, Debug)]
pub struct Config {
    pub actions: Actions,
    /// What is one client.
    pub prefix: ClientPrefix,
    /// Connections at a time per client.
    pub concurrency: concurrency::Limit,
    pub rate_connections: Rate,
    pub rate_messages: Rate,
    pub rate_recipients: Rate,
    pub rate_bytes: ByteRate,
    pub rate_handshakes: Rate,
    pub errors: errors::Limits,
    pub temper: temper::Config,
    pub pace: pace::Config,
    /// DNS lists that are asked of clients.
    pub dnsbl: dnsbl::Config,
    /// What is remembered of networks.
    pub memory: memory::Config,
    pub reputation: reputation::Config,
    /// Whether hosts count rates together: then what clients spend is written down.
    pub shares_rates: bool,
    /// Client addresses a shard keeps book of: 64 bytes each, and 5 for the index.
    pub clients_max: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            actions: Actions::default(),
            prefix: ClientPrefix::default(),
            concurrency: concurrency::Limit::default(),
            rate_connections: Rate::UNLIMITED,
            rate_messages: Rate::UNLIMITED,
            rate_recipients: Rate::UNLIMITED,
            rate_bytes: ByteRate::UNLIMITED,
            rate_handshakes: Rate::UNLIMITED,
            errors: errors::Limits::default(),
            temper: temper::Config::default(),
            pace: pace::Config::default(),
            dnsbl: dnsbl::Config::default(),
            memory: memory::Config::default(),
            reputation: reputation::Config::default(),
            shares_rates: false,
            clients_max: 1 << 18,
        }
    }
}

/// What a session (or its row in the pit) keeps of its client: 8 bytes.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Standing {
    client: ClientId,
    /// On the allow list.
    allowed: bool,
    /// May send anywhere (`--relay-from`).
    relay_from: bool,
}

const _: () = assert!(size_of::<Standing>() == 8);

impl Standing {
    /// Of somebody nothing is known about.
    pub const STRANGER: Standing = Standing {
        client: ClientId::NONE,
        allowed: false,
        relay_from: false,
    };

    pub const fn is_allowed(self) -> bool {
        self.allowed
    }

    /// Who it is does not matter: it is on the allow list, or may send anywhere.
    pub const fn is_beyond_doubt(self) -> bool {
        self.allowed || self.relay_from
    }

    /// The same client where an upstream vouches for it: where it may send is not weir's question.
    pub const fn vouched_for(mut self) -> Standing {
        self.relay_from = true;
        self
    }
}

/// The answer to a new connection.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Admission {
    /// To be given back with [`Policy::disconnected`], also if the client is refused.
    pub standing: Standing,
    pub ruling: Ruling,
    /// The counts its session begins with.
    pub errors: Errors,
}

/// Policy of one shard.
pub struct Policy {
    config: Arc<Config>,
    access: Arc<Access>,
    relay: Arc<Relay>,
    clients: Clients,
    ledger: Ledger,
}

impl Policy {
    pub fn new(config: Arc<Config>, access: Arc<Access>, relay: Arc<Relay>) -> Policy {
        let clients = Clients::new(config.clients_max, config.temper);
        let ledger = Ledger::new(config.shares_rates);
        Policy {
            config,
            access,
            relay,
            clients,
            ledger,
        }
    }

    /// New lists; open sessions keep the standing they have.
    pub fn set_access(&mut self, access: Arc<Access>) {
        self.access = access;
    }

    pub fn set_relay(&mut self, relay: Arc<Relay>) {
        self.relay = relay;
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether it may send anywhere.
    pub fn is_relay_from(&self, ip: IpAddr) -> bool {
        self.relay.is_from(ip)
    }

    /// What the lists say of somebody: whom they allow is spared other checks too.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// A client has connected. To be called before anything is sent.
    pub fn connected(&mut self, ip: IpAddr, rung: Rung, now: Moment) -> Admission {
        let mut admission = Admission {
            standing: Standing {
                relay_from: self.relay.is_from(ip),
                ..Standing::STRANGER
            },
            ruling: Ruling::PASS,
            errors: Errors::default(),
        };
        let ruling = &mut admission.ruling;
        match self.access.lookup(ip) {
            Some(Listed::Allow) => {
                admission.standing.allowed = true;
                return admission;
            }
            Some(Listed::Deny) if !self.weigh(Finding::DenyList, ruling) => return admission,
            _ => {}
        }
        if rung >= Rung::Shed && !self.weigh(Finding::Overload, ruling) {
            return admission;
        }
        let Some(id) = self
            .clients
            .open(ClientKey::of(ip, self.config.prefix), now)
        else {
            self.weigh(Finding::Overload, ruling);
            return admission;
        };
        admission.standing.client = id;
        let Config {
            errors,
            concurrency,
            ..
        } = *self.config;
        let client = self.clients.client(id, now).expect("just opened");
        admission.errors = client.errors.fresh(&errors, now);
        let stranger =
            rung >= Rung::KnownOnly && !admission.standing.relay_from && !client.is_known(now);
        let crowd = concurrency.is_exceeded_by(client.active());
        // One that is refused for another reason is not counted: it comes back, and would find itself punished for that.
        let hasty = !stranger && !crowd && !self.spend(admission.standing, Kind::Connections, now);
        let found = [
            (stranger, Finding::Overload),
            (crowd, Finding::Concurrency),
            (hasty, Finding::RateConnections),
        ];
        for (_, finding) in found.into_iter().filter(|(is, _)| *is) {
            if !self.judge(admission.standing, finding, ruling, now) {
                // Nor does it take a place while it is being closed: who tries again and again would keep itself out.
                self.clients.close(id, now);
                admission.standing.client = ClientId::NONE;
                break;
            }
        }
        admission
    }

    /// The connection is over. `errors` are the counts its session ended with.
    pub fn disconnected(&mut self, standing: Standing, errors: Errors, now: Moment) {
        if let Some(client) = self.clients.client(standing.client, now) {
            client.errors.record(errors, now);
        }
        self.clients.close(standing.client, now);
    }

    /// A TLS handshake is to begin, by STARTTLS or before the greeting.
    pub fn handshake(&mut self, standing: Standing, now: Moment) -> Ruling {
        let rate = self.config.rate_handshakes;
        let within = self
            .clients
            .client(standing.client, now)
            .is_none_or(|client| rate.take(&mut client.handshakes, Tick::from(now)));
        self.unless(within, standing, Finding::RateHandshakes, now)
    }

    /// HELO or EHLO, with the name that the client gives.
    pub fn helo(&mut self, standing: Standing, name: &[u8], now: Moment) -> Ruling {
        let fine = self.access.helo(name) != Some(Listed::Deny);
        self.unless(fine || standing.allowed, standing, Finding::DenyHelo, now)
    }

    /// MAIL, well-formed.
    pub fn mail(&mut self, standing: Standing, path: &Path<'_>, now: Moment) -> Ruling {
        let fine = self.access.sender(path) != Some(Listed::Deny);
        let ruling = self.unless(fine || standing.allowed, standing, Finding::DenySender, now);
        if !ruling.passes() {
            return ruling;
        }
        let within = self.spend(standing, Kind::Messages, now);
        ruling.and(self.unless(within, standing, Finding::RateMessages, now))
    }

    /// RCPT, well-formed: may this client send there, may anybody? Asked first.
    pub fn relays(&mut self, standing: Standing, path: &Path<'_>, now: Moment) -> Ruling {
        let mut ruling = Ruling::PASS;
        if !standing.relay_from && !self.relay.is_ours(path) {
            self.weigh(Finding::Relay, &mut ruling);
        }
        if !ruling.passes() {
            return ruling;
        }
        let fine = self.access.recipient(path) != Some(Listed::Deny);
        self.unless(
            fine || standing.allowed,
            standing,
            Finding::DenyRecipient,
            now,
        )
    }

    /// RCPT, and nothing speaks against it: counted. Asked last.
    pub fn recipient(&mut self, standing: Standing, now: Moment) -> Ruling {
        let within = self.spend(standing, Kind::Recipients, now);
        self.unless(within, standing, Finding::RateRecipients, now)
    }

    /// One more of these, if that is within the client's rate.
    fn spend(&mut self, standing: Standing, kind: Kind, now: Moment) -> bool {
        let rate = self.rate_of(kind);
        let Some(client) = self.clients.client(standing.client, now) else {
            return true;
        };
        let within = rate.take(kind.tat(client), Tick::from(now));
        if within {
            let key = client.key();
            self.ledger.note(key, kind, rate);
        }
        within
    }

    fn rate_of(&self, kind: Kind) -> Rate {
        match kind {
            Kind::Connections => self.config.rate_connections,
            Kind::Messages => self.config.rate_messages,
            Kind::Recipients => self.config.rate_recipients,
        }
    }

    /// What clients have spent of their rates since the last time, for the other hosts.
    pub fn take_spent(&mut self) -> Vec<Spent> {
        let mut ledger = std::mem::take(&mut self.ledger);
        let spent = ledger.take(|kind| self.rate_of(kind));
        self.ledger = ledger;
        spent
    }

    /// What clients have spent on all hosts. Who is not known here any more has his allowance back.
    pub fn owe(&mut self, owed: &[Owed], now: Moment) {
        for owed in owed {
            let rate = self.rate_of(owed.kind);
            if let Some(client) = self.clients.known(owed.client, now) {
                rate.owe(owed.kind.tat(client), Tick::from(now), owed.ahead);
            }
        }
    }

    /// Whether this client's senders and recipients need not be seen: where they are weir's to decide about, nothing passes
    /// unread.
    pub fn may_go_unread(&self, standing: Standing) -> bool {
        let refuses = |finding| self.config.actions.of(finding).refuses();
        let denied = [
            (Subject::Sender, Finding::DenySender),
            (Subject::Recipient, Finding::DenyRecipient),
        ];
        let may_send = standing.relay_from || self.relay.is_open() || !refuses(Finding::Relay);
        let is_denied = |(subject, finding)| self.access.denies(subject) && refuses(finding);
        may_send && (standing.allowed || !denied.into_iter().any(is_denied))
    }

    /// Message data was read. [`Finding::RateBytes`] was noticed if there is an answer: how long reading has to pause
    /// (not at all where the action is `log`).
    pub fn body(&mut self, standing: Standing, octets: u32, now: Moment) -> Option<Duration> {
        let rate = self.config.rate_bytes;
        let action = self.config.actions.of(Finding::RateBytes);
        if rate.is_unlimited() || action == Action::Off {
            return None;
        }
        let client = self.clients.client(standing.client, now)?;
        let over = rate.take(&mut client.bytes, octets, now);
        let pause = if action == Action::Delay {
            over
        } else {
            Duration::ZERO
        };
        (over > Duration::ZERO).then_some(pause)
    }

    /// Something was found: by the core, or by counting.
    pub fn found(&mut self, standing: Standing, finding: Finding, now: Moment) -> Ruling {
        let protects_mail = matches!(
            finding,
            Finding::BareNewline
                | Finding::Nul
                | Finding::Loop
                | Finding::SlowBody
                | Finding::InterceptLoop
        );
        self.unless(standing.allowed && !protects_mail, standing, finding, now)
    }

    /// What a score has reached: each step is noticed, the most severe that refuses decides. `found`: what was found by now.
    pub fn outlook(&self, found: FindingSet, score: i32) -> Outlook {
        let config = &self.config;
        config.reputation.outlook(found, score, &config.actions)
    }

    /// What a recipient is refused for; see [`super::reputation::Config::refusal`].
    pub fn refusal(
        &self,
        found: FindingSet,
        score: i32,
        neighbours: i32,
    ) -> Option<(Finding, Action)> {
        let config = &self.config;
        config
            .reputation
            .refusal(found, score, neighbours, &config.actions)
    }

    /// Whether that holds whatever the answers to open questions are.
    pub fn suffices(&self, found: FindingSet, score: i32, open: Stakes, spared: bool) -> bool {
        let config = &self.config;
        config
            .reputation
            .suffices(found, score, open, spared, &config.actions)
    }

    /// How a score alone would have a session treated.
    pub fn temper_of(&self, score: i32) -> Temper {
        let reached = self.config.reputation.thresholds.reached(score);
        let worst = reached.iter().filter_map(|step| self.worse(step)).max();
        worst.unwrap_or_default()
    }

    /// An upstream accepted a message of this client.
    pub fn accepted(&mut self, standing: Standing, now: Moment) {
        if let Some(client) = self.clients.client(standing.client, now) {
            client.set_known(now);
        }
    }

    /// How a session is treated now: as its address is, and as its own errors make it.
    pub fn temper(&mut self, standing: Standing, errors: Errors, now: Moment) -> Temper {
        if standing.allowed {
            return Temper::Normal;
        }
        let earned = errors
            .passed(&self.config.errors)
            .filter_map(|finding| self.worse(finding))
            .max();
        let config = self.config.temper;
        let remembered = self
            .clients
            .client(standing.client, now)
            .map(|client| client.temper.at(&config, now));
        earned.max(remembered).unwrap_or_default()
    }

    /// Now and then, when there is nothing better to do: frees entries of addresses that are gone.
    pub fn sweep(&mut self, now: Moment) {
        self.clients.sweep(now);
    }

    pub const fn clients(&self) -> &Clients {
        &self.clients
    }

    fn unless(&mut self, fine: bool, standing: Standing, finding: Finding, now: Moment) -> Ruling {
        let mut ruling = Ruling::PASS;
        if !fine {
            self.judge(standing, finding, &mut ruling, now);
        }
        ruling
    }

    /// Adds a finding to a ruling and to how the client is treated. False: the client is refused, no need to look further.
    fn judge(
        &mut self,
        standing: Standing,
        finding: Finding,
        ruling: &mut Ruling,
        now: Moment,
    ) -> bool {
        // Errors are the session's own: a large sender has others that did nothing.
        let of_session = matches!(
            finding,
            Finding::ErrorsSoft | Finding::ErrorsHard | Finding::Junk
        );
        if !of_session
            && let Some(worse) = self.worse(finding)
            && let Some(client) = self.clients.client(standing.client, now)
        {
            client.temper.worsen(worse, &self.config.temper, now);
        }
        self.weigh(finding, ruling)
    }

    /// The treatment that a finding leads to.
    fn worse(&self, finding: Finding) -> Option<Temper> {
        match self.config.actions.of(finding) {
            Action::Delay => Some(Temper::Delayed),
            Action::Stutter => Some(Temper::Stutter),
            _ => None,
        }
    }

    /// Adds a finding to a ruling. False: the client is refused.
    fn weigh(&self, finding: Finding, ruling: &mut Ruling) -> bool {
        let action = self.config.actions.of(finding);
        if action != Action::Off {
            ruling.noticed.insert(finding);
        }
        if action > Action::Log {
            ruling.by = Some((finding, action));
        }
        if action.refuses() {
            ruling.verdict = verdict::verdict(finding, action);
        }
        ruling.passes()
    }
}

#[cfg(test)]
mod tests;
