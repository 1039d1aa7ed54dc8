//! The whole configuration: all flags read together, what does not fit together found, everything wrong told at once.

use std::sync::Arc;

use crate::route::Starttls;

use super::{
    flags::{
        Flags, Purpose, clients::Clients, identity::Identifying, listen::Listening, logs::Logging,
        memory::Remembering, messages::Messages, relay::Relaying, reputation::Reputation,
        resolver::Resolving, running::Running, state::Lasting, tarpit::Tarpit, timeouts::Timeouts,
        trust::Trusting, upstream_tls::Mode, upstreams::Upstreams,
    },
    needs::{self, Reread},
    reader::{Reader, Wrong},
    tls::Tls,
    units::Fault,
};
use crate::net::ClientTls;
use crate::policy::access::Access;
use crate::policy::{
    Action, Finding,
    greylist::When,
    reputation::{self, STEPS},
};
use crate::tls::UpstreamMode;

/// What the flags mean. Complete and valid: nothing downstream checks again.
#[derive(Clone)]
pub struct Config {
    pub listening: Listening,
    pub upstreams: Upstreams,
    pub tls: Tls,
    pub identifying: Identifying,
    /// How hosts that clients want to go to themselves are spoken to.
    pub original_tls: Mode,
    pub trusting: Trusting,
    pub relaying: Relaying,
    pub messages: Messages,
    pub clients: Clients,
    pub access: Arc<Access>,
    pub tarpit: Tarpit,
    pub reputation: Reputation,
    /// Lists in DNS that are asked of clients.
    pub dnsbl: crate::policy::dnsbl::Config,
    pub remembering: Remembering,
    pub resolving: Resolving,
    pub lasting: Lasting,
    pub timeouts: Timeouts,
    pub logging: Logging,
    pub running: Running,
    /// Files that are read again while weir runs.
    pub reread: Vec<Reread>,
}

impl Config {
    /// `host`: this machine's own name. `before`: what was wrong with the command line already.
    pub fn read(
        flags: &Flags,
        purpose: Purpose,
        host: &str,
        before: Vec<Wrong>,
    ) -> Result<Config, Vec<Wrong>> {
        let mut reader = Reader::default();
        let running = flags.running.read(&mut reader);
        let purpose = match purpose {
            Purpose::Relay if running.demo => Purpose::Demo,
            given => given,
        };
        let listening = flags.listen.read(&mut reader, purpose, host);
        let identifying = flags.identity.read(&mut reader, purpose);
        let destined = identifying.intercept.is_some();
        let mode = flags.upstream_tls.mode(&mut reader);
        if destined && mode == Some(UpstreamMode::Verify) {
            let fault = Fault::new(
                "is not for --transparent: of where a client wants to go only the address is known, and certificates are for names",
                "write require, which takes any certificate",
            );
            reader.wrong("--upstream-tls", &flags.upstream_tls.upstream_tls, fault);
        }
        let upstreams = flags.upstreams.read(&mut reader, purpose, destined, mode);
        let config = Config {
            tls: Tls::read(flags, &mut reader, purpose, &upstreams.upstreams),
            upstreams,
            relaying: flags
                .relay
                .read(&mut reader, &listening.addresses(), (&identifying).into()),
            identifying,
            original_tls: mode.filter(|mode| destined && *mode != UpstreamMode::Verify),
            trusting: flags.trust.read(&mut reader),
            messages: flags.messages.read(&mut reader),
            clients: flags.clients.read(&mut reader),
            access: Arc::new(flags.lists.read(&mut reader)),
            tarpit: flags.tarpit.read(&mut reader),
            reputation: flags.reputation.read(&mut reader),
            dnsbl: flags.dnsbl.read(&mut reader),
            remembering: flags.memory.read(&mut reader),
            resolving: flags.resolver.read(&mut reader),
            lasting: flags.state.read(&mut reader),
            timeouts: flags.timeouts.read(&mut reader),
            logging: flags.logs.read(&mut reader),
            listening,
            running,
            reread: needs::lists(flags),
        };
        config.agree(&mut reader);
        let wrong: Vec<Wrong> = before
            .into_iter()
            .chain(reader.finish().err().unwrap_or_default())
            .collect();
        if wrong.is_empty() {
            Ok(config)
        } else {
            Err(wrong)
        }
    }

