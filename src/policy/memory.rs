//! The memory of a shard: networks, providers, greylisted tuples, and what of it the others should know.
//!
//! Everything that happens is applied here at once and written down as [`News`]; what others have written down comes in
//! by [`Memory::learn`] about a second later. So a sender whose next try comes to another shard within that second
//! may be a stranger there once more, which costs it one more try. Nothing here waits or reads a clock.

use std::collections::HashMap;
use std::net::IpAddr;

use weir_smtp::path::Path;

use crate::net::ClientPrefix;

use super::book::{Book, Worth};
use super::clients::ClientKey;
use super::greylist::{self, Try, Tuples};
use super::history::{self, Tally};
use super::networks::{Network, Networks};
use super::news::{Deed, News, Seconds, TupleKey};

/// What memory goes by; the same for all shards.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Off: nothing is remembered and nothing is asked.
    pub on: bool,
    /// What is one network.
    pub prefix: ClientPrefix,
    /// Counts of deeds halve in this time.
    pub half_life: Seconds,
    /// Networks a shard keeps book of: 48 bytes each, and some 10 for the index.
    pub networks_max: u32,
    /// How long a spamtrap is held against a network.
    pub trap_time: Seconds,
    pub greylist: greylist::Config,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            on: false,
            prefix: ClientPrefix::new(24, 64).expect("within their ranges"),
            half_life: 7 * 86_400,
            networks_max: 1_000_000,
            trap_time: 86_400,
            greylist: greylist::Config::default(),
        }
    }
}

/// Providers a shard keeps book of: 32 bytes each; there are some eighty thousand.
const PROVIDERS_MAX: u32 = 131_072;
/// News that wait to be taken, at most; it is taken once a second.
const NEWS_MAX: usize = 65_536;

/// What is known of a client's network.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Known {
    /// 0: it did not pass greylisting, or too long ago.
    pub proven_until: Seconds,
    /// 0: it did not write to a spamtrap, or long ago.
    pub trapped_until: Seconds,
    /// Its autonomous system; 0: not known.
    pub asn: u32,
    /// Points for what it has done: bad ones above 0, good ones below.
    pub history: i16,
    /// Points for what the provider's networks have done, 0 or more.
    pub provider: i16,
}

/// The memory of one shard.
pub struct Memory {
    config: Config,
    networks: Networks,
    providers: Book<u32, Tally>,
    tuples: Tuples,
    news: Vec<News>,
    /// Where in `news` the deeds of a network are: those of one second are told at once.
    deeds: HashMap<ClientKey, usize>,
    news_dropped: u64,
}

impl Memory {
    pub fn new(config: Config) -> Memory {
        Memory {
            networks: Networks::new(config.networks_max, config.half_life),
            providers: Book::new(PROVIDERS_MAX),
            tuples: Tuples::new(config.greylist),
            news: Vec::new(),
            deeds: HashMap::new(),
            news_dropped: 0,
            config,
        }
    }

    pub const fn config(&self) -> &Config {
        &self.config
    }

    pub fn network_of(&self, ip: IpAddr) -> ClientKey {
        ClientKey::of(ip, self.config.prefix)
    }

    /// Everything about a client's network.
    pub fn known(&self, ip: IpAddr, now: Seconds) -> Known {
        let half_life = self.config.half_life;
        let Some(network) = self.networks.find(self.network_of(ip)) else {
            return Known::default();
        };
        let until = |is, until| if is { until } else { 0 };
        Known {
            proven_until: until(network.is_proven(now), network.proven_until),
            trapped_until: until(network.is_trapped(now), network.trapped_until),
            asn: network.asn,
            history: history::network_points(&network.tally, now, half_life),
            provider: self.provider_points(network.asn, now),
        }
    }

    /// Whether greylisting has nothing to ask a client's network any more.
    pub fn is_proven(&self, ip: IpAddr, now: Seconds) -> bool {
        let network = self.networks.find(self.network_of(ip));
        network.is_some_and(|network| network.is_proven(now))
    }

    /// Points of a provider, for a network that nothing is known of yet.
    pub fn provider_points(&self, asn: u32, now: Seconds) -> i16 {
        let provider = self.providers.find(asn).filter(|_| asn != 0);
        provider.map_or(0, |tally| {
            history::provider_points(tally, now, self.config.half_life)
        })
    }

    /// A client has done something. `asn`: its provider, as far as known; a network remembers it.
    pub fn did(&mut self, ip: IpAddr, asn: u32, deed: Deed, now: Seconds) {
        if !self.config.on {
            return;
        }
        let network = self.network_of(ip);
        let mut counts = [0; Deed::COUNT];
        counts[deed as usize] = 1;
        let asn = self.count(network, asn, &counts, now, now);
        self.tell_deed(network, asn, deed, now);
    }

    /// A client wrote to a spamtrap. Until when that is held against its network.
    pub fn trap(&mut self, ip: IpAddr, asn: u32, now: Seconds) -> Seconds {
        if !self.config.on {
            return 0;
        }
        self.did(ip, asn, Deed::Spamtrap, now);
        let network = self.network_of(ip);
        let until = now.saturating_add(self.config.trap_time);
        self.set_trapped(network, until, now);
        self.tell(News::Trapped { network, until });
        until
    }

    /// A client that greylisting asks about wants to send to somebody. None: its network is proven.
    pub fn tried(
        &mut self,
        ip: IpAddr,
        sender: &Path<'_>,
        recipient: &Path<'_>,
        now: Seconds,
    ) -> Option<Try> {
        let network = self.network_of(ip);
        if !self.config.on || self.renew(network, now) {
            return None;
        }
        let key = TupleKey::new(network, sender.mailbox, recipient.mailbox);
        let came = self.tuples.tried(key, now);
        match came {
            Try::First => {
                self.tell(News::Tuple { key, first: now });
            }
            Try::Passed => self.prove(network, now),
            Try::Early(_) | Try::NoRoom => {}
        }
        Some(came)
    }

