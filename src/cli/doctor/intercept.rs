//! Whether this host hands weir the connections that were meant for others, and the answers to them (`--transparent`,
//! `--identity transparent`): sockets, packet rules, routes, and the kernel's source checks.

use std::fs;
use std::net::SocketAddr;

use super::packet_rules::{PacketRules, Routes, ask};
use super::{Level, Point, read};
use crate::cli::config::Config;
use crate::net::{self, Intercept};
use crate::route::Identity;

const SCRIPT: &str = "weir-transparent up (tuning/transparent)";
const FAMILIES: [(&str, &str); 2] = [("IPv4", "-4"), ("IPv6", "-6")];

/// A rule set that asks the kernel for all that is used, and is not loaded.
const TRIAL: &str =
    "table inet weir_doctor { chain prerouting { type filter hook prerouting priority mangle
meta l4proto tcp socket transparent 1 accept
meta nfproto ipv4 meta l4proto tcp tproxy ip to :1 accept
meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :1 accept
}
}
";

/// What is asked for.
struct Wish {
    way: Option<Intercept>,
    /// Servers see clients' addresses, so answers to these come by.
    shows_client: bool,
    /// Listeners, by family.
    ports: [Vec<u16>; 2],
    own_mark: u32,
}

/// Nothing where no connection but weir's own is dealt with.
pub(super) fn points(config: &Config) -> Vec<Point> {
    let Some(wish) = Wish::of(config) else {
        return Vec::new();
    };
    let mut points = Vec::new();
    if wish.needs_transparent_sockets() {
        points.extend(sockets());
    }
    match packet_rules() {
        Ok(rules) => {
            points.extend(wish.rules_points(&rules));
            points.extend(wish.route_points(&rules, [routes("-4"), routes("-6")]));
        }
        Err(why) => points.push(Point::warning(
            format!("packet rules cannot be read: {why}"),
            "run weir doctor as root, with nftables and iproute2 installed",
        )),
    }
    if wish.needs_transparent_sockets() {
        points.extend(kernel(ask("nft", &["-c", "-f", "-"], TRIAL)));
        points.extend(source_checks(
            &sysctls("rp_filter"),
            &sysctls("src_valid_mark"),
        ));
    }
    if wish.way == Some(Intercept::Redirect) {
        points.push(conntrack(
            &read("/proc/sys/net/netfilter/nf_conntrack_max"),
            u64::from(config.listening.connections_max),
        ));
    }
    points.extend(forwarding(
        &read("/proc/sys/net/ipv4/ip_forward"),
        &read("/proc/sys/net/ipv6/conf/all/forwarding"),
    ));
    points
}

impl Wish {
    fn of(config: &Config) -> Option<Wish> {
        let identifying = &config.identifying;
        let shows_client = identifying.identity == Identity::Transparent;
        if identifying.intercept.is_none() && !shows_client {
            return None;
        }
        let of_family = |v4: bool| {
            let addresses = config.listening.addresses().into_iter();
            let these = addresses.filter(move |address| address.is_ipv4() == v4);
            these.map(|address: SocketAddr| address.port()).collect()
        };
        Some(Wish {
            way: identifying.intercept,
            shows_client,
            ports: [of_family(true), of_family(false)],
            own_mark: identifying.mark,
        })
    }

    fn needs_transparent_sockets(&self) -> bool {
        self.shows_client || self.way == Some(Intercept::Tproxy)
    }

    /// Without a listener both families are of interest.
    fn families(&self) -> impl Iterator<Item = usize> {
        let named = self.ports.iter().any(|ports| !ports.is_empty());
        let wanted = [0, 1].map(|family: usize| !named || !self.ports[family].is_empty());
        (0..2).filter(move |family| wanted[*family])
    }

    fn rules_points(&self, rules: &PacketRules) -> Vec<Point> {
        let mut points = Vec::new();
        for family in self.families() {
            if let Some(way) = self.way {
                points.push(self.taking_point(rules, way, family));
            }
        }
        let needs_socket = self.shows_client || self.way == Some(Intercept::Tproxy);
        if needs_socket && rules.sockets.is_empty() {
            points.push(Point::failure(
                "no packet rule knows the packets of transparent sockets: answers of servers to clients' addresses pass weir by",
                format!("{SCRIPT}, or: meta l4proto tcp socket transparent 1 meta mark set MARK accept"),
            ));
        }
        let output = rules.takings.iter().any(|taking| taking.output);
        if output && self.own_mark == 0 {
            points.push(Point::failure(
                "a packet rule takes what this host sends, weir's own connections too: they come back to weir",
                "--transparent-mark N, and a rule before it: meta mark N return",
            ));
        }
        points
    }