    /// How clients are inquired of.
    pub fn reputation(&self) -> reputation::Config {
        let spoken_of = self.tarpit.actions.speak_of_reputation();
        let remembering = &self.remembering;
        let greylist = &remembering.memory.greylist;
        let config = self
            .reputation
            .config(spoken_of || !self.dnsbl.zones.is_empty() || remembering.is_wanted);
        reputation::Config {
            // A good score spares under all, which is a score as well.
            // What is only logged is not worth a wait.
            greylist_from: match greylist.when {
                _ if !self.tarpit.actions.of(Finding::Greylist).refuses() => None,
                When::Off => None,
                When::Score => Some(greylist.score as i16),
                When::All => Some(0),
            },
            ..config
        }
    }

    /// Whether anything is looked up about clients.
    pub fn asks_names(&self) -> bool {
        self.reputation().on
    }

    /// What no group can see alone.
    fn agree(&self, reader: &mut Reader) {
        let (admin, listen) = (self.running.admin, self.listening.addresses());
        if let Some(admin) = admin.filter(|admin| listen.contains(admin) && admin.port() != 0) {
            reader.wrong(
                "--admin",
                admin.to_string(),
                Fault::new("is also a --listen address", "use another port"),
            );
        }
        for listener in &self.listening.listen {
            let flag = match listener.tls {
                Some(ClientTls::Implicit) => "--listen-tls",
                _ => "--listen",
            };
            let does = listener.tls.unwrap_or(ClientTls::Off);
            self.tls
                .agree(reader, flag, listener.address.to_string(), does);
        }
        let proxied = self.listening.listen.iter().find(|listen| listen.proxy);
        if let (Some(listener), true) = (proxied, self.trusting.typed.is_empty()) {
            let fault = Fault::new(
                "has ,proxy, and nobody may send a PROXY header",
                "name the proxies with --trust",
            );
            reader.wrong("--listen", listener.address.to_string(), fault);
        }
        if self.identifying.starttls == Some(Starttls::Terminate)
            && !self.tls.settings.server.has_certificate()
        {
            reader.wrong(
                "--transparent-starttls",
                "terminate",
                super::flags::tls::needs_certificate(),
            );
        }
        let mut wishes = self.upstreams.upstreams.iter().map(|one| one.tls.is_some());
        let secures = self.original_tls.is_some() || wishes.any(|wish| wish);
        if self.identifying.starttls == Some(Starttls::Tunnel) && secures {
            let fault = Fault::new(
                "leaves TLS to clients and servers, and --upstream-tls has weir speak it",
                "write terminate or refuse here, or --upstream-tls off",
            );
            reader.wrong("--transparent-starttls", "tunnel", fault);
        }
        let reputation = self.reputation();
        for step in STEPS {
            let action = self.tarpit.actions.of(step);
            if action > Action::Log && reputation.thresholds.of(step).is_none() {
                let fault = Fault::new(
                    "begins at no score",
                    format!("say from which score on, with --{step} N"),
                );
                reader.wrong("--on", format!("{step}={action}"), fault);
            }
        }
        if self.upstreams.queue_wait > self.timeouts.end {
            let fault = Fault::new(
                "is longer than --deadline-final",
                "shorten it: the reply's deadline would end the wait first",
            );
            reader.wrong(
                "--queue-wait",
                super::units::show(self.upstreams.queue_wait),
                fault,
            );
        }
        for upstream in self.upstreams.upstreams.iter() {
            let own = upstream
                .host
                .parse()
                .ok()
                .map(|ip| std::net::SocketAddr::new(ip, upstream.port));
            if own.is_some_and(|own| listen.contains(&own)) {
                let fault = Fault::new(
                    "is weir itself",
                    "name the mail server behind weir, not a --listen address",
                );
                reader.wrong("--upstream", upstream.name(), fault);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Wanted, parse};

    fn read(words: &[&str]) -> Result<Config, Vec<Wrong>> {
        let (Some(Wanted::Run(flags)), wrong) = parse(words.iter().map(|w| (*w).to_owned())) else {
            panic!("{words:?}")
        };
        Config::read(&flags, Purpose::Relay, "mx.example", wrong)
    }

    fn blamed(words: &[&str]) -> Vec<String> {
        read(words)
            .err()
            .expect("errors were expected")
            .into_iter()
            .map(|wrong| wrong.flag)
            .collect()
    }

    #[test]
    fn the_real_thing_and_the_demo_are_valid() {
        let real = [
            "--listen",
            "0.0.0.0:25",
            "--upstream",
            "mx1.example:25",
            "--upstream",
            "mx2.example:25",
            "--relay-domains",
            "example.com",
        ];
        assert_eq!(read(&real).ok().unwrap().upstreams.upstreams.len(), 2);
        let demo = read(&["--demo"]).ok().unwrap();
        assert!(demo.upstreams.upstreams.is_empty() && demo.running.admin.is_some());
    }

    #[test]
    fn errors_of_all_groups_are_reported_at_once() {
        let words = [
            "--listen",
            "0.0.0.0:25",
            "--upstream",
            "a b:x",
            "--shards",
            "many",
            "--on",
            "x=y",
            "--log-format",
            "xml",
            "--frobnicate",
            "--hold-size",
            "1",
        ];
        let blamed = blamed(&words);
        for flag in [
            "--frobnicate",
            "--upstream",
            "--shards",
            "--on",
            "--log-format",
            "--hold-size",
            "--listen",
        ] {
            assert!(blamed.iter().any(|b| b == flag), "{flag} in {blamed:?}");
        }
    }

    #[test]
    fn every_flag_names_itself_when_its_value_makes_no_sense() {
        let free = [
            "hostname",
            "log-file",
            "relay-domains",
            "demo",
            "help",
            "version",
        ];
        for arg in crate::cli::args::command().get_arguments() {
            let Some(long) = arg.get_long().filter(|long| !free.contains(long)) else {
                continue;
            };
            let flag = format!("--{long}");
            let wrong = read(&[
                "--listen",
                "127.0.0.1:1",
                "--upstream",
                "mx",
                &flag,
                "/no such value/",
            ])
            .err();
            let named = wrong
                .as_ref()
                .is_some_and(|wrong| wrong.iter().any(|w| w.flag == flag));
            assert!(named, "{flag}: {wrong:?}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_found() {
        let base = ["--listen", "127.0.0.1:2525", "--upstream", "127.0.0.1:2525"];
        assert_eq!(blamed(&base), ["--upstream"]);
        assert_eq!(
            blamed(&[
                "--listen",
                "127.0.0.1:2525",
                "--upstream",
                "mx",
                "--admin",
                "127.0.0.1:2525"
            ]),
            ["--admin"]
        );
        assert_eq!(
            blamed(&[
                "--listen",
                "127.0.0.1:2525",
                "--upstream",
                "mx",
                "--queue-wait",
                "5m",
                "--deadline-final",
                "2m"
            ]),
            ["--queue-wait"]
        );
        let words = "--listen 127.0.0.1:25 --transparent tproxy --identity transparent --upstream-tls verify";
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(blamed(&words), ["--upstream-tls"], "for which name?");
        let mut tunnel = words.clone();
        tunnel[7] = "may";
        assert_eq!(blamed(&tunnel), ["--transparent-starttls"]);
        let refused = [&tunnel[..], &["--transparent-starttls", "refuse"]].concat();
        let config = read(&refused).expect("TLS on one side");
        assert_eq!(config.original_tls, Some(UpstreamMode::May));
        assert_eq!(blamed(&["--demo", "--upstream", "mx"]), ["--demo"]);
        assert_eq!(blamed(&["--demo", "--on", "score-drop=drop"]), ["--on"]);
        let path = ["--listen", "0.0.0.0:25", "--transparent", "tproxy"];
        assert_eq!(blamed(&path), ["--listen"], "who may send where?");
        let shown = [&path[..], &["--identity", "transparent"]].concat();
        assert!(read(&shown).is_ok());
        let both = [&shown[..], &["--upstream", "mx"]].concat();
        assert_eq!(blamed(&both), ["--upstream"]);
        let ended = [&shown[..], &["--transparent-starttls", "terminate"]].concat();
        assert_eq!(
            blamed(&ended),
            ["--transparent-starttls"],
            "with which certificate?"
        );
    }
}
