//! Packet rules and routes of this host, as its own tools tell them: which of them hand connections to a local port.
//!
//! nft and ip answer in JSON; rules made by iptables are told by iptables-save. Whatever is not understood is no rule of
//! interest: what is missed is told as missing, and a person looks.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::net::Intercept;

/// A rule that hands connections to a port of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taking {
    pub way: Intercept,
    pub v4: bool,
    pub v6: bool,
    /// None: the port that the client asked for.
    pub port: Option<u16>,
    /// What the packet is marked with.
    pub mark: Option<u32>,
    /// It is about what this host sends itself.
    pub output: bool,
}

/// Of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketRules {
    pub takings: Vec<Taking>,
    /// Rules that know packets of transparent sockets: what each marks them with.
    pub sockets: Vec<Option<u32>>,
    /// iptables has rules that nft cannot tell.
    pub foreign: bool,
}

/// A mark leads to a table, where everything is local.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Mark, mask, table.
    rules: Vec<(u32, u32, String)>,
    /// Tables in which everything is local.
    local: Vec<String>,
}

impl PacketRules {
    /// From `nft -j list ruleset`.
    pub fn of_nft(json: &str) -> Option<PacketRules> {
        let all: Value = serde_json::from_str(json).ok()?;
        let all = all.get("nftables")?.as_array()?;
        let output = |rule: &Value| {
            let chains = all.iter().filter_map(|one| one.get("chain"));
            let same = |chain: &&Value| {
                ["family", "table"]
                    .iter()
                    .all(|key| chain[key] == rule[key])
                    && chain["name"] == rule["chain"]
            };
            chains
                .filter(same)
                .any(|chain| chain["hook"].as_str() == Some("output"))
        };
        let mut rules = PacketRules::default();
        for rule in all.iter().filter_map(|one| one.get("rule")) {
            rules.read_nft_rule(rule, output(rule));
        }
        Some(rules)
    }

    fn read_nft_rule(&mut self, rule: &Value, output: bool) {
        let family = rule["family"].as_str().unwrap_or("");
        let (mut v4, mut v6) = (family != "ip6", family != "ip");
        let (mut way, mut port, mut mark, mut socket) = (None, None, None, false);
        for statement in rule["expr"].as_array().into_iter().flatten() {
            let matched = &statement["match"]["left"];
            if matched["meta"]["key"] == "nfproto" {
                v4 &= statement["match"]["right"] != "ipv6";
                v6 &= statement["match"]["right"] != "ipv4";
            }
            socket |= matched["socket"]["key"] == "transparent";
            for (word, meant) in [
                ("tproxy", Intercept::Tproxy),
                ("redirect", Intercept::Redirect),
                ("dnat", Intercept::Redirect),
            ] {
                if let Some(taking) = statement.get(word) {
                    way = Some(meant);
                    port = taking["port"].as_u64().and_then(|n| u16::try_from(n).ok());
                    v4 &= taking["family"] != "ip6";
                    v6 &= taking["family"] != "ip";
                }
            }
            if statement["mangle"]["key"]["meta"]["key"] == "mark" {
                let value = statement["mangle"]["value"].as_u64();
                mark = value.and_then(|n| u32::try_from(n).ok());
            }
            self.foreign |= statement.get("xt").is_some();
        }
        if let Some(way) = way {
            self.takings.push(Taking {
                way,
                v4,
                v6,
                port,
                mark,
                output,
            });
        } else if socket {
            self.sockets.push(mark);
        }
    }