    fn taking_point(&self, rules: &PacketRules, way: Intercept, family: usize) -> Point {
        let word = match way {
            Intercept::Tproxy => "tproxy",
            Intercept::Redirect => "redirect",
        };
        let (name, _) = FAMILIES[family];
        let here = |taking: &&super::packet_rules::Taking| {
            taking.way == way && [taking.v4, taking.v6][family]
        };
        let ports: Vec<u16> = rules
            .takings
            .iter()
            .filter(here)
            .filter_map(|taking| taking.port)
            .collect();
        let listening = &self.ports[family];
        let deaf: Vec<&u16> = listening
            .iter()
            .filter(|port| !ports.contains(port))
            .collect();
        let remedy = match listening.first() {
            Some(port) => format!("{SCRIPT} with --flavour {word} --listen-port {port}"),
            None => format!("{SCRIPT} with --flavour {word}"),
        };
        if ports.is_empty() {
            let other = rules.takings.iter().any(|taking| taking.way != way);
            let but = match other {
                true => " (but there are rules of the other way: see --transparent)",
                false => "",
            };
            return Point::warning(
                format!("no {word} rule for {name}: nothing comes to weir{but}"),
                remedy,
            );
        }
        if let (Some(port), true) = (deaf.first(), deaf.len() == listening.len()) {
            return Point::warning(
                format!("{name}: {word} rules lead to {ports:?}, and none to --listen port {port}"),
                remedy,
            );
        }
        Point::good(format!("{name}: {word} to port {}", ports[0]))
    }

    fn route_points(&self, rules: &PacketRules, routes: [Result<Routes, String>; 2]) -> Vec<Point> {
        let taken = rules.takings.iter();
        let taken = taken.filter(|taking| taking.way == Intercept::Tproxy);
        let marks = taken.map(|taking| taking.mark);
        let mut marks: Vec<u32> = marks
            .chain(rules.sockets.iter().copied())
            .flatten()
            .collect();
        marks.sort_unstable();
        marks.dedup();
        if marks.is_empty() {
            return Vec::new();
        }
        let mut points = Vec::new();
        for family in self.families() {
            let (name, flag) = FAMILIES[family];
            let routes = match &routes[family] {
                Ok(routes) => routes,
                Err(why) => {
                    let what = format!("{name}: routes cannot be read: {why}");
                    points.push(Point::warning(what, "install iproute2"));
                    continue;
                }
            };
            let lacks = marks
                .iter()
                .find_map(|mark| Some((mark, routes.lacks(*mark)?)));
            points.push(match lacks {
                Some((mark, what)) => Point::failure(
                    format!("{name}: {what}: marked packets do not arrive at weir"),
                    format!("{SCRIPT}, or: ip {flag} rule add fwmark {mark:#x} lookup T; ip {flag} route add local default dev lo table T"),
                ),
                None => Point::good(format!("{name}: marked packets are routed to this host")),
            });
        }
        points
    }
}

fn sockets() -> Vec<Point> {
    let granted = [
        net::may_take_for_others(true),
        net::may_take_for_others(false),
    ];
    let mut points = Vec::new();
    for ((name, _), granted) in FAMILIES.iter().zip(granted) {
        points.push(match granted {
            Ok(()) => Point::good(format!("IP_TRANSPARENT can be set ({name})")),
            Err(error) => Point::failure(
                format!("IP_TRANSPARENT cannot be set ({name}): {error}"),
                "CAP_NET_RAW or CAP_NET_ADMIN: start weir as root with --user, or AmbientCapabilities=CAP_NET_RAW in the systemd unit",
            ),
        });
    }
    points
}

fn packet_rules() -> Result<PacketRules, String> {
    let nft = ask("nft", &["-j", "list", "ruleset"], "").and_then(|json| {
        PacketRules::of_nft(&json).ok_or_else(|| "nft: an answer that is not understood".into())
    });
    let old = ask("iptables-save", &[], "");
    let mut rules = match (nft, &old) {
        (Ok(rules), _) => rules,
        (Err(_), Ok(_)) => PacketRules::default(),
        (Err(why), Err(_)) => return Err(why),
    };
    if let Ok(saved) = old {
        rules.add_iptables(&saved, false);
    }
    if let Ok(saved) = ask("ip6tables-save", &[], "") {
        rules.add_iptables(&saved, true);
    }
    Ok(rules)
}