    /// When a tuple was first seen, if it is waited for.
    #[cfg(test)]
    pub fn waits(&self, key: TupleKey, now: Seconds) -> Option<Seconds> {
        self.tuples.peek(key, now)
    }

    /// What others have learnt. Times that a wrong clock has made are cut to what they can be at most.
    pub fn learn(&mut self, news: &News, now: Seconds) {
        if !self.config.on {
            return;
        }
        match *news {
            News::Tuple { key, first } => self.tuples.learn(key, first, now),
            News::Proven { network, until } => {
                let until = until.min(now.saturating_add(self.config.greylist.lifetime));
                self.set_proven(network, until, now);
            }
            News::Trapped { network, until } => {
                let until = until.min(now.saturating_add(self.config.trap_time));
                self.set_trapped(network, until, now);
            }
            News::Deeds {
                network,
                asn,
                at,
                counts,
            } => {
                self.count(network, asn, &counts, at, now);
            }
        }
    }

    /// What the others should know, since the last time.
    pub fn take_news(&mut self) -> Vec<News> {
        self.deeds.clear();
        std::mem::take(&mut self.news)
    }

    /// News that nobody took in time, so far.
    pub const fn news_dropped(&self) -> u64 {
        self.news_dropped
    }

    /// Now and then, when there is nothing better to do: frees what is over.
    pub fn sweep(&mut self, now: Seconds) {
        let half_life = self.config.half_life;
        self.networks.sweep(now);
        self.tuples.sweep(now);
        self.providers
            .sweep(|tally| provider_worth(tally, now, half_life));
    }

    pub const fn networks(&self) -> &Networks {
        &self.networks
    }

    pub const fn tuples(&self) -> &Tuples {
        &self.tuples
    }

    pub const fn providers(&self) -> usize {
        self.providers.len()
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.networks.memory() + self.tuples.memory() + self.providers.memory()
    }

    /// Adds deeds to a network and its provider, whose number comes back.
    fn count(
        &mut self,
        key: ClientKey,
        asn: u32,
        counts: &[u16; Deed::COUNT],
        at: Seconds,
        now: Seconds,
    ) -> u32 {
        let half_life = self.config.half_life;
        let mut asn = asn;
        if let Some(network) = self.networks.find_or_add(key, now) {
            network.tally.add(counts, at, now, half_life);
            if asn != 0 {
                network.asn = asn;
            }
            asn = network.asn;
        }
        if asn == 0 {
            return 0;
        }
        let worth = |tally: &Tally| provider_worth(tally, now, half_life);
        if let Some(tally) = self.providers.find_or_add(asn, || Tally::new(now), worth) {
            tally.add(counts, at, now, half_life);
        }
        asn
    }

    /// Whether a network is proven; if so, its time is prolonged now and then: it sends.
    fn renew(&mut self, network: ClientKey, now: Seconds) -> bool {
        let Some(known) = self.networks.find(network).filter(|it| it.is_proven(now)) else {
            return false;
        };
        let lifetime = self.config.greylist.lifetime;
        // Not with each message: the others are to be told.
        if known.proven_until - now < lifetime - lifetime / 32 {
            self.prove(network, now);
        }
        true
    }

    fn prove(&mut self, network: ClientKey, now: Seconds) {
        let until = now.saturating_add(self.config.greylist.lifetime);
        self.set_proven(network, until, now);
        self.tell(News::Proven { network, until });
    }

    fn set_proven(&mut self, key: ClientKey, until: Seconds, now: Seconds) {
        self.change(key, until, now, |network| {
            network.proven_until = network.proven_until.max(until);
        });
    }

    fn set_trapped(&mut self, key: ClientKey, until: Seconds, now: Seconds) {
        self.change(key, until, now, |network| {
            network.trapped_until = network.trapped_until.max(until);
        });
    }

    /// Something that holds until then; what is over already changes nothing.
    fn change(
        &mut self,
        key: ClientKey,
        until: Seconds,
        now: Seconds,
        change: impl FnOnce(&mut Network),
    ) {
        if until <= now {
            return;
        }
        if let Some(network) = self.networks.find_or_add(key, now) {
            network.tally.decay(now, self.config.half_life);
            change(network);
        }
    }

    fn tell_deed(&mut self, network: ClientKey, asn: u32, deed: Deed, now: Seconds) {
        let told = self
            .deeds
            .get(&network)
            .and_then(|&at| self.news.get_mut(at));
        if let Some(News::Deeds { counts, at, .. }) = told {
            let count = &mut counts[deed as usize];
            *count = count.saturating_add(1);
            *at = now;
            return;
        }
        let mut counts = [0; Deed::COUNT];
        counts[deed as usize] = 1;
        let place = self.news.len();
        let told = self.tell(News::Deeds {
            network,
            asn,
            at: now,
            counts,
        });
        if told {
            self.deeds.insert(network, place);
        }
    }

    /// False: there is no room; what is dropped is known here only.
    fn tell(&mut self, news: News) -> bool {
        let fits = self.news.len() < NEWS_MAX;
        match fits {
            true => self.news.push(news),
            false => self.news_dropped += 1,
        }
        fits
    }
}

fn provider_worth(tally: &Tally, now: Seconds, half_life: Seconds) -> Worth {
    match tally.is_blank(now, half_life) {
        true => Worth::Nothing,
        false => Worth::Some(tally.at.into()),
    }
}

#[cfg(test)]
mod tests;