    /// What iptables-save (or ip6tables-save) prints.
    pub fn add_iptables(&mut self, saved: &str, v6: bool) {
        for line in saved.lines().filter(|line| line.starts_with("-A ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let value = |flag: &str| {
                let at = words.iter().position(|word| *word == flag)?;
                words.get(at + 1).copied()
            };
            let mark = |flag| value(flag).and_then(number);
            let way = match value("-j") {
                Some("TPROXY") => Intercept::Tproxy,
                Some("REDIRECT" | "DNAT") => Intercept::Redirect,
                jump => {
                    if words.contains(&"--transparent") {
                        let set = (jump == Some("MARK")).then(|| mark("--set-xmark"));
                        self.sockets.push(set.flatten());
                    }
                    continue;
                }
            };
            let port = value("--on-port").or(value("--to-ports")).or_else(|| {
                let to = value("--to-destination")?;
                to.rsplit_once(':').map(|(_, port)| port)
            });
            self.takings.push(Taking {
                way,
                v4: !v6,
                v6,
                port: port.and_then(|port| port.parse().ok()),
                mark: mark("--tproxy-mark"),
                output: words[1] == "OUTPUT",
            });
        }
    }
}

impl Routes {
    /// From `ip -j rule` and `ip -j route show table all type local` of one family.
    pub fn of(rules: &str, routes: &str) -> Option<Routes> {
        let rules: Value = serde_json::from_str(rules).ok()?;
        let routes: Value = serde_json::from_str(routes).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let rule = |rule: &Value| {
            let mark = number(rule["fwmark"].as_str()?)?;
            let mask = rule["fwmask"].as_str().and_then(number);
            Some((mark, mask.unwrap_or(u32::MAX), text(&rule["table"])?))
        };
        let local = |route: &Value| {
            let everything = ["default", "0.0.0.0/0", "::/0"];
            let is_local = route["type"] == "local";
            let dst = route["dst"].as_str()?;
            (is_local && everything.contains(&dst)).then(|| text(&route["table"]))?
        };
        Some(Routes {
            rules: rules.as_array()?.iter().filter_map(rule).collect(),
            local: routes.as_array()?.iter().filter_map(local).collect(),
        })
    }

    /// What lacks for packets with this mark to be for this host.
    pub fn lacks(&self, mark: u32) -> Option<String> {
        let hit = |(value, mask, _): &&(u32, u32, String)| mark & mask == *value;
        match self.rules.iter().find(hit) {
            None => Some(format!("no rule leads mark {mark:#x} to a table")),
            Some((_, _, table)) if !self.local.contains(table) => Some(format!(
                "table {table} of mark {mark:#x} has no local route"
            )),
            Some(_) => None,
        }
    }
}