fn routes(family: &str) -> Result<Routes, String> {
    let rules = ask("ip", &[family, "-j", "rule", "show"], "")?;
    let local = [
        "-j", family, "route", "show", "table", "all", "type", "local",
    ];
    let routes = ask("ip", &local, "")?;
    let empty = |text: String| match text.trim() {
        "" => "[]".to_owned(),
        _ => text,
    };
    Routes::of(&empty(rules), &empty(routes))
        .ok_or_else(|| "ip: an answer that is not understood".into())
}

/// The trial says most; without nft nothing is known.
fn kernel(trial: Result<String, String>) -> Option<Point> {
    match trial {
        Ok(_) => Some(Point::good("the kernel knows tproxy and socket matches")),
        Err(why) if why.contains("not installed") => Some(Point::warning(
            "nft is not installed, so the kernel's TPROXY cannot be tried",
            "apt-get install nftables, or see that xt_TPROXY and xt_socket load",
        )),
        Err(why) => Some(Point::failure(
            format!("the kernel takes no tproxy rule: {why}"),
            "modprobe nft_tproxy nft_socket (CONFIG_NFT_TPROXY, CONFIG_NFT_SOCKET); as root",
        )),
    }
}

/// One setting of all interfaces of IPv4: name and value.
fn sysctls(name: &str) -> Vec<(String, String)> {
    let Ok(folder) = fs::read_dir("/proc/sys/net/ipv4/conf") else {
        return Vec::new();
    };
    let mut found: Vec<(String, String)> = folder
        .flatten()
        .map(|entry| {
            let interface = entry.file_name().to_string_lossy().into_owned();
            let value = read(&format!("/proc/sys/net/ipv4/conf/{interface}/{name}"));
            (interface, value)
        })
        .collect();
    found.sort();
    found
}

/// Of `all` and an interface's own the higher one counts for rp_filter, and either for src_valid_mark.
fn source_checks(rp_filter: &[(String, String)], valid_mark: &[(String, String)]) -> Vec<Point> {
    let of_all = |list: &[(String, String)]| {
        let all = list.iter().find(|(name, _)| name == "all");
        all.map_or(0, |(_, value)| value.parse().unwrap_or(0_u8))
    };
    let with = |list: &[(String, String)], wrong: u8| -> Vec<String> {
        let all = of_all(list);
        let interfaces = list
            .iter()
            .filter(|(name, _)| !["all", "default", "lo"].contains(&name.as_str()));
        let hit = interfaces.filter(|(_, value)| value.parse().unwrap_or(0).max(all) == wrong);
        hit.map(|(name, _)| name.clone()).collect()
    };
    let strict = with(rp_filter, 1);
    let mut points = vec![match strict.is_empty() {
        true => Point::good("rp_filter lets answers come in by any interface"),
        false => Point::warning(
            format!(
                "rp_filter is strict on {}: packets whose way back is another interface are dropped",
                strict.join(", ")
            ),
            "right with one way to each host; with several uplinks: sysctl net.ipv4.conf.IF.rp_filter=2",
        ),
    }];
    let checked = with(valid_mark, 1);
    if !checked.is_empty() {
        points.push(Point {
            level: Level::Failure,
            what: format!(
                "src_valid_mark is set on {}: sources of marked packets are looked up where everything is local, and are martians",
                checked.join(", ")
            ),
            remedy: "sysctl net.ipv4.conf.all.src_valid_mark=0, and of these".into(),
        });
    }
    points
}

fn conntrack(max: &str, clients: u64) -> Point {
    match max.parse::<u64>() {
        Ok(max) if max < 2 * clients => Point::warning(
            format!(
                "nf_conntrack_max is {max}; each client has two entries, and --max-connections is {clients}"
            ),
            format!("sysctl net.netfilter.nf_conntrack_max={}", 4 * clients),
        ),
        Ok(max) => Point::good(format!("conntrack for {max} connections")),
        Err(_) => Point::warning(
            "conntrack is not loaded: redirected connections do not know where they wanted to go",
            "it comes with the first NAT rule; CONFIG_NF_CONNTRACK, CONFIG_NF_NAT",
        ),
    }
}

fn forwarding(v4: &str, v6: &str) -> Option<Point> {
    let off: Vec<&str> = [
        ("net.ipv4.ip_forward", v4),
        ("net.ipv6.conf.all.forwarding", v6),
    ]
    .into_iter()
    .filter(|(_, value)| *value == "0")
    .map(|(name, _)| name)
    .collect();
    if off.is_empty() {
        return Some(Point::good("this host forwards what weir does not take"));
    }
    Some(Point::warning(
        format!(
            "{} is 0: as a router this host passes nothing on",
            off.join(" and ")
        ),
        format!(
            "sysctl {}=1, unless weir's clients or servers are on this host",
            off.join("=1 ")
        ),
    ))
}

#[cfg(test)]
mod tests;
