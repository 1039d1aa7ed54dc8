//! The plan's words on what is looked up about clients, and whom it is asked of.

use crate::cli::{config::Config, units::show};

pub fn dns_lists(config: &Config) -> String {
    let lists = &config.dnsbl;
    if lists.zones.is_empty() {
        return "none (--dnsbl)".into();
    }
    // By the names that are shown to strangers: a plan is pasted into tickets, and a zone may have a key in front.
    let words = lists.zones.iter().map(|zone| {
        let rules: Vec<String> = zone.rules().collect();
        let reason = if zone.wants_reason() {
            ", reasons told"
        } else {
            ""
        };
        format!("{} {}{reason}", zone.public(), rules.join(" "))
    });
    let tested = match lists.recheck.is_zero() {
        true => "believed untested".into(),
        false => format!("tested at start and every {}", show(lists.recheck)),
    };
    words.chain([tested]).collect::<Vec<_>>().join("\n")
}

pub fn resolver(config: &Config) -> String {
    if !config.asks_names() {
        return "nothing is looked up about clients".into();
    }
    let resolving = &config.resolving;
    let from = match resolving.resolvers.file() {
        Some(file) => format!(", of {}", file.display()),
        None => String::new(),
    };
    format!(
        "{}{from}; a try takes {}; {} answers remembered per shard, for {} to {}",
        resolving.resolvers.words(),
        show(resolving.timeout),
        resolving.cache,
        show(resolving.ttl.0),
        show(resolving.ttl.1),
    )
}