/// 7701, 0x1e15, 0x1e15/0xffffffff.
fn number(text: &str) -> Option<u32> {
    let text = text.split('/').next()?;
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// What a tool of the host prints, or why not.
pub fn ask(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    // Users' PATH often lacks the folder of such tools.
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let mut paths = places.iter().map(|place| Path::new(place).join(program));
    let path = paths
        .find(|path| path.exists())
        .ok_or_else(|| format!("{program} is not installed"))?;
    let told = |error: std::io::Error| format!("{program}: {error}");
    let mut child = Command::new(path)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(told)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(told)?;
    }
    let done = child.wait_with_output().map_err(told)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&done.stderr);
    let line = complaint.lines().next().unwrap_or("failed").to_owned();
    Err(format!("{program}: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_from_nft() {
        let json = r#"{"nftables": [
            {"metainfo": {"json_schema_version": 1}},
            {"chain": {"family": "inet", "table": "w", "name": "out", "hook": "output"}},
            {"rule": {"family": "inet", "table": "w", "chain": "take", "expr": [
                {"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": "ipv6"}},
                {"tproxy": {"family": "ip6", "port": 2525}},
                {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 30465}}, {"accept": null}]}},
            {"rule": {"family": "inet", "table": "w", "chain": "out", "expr": [{"redirect": {"port": 26}}]}},
            {"rule": {"family": "ip", "table": "w", "chain": "p", "expr": [{"redirect": null}, {"xt": {"type": "target"}}]}},
            {"rule": {"family": "inet", "table": "w", "chain": "p", "expr": [
                {"match": {"op": "==", "left": {"socket": {"key": "transparent"}}, "right": 1}},
                {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 30465}}]}},
            {"rule": {"family": "inet", "table": "w", "chain": "p", "expr": [{"accept": null}]}}
        ]}"#;
        let rules = PacketRules::of_nft(json).unwrap();
        let taking = Taking {
            way: Intercept::Redirect,
            v4: true,
            v6: true,
            port: Some(26),
            mark: None,
            output: true,
        };
        let tproxy = Taking {
            way: Intercept::Tproxy,
            v4: false,
            port: Some(2525),
            mark: Some(0x7701),
            output: false,
            ..taking
        };
        let same_port = Taking {
            v6: false,
            port: None,
            output: false,
            ..taking.clone()
        };
        assert_eq!(rules.takings, [tproxy, taking, same_port]);
        assert_eq!(rules.sockets, [Some(0x7701)]);
        assert!(rules.foreign);
        for damaged in ["", "{}", "[]", "{\"nftables\": 3}"] {
            assert_eq!(PacketRules::of_nft(damaged), None, "{damaged:?}");
        }
    }

    #[test]
    fn rules_are_read_from_iptables() {
        let saved = "*mangle\n:PREROUTING ACCEPT [0:0]\n\
            -A PREROUTING -p tcp -m socket --transparent -j DIVERT\n\
            -A PREROUTING -p tcp -m socket --transparent -j MARK --set-xmark 0x1/0xffffffff\n\
            -A PREROUTING -p tcp -m tcp --dport 25 -j TPROXY --on-port 2525 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1\n\
            -A OUTPUT -p tcp -j REDIRECT --to-ports 26\n-A OUTPUT -j DNAT --to-destination 192.0.2.1:27\n-A INPUT -j\n";
        let mut rules = PacketRules::default();
        rules.add_iptables(saved, false);
        let seen: Vec<_> = rules
            .takings
            .iter()
            .map(|it| (it.way, it.v4, it.v6, it.port, it.mark, it.output))
            .collect();
        let redirect = Intercept::Redirect;
        assert_eq!(
            seen,
            [
                (Intercept::Tproxy, true, false, Some(2525), Some(1), false),
                (redirect, true, false, Some(26), None, true),
                (redirect, true, false, Some(27), None, true),
            ]
        );
        assert_eq!(rules.sockets, [None, Some(1)]);
    }

    #[test]
    fn a_mark_leads_to_a_table_where_everything_is_local() {
        let rules = r#"[{"priority":0,"src":"all","table":"local"},
            {"priority":1,"src":"all","fwmark":"0x1","fwmask":"0xf","table":"100"},
            {"priority":2,"src":"all","fwmark":"0x7701","table":"weir"},
            {"priority":3,"src":"all","fwmark":"0x9","table":"9"}]"#;
        let routes = r#"[{"type":"local","dst":"default","dev":"lo","table":"weir"},
            {"type":"local","dst":"127.0.0.1","dev":"lo","table":"local"},
            {"dst":"default","dev":"eth0","table":"9"},
            {"type":"local","dst":"0.0.0.0/0","dev":"lo","table":"100"}]"#;
        let routes = Routes::of(rules, routes).unwrap();
        assert_eq!(
            routes.lacks(0x7702),
            Some("no rule leads mark 0x7702 to a table".into())
        );
        assert_eq!(routes.lacks(0x21), None, "by its mask");
        assert_eq!(
            routes.lacks(9),
            Some("table 9 of mark 0x9 has no local route".into())
        );
        let only = Routes::of(
            r#"[{"fwmark":"0x7701","table":"weir"}]"#,
            r#"[{"type":"local","dst":"::/0","table":"weir"}]"#,
        );
        assert_eq!(only.unwrap().lacks(0x7701), None);
        assert_eq!(Routes::of("", "[]"), None);
    }
}
