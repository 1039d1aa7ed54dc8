//! Stories of clients before the whole pipeline.

use weir_smtp::gate::Verdict;
use weir_smtp::path;

use super::*;
use crate::policy::On;
use crate::policy::relay::RelayDomains;

struct Setup {
    config: Config,
    allow: &'static str,
    deny: &'static str,
}

impl Setup {
    fn new() -> Setup {
        Setup {
            config: Config::default(),
            allow: "",
            deny: "",
        }
    }

    fn on(mut self, text: &str) -> Setup {
        self.config.actions.set(text.parse::<On>().unwrap());
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Setup {
        change(&mut self.config);
        self
    }

    fn policy(self) -> Policy {
        let relay = Relay {
            domains: RelayDomains::parse("ours.example").unwrap(),
            from: ["10.0.0.0/8".parse().unwrap()].into_iter().collect(),
            own: Vec::new(),
        };
        let access = Access::of_clients(self.allow, self.deny);
        Policy::new(Arc::new(self.config), Arc::new(access), Arc::new(relay))
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(seconds: u64) -> Moment {
    Moment::ZERO + Duration::from_secs(seconds)
}

fn connect(policy: &mut Policy, client: &str, now: Moment) -> Admission {
    policy.connected(ip(client), Rung::Calm, now)
}

fn rcpt(policy: &mut Policy, standing: Standing, text: &str, now: Moment) -> Ruling {
    let (path, _) = path::parse(text.as_bytes()).unwrap();
    let ruling = policy.relays(standing, &path, now);
    match ruling.passes() {
        true => ruling.and(policy.recipient(standing, now)),
        false => ruling,
    }
}

fn mail(policy: &mut Policy, standing: Standing, now: Moment) -> Ruling {
    let (path, _) = path::parse(b"<someone@there.example>").unwrap();
    policy.mail(standing, &path, now)
}

fn reply(ruling: &Ruling) -> String {
    match &ruling.verdict {
        Verdict::Pass | Verdict::PassVia(_) => "pass".into(),
        Verdict::Refuse(text) => String::from_utf8_lossy(&text.as_bytes()[..9]).into(),
        Verdict::Close(text) => format!("{} close", String::from_utf8_lossy(&text.as_bytes()[..9])),
    }
}

#[test]
fn nothing_is_limited_by_default_but_concurrency() {
    let mut policy = Setup::new().policy();
    let standings: Vec<_> = (0..50)
        .map(|_| connect(&mut policy, "192.0.2.1", at(0)))
        .collect();
    assert!(
        standings
            .iter()
            .all(|admission| admission.ruling == Ruling::PASS)
    );
    let standing = standings[0].standing;
    assert!((0..10_000).all(|_| mail(&mut policy, standing, at(0)) == Ruling::PASS));
    assert!(
        (0..10_000)
            .all(|_| rcpt(&mut policy, standing, "<user@ours.example>", at(0)) == Ruling::PASS)
    );
    assert_eq!(policy.body(standing, u32::MAX, at(0)), None);
    let crowd = connect(&mut policy, "192.0.2.1", at(0));
    assert_eq!(reply(&crowd.ruling), "421 4.7.0 close");
    assert_eq!(crowd.ruling.by, Some((Finding::Concurrency, Action::Defer)));
    // Who was refused takes no place, however often it tries and however long its connections take to close.
    assert!((0..100).all(|_| !connect(&mut policy, "192.0.2.1", at(0)).ruling.passes()));
    policy.disconnected(standing, Errors::default(), at(1));
    assert!(connect(&mut policy, "192.0.2.1", at(1)).ruling.passes());
    policy.disconnected(crowd.standing, crowd.errors, at(1));
}

#[test]
fn lists_come_first() {
    let mut setup = Setup::new().with(|config| config.concurrency = concurrency::Limit(1));
    (setup.allow, setup.deny) = ("192.0.2.1", "192.0.2.0/24");
    let mut policy = setup.policy();
    assert_eq!(
        reply(&connect(&mut policy, "192.0.2.2", at(0)).ruling),
        "521 5.3.2 close"
    );
    assert!((0..10).all(|_| connect(&mut policy, "192.0.2.1", at(0)).ruling == Ruling::PASS));
    assert!(policy.clients().is_empty(), "neither takes an entry");
    policy.set_access(Arc::default());
    assert!(connect(&mut policy, "192.0.2.2", at(0)).ruling.passes());
}

#[test]
fn a_listed_client_may_be_only_logged() {
    let mut setup = Setup::new().on("deny-list=log");
    setup.deny = "192.0.2.0/24";
    let mut policy = setup.policy();
    let admission = connect(&mut policy, "192.0.2.2", at(0));
    assert!(admission.ruling.passes() && admission.ruling.noticed.contains(Finding::DenyList));
    assert_eq!(admission.ruling.by, None);
    assert_eq!(policy.clients().len(), 1);
}

#[test]
fn rates_defer_each_in_its_place() {
    let mut policy = Setup::new()
        .with(|config| {
            config.rate_connections = "2/m".parse().unwrap();
            config.rate_messages = "1/m".parse().unwrap();
            config.rate_recipients = "3/m".parse().unwrap();
        })
        .policy();
    let first = connect(&mut policy, "192.0.2.1", at(0)).standing;
    let second = connect(&mut policy, "192.0.2.1", at(0)).standing;
    let third = connect(&mut policy, "192.0.2.1", at(0));
    assert_eq!(reply(&third.ruling), "421 4.7.0 close");
    assert!(
        connect(&mut policy, "192.0.2.2", at(0)).ruling.passes(),
        "another address"
    );
    // What one connection used is used for the other too.
    assert_eq!(reply(&mail(&mut policy, first, at(0))), "pass");
    assert_eq!(reply(&mail(&mut policy, second, at(0))), "450 4.7.1");
    let to = "<user@ours.example>";
    let replies: Vec<_> = (0..4)
        .map(|_| reply(&rcpt(&mut policy, second, to, at(0))))
        .collect();
    assert_eq!(replies, ["pass", "pass", "pass", "450 4.7.1"]);
    assert_eq!(reply(&rcpt(&mut policy, second, to, at(20))), "pass");
}

#[test]
fn nobody_relays_but_who_may() {
    let mut setup = Setup::new();
    setup.allow = "192.0.2.1";
    let mut policy = setup.policy();
    let stranger = connect(&mut policy, "192.0.2.2", at(0)).standing;
    let friend = connect(&mut policy, "192.0.2.1", at(0)).standing;
    let customer = connect(&mut policy, "10.1.2.3", at(0)).standing;
    let away = "<user@other.example>";
    assert_eq!(
        reply(&rcpt(&mut policy, stranger, away, at(0))),
        "550 5.7.1"
    );
    assert_eq!(
        reply(&rcpt(&mut policy, friend, away, at(0))),
        "550 5.7.1",
        "the allow list is no leave to relay"
    );
    assert_eq!(reply(&rcpt(&mut policy, customer, away, at(0))), "pass");
    assert!(friend.is_allowed() && !stranger.is_allowed());
}

#[test]
fn a_relay_attempt_does_not_use_up_the_rate() {
    let mut policy = Setup::new()
        .with(|config| config.rate_recipients = "1/m".parse().unwrap())
        .policy();
    let standing = connect(&mut policy, "192.0.2.1", at(0)).standing;
    for _ in 0..5 {
        assert_eq!(
            reply(&rcpt(&mut policy, standing, "<user@other.example>", at(0))),
            "550 5.7.1"
        );
    }
    assert_eq!(
        reply(&rcpt(&mut policy, standing, "<user@ours.example>", at(0))),
        "pass"
    );
}

#[test]
fn delay_and_stutter_change_how_the_address_is_treated() {
    let mut policy = Setup::new().on("pregreet=stutter").policy();
    let first = connect(&mut policy, "192.0.2.1", at(0));
    assert_eq!(
        policy.temper(first.standing, Errors::default(), at(0)),
        Temper::Normal
    );
    let ruling = policy.found(first.standing, Finding::Pregreet, at(0));
    assert!(ruling.passes() && ruling.by == Some((Finding::Pregreet, Action::Stutter)));
    policy.disconnected(first.standing, first.errors, at(1));
    let again = connect(&mut policy, "192.0.2.1", at(2)).standing;
    assert_eq!(
        policy.temper(again, Errors::default(), at(2)),
        Temper::Stutter
    );
    assert_eq!(
        policy.temper(again, Errors::default(), at(600)),
        Temper::Delayed
    );
    assert_eq!(
        policy.temper(again, Errors::default(), at(1200)),
        Temper::Normal
    );
}

#[test]
fn off_is_silent_and_log_is_not() {
    let mut policy = Setup::new().on("pregreet=off").policy();
    let standing = connect(&mut policy, "192.0.2.1", at(0)).standing;
    assert_eq!(
        policy.found(standing, Finding::Pregreet, at(0)),
        Ruling::PASS
    );
    let logged = policy.found(standing, Finding::Pipelining, at(0));
    assert!(logged.passes() && logged.by.is_none());
    assert_eq!(
        logged.noticed.iter().collect::<Vec<_>>(),
        [Finding::Pipelining]
    );
}

#[test]
fn the_allow_list_exempts_from_manners_but_not_from_safety() {
    let mut setup = Setup::new();
    setup.allow = "192.0.2.1";
    let mut policy = setup.policy();
    let friend = connect(&mut policy, "192.0.2.1", at(0)).standing;
    for finding in Finding::all() {
        let refused = !policy.found(friend, finding, at(0)).passes();
        let safety = matches!(
            finding,
            Finding::BareNewline | Finding::Loop | Finding::SlowBody | Finding::InterceptLoop
        );
        assert_eq!(refused, safety, "{finding}");
    }
}

#[test]
fn under_load_strangers_stay_outside() {
    let mut setup = Setup::new();
    setup.allow = "192.0.2.9";
    let mut policy = setup.policy();
    let known = connect(&mut policy, "192.0.2.1", at(0));
    policy.accepted(known.standing, at(0));
    policy.disconnected(known.standing, known.errors, at(0));
    let table = [
        (Rung::Stress, "192.0.2.2", "pass"),
        (Rung::KnownOnly, "192.0.2.2", "421 4.3.2 close"),
        (Rung::KnownOnly, "192.0.2.1", "pass"),
        (Rung::KnownOnly, "10.0.0.1", "pass"),
        (Rung::KnownOnly, "192.0.2.9", "pass"),
        (Rung::Shed, "192.0.2.1", "421 4.3.2 close"),
        (Rung::Shed, "192.0.2.9", "pass"),
    ];
    for (rung, client, want) in table {
        let admission = policy.connected(ip(client), rung, at(1));
        assert_eq!(
            reply(&admission.ruling),
            want,
            "{client} at {}",
            rung.word()
        );
        policy.disconnected(admission.standing, admission.errors, at(1));
    }
    // An accepted message speaks for its sender for a week.
    let late = policy.connected(ip("192.0.2.1"), Rung::KnownOnly, at(8 * 86400));
    assert!(!late.ruling.passes());
}

#[test]
fn errors_follow_the_address() {
    let mut policy = Setup::new().policy();
    let limits = policy.config().errors;
    let mut first = connect(&mut policy, "192.0.2.1", at(0));
    while first.errors.error(&limits) != Some(Finding::ErrorsHard) {}
    assert_eq!(
        reply(&policy.found(first.standing, Finding::ErrorsHard, at(0))),
        "421 4.7.0 close"
    );
    policy.disconnected(first.standing, first.errors, at(0));
    let mut again = connect(&mut policy, "192.0.2.1", at(30));
    assert!(again.ruling.passes());
    assert_eq!(
        policy.temper(again.standing, again.errors, at(30)),
        Temper::Normal
    );
    assert_eq!(again.errors.error(&limits), Some(Finding::ErrorsSoft));
    policy.found(again.standing, Finding::ErrorsSoft, at(30));
    assert_eq!(
        policy.temper(again.standing, again.errors, at(30)),
        Temper::Delayed
    );
    // Another session of a large sender is not made to pay for it.
    assert_eq!(
        policy.temper(again.standing, Errors::default(), at(30)),
        Temper::Normal
    );
}

#[test]
fn reading_pauses_where_a_byte_rate_is_set() {
    let table = [
        ("delay", Some(Duration::from_secs(1))),
        ("log", Some(Duration::ZERO)),
        ("off", None),
    ];
    for (action, want) in table {
        let mut policy = Setup::new()
            .with(|config| config.rate_bytes = ByteRate::new(1000))
            .on(&format!("rate-bytes={action}"))
            .policy();
        let standing = connect(&mut policy, "192.0.2.1", at(0)).standing;
        assert_eq!(policy.body(standing, 1000, at(0)), None);
        assert_eq!(policy.body(standing, 1000, at(0)), want, "{action}");
    }
}

#[test]
fn a_table_full_of_connected_clients_defers_newcomers() {
    let mut policy = Setup::new().with(|config| config.clients_max = 2).policy();
    let first = connect(&mut policy, "192.0.2.1", at(0));
    connect(&mut policy, "192.0.2.2", at(0));
    let third = connect(&mut policy, "192.0.2.3", at(0));
    assert_eq!(reply(&third.ruling), "421 4.3.2 close");
    policy.disconnected(third.standing, third.errors, at(1));
    policy.disconnected(first.standing, first.errors, at(1));
    assert!(connect(&mut policy, "192.0.2.3", at(1)).ruling.passes());
}

#[test]
fn clients_of_one_prefix_share_their_limits() {
    let config = |bits: (u8, u8)| {
        move |config: &mut Config| {
            config.concurrency = concurrency::Limit(1);
            config.prefix = ClientPrefix::new(bits.0, bits.1).unwrap();
        }
    };
    let pairs = [
        ("192.0.2.1", "192.0.2.200", (24, 64), true),
        ("192.0.2.1", "192.0.3.1", (24, 64), false),
        ("192.0.2.1", "192.0.2.2", (32, 64), false),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", (32, 56), true),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", (32, 64), false),
    ];
    for (first, second, bits, together) in pairs {
        let mut policy = Setup::new().with(config(bits)).policy();
        assert!(connect(&mut policy, first, at(0)).ruling.passes());
        let refused = !connect(&mut policy, second, at(0)).ruling.passes();
        assert_eq!(refused, together, "{first} {second} {bits:?}");
    }
}

#[test]
fn names_senders_and_recipients_are_refused_by_lists() {
    use crate::policy::access::{AccessBuilder, Subject};
    let mut lists = AccessBuilder::default();
    for (subject, listed, text) in [
        (Subject::Helo, Listed::Deny, "ylmf-pc\n.bad.example"),
        (Subject::Helo, Listed::Allow, "good.bad.example"),
        (Subject::Sender, Listed::Deny, "@bad.example"),
        (Subject::Recipient, Listed::Deny, "gone@ours.example"),
        (Subject::Client, Listed::Allow, "192.0.2.9"),
    ] {
        assert_eq!(lists.read(subject, listed, text), []);
    }
    let mut policy = Setup::new()
        .with(|config| config.rate_messages = "1/h".parse().unwrap())
        .policy();
    policy.set_access(Arc::new(lists.build()));
    let client = connect(&mut policy, "192.0.2.1", at(0)).standing;
    let friend = connect(&mut policy, "192.0.2.9", at(0)).standing;
    let (bad, _) = path::parse(b"<x@bad.example>").unwrap();
    let table = [
        (client, "550 5.7.1"),
        (friend, "pass"),
        // Relay control is for everybody; the lists are not.
        (client.vouched_for(), "550 5.7.1"),
    ];
    for (standing, want) in table {
        assert_eq!(reply(&policy.helo(standing, b"YLMF-PC", at(0))), want);
        assert_eq!(reply(&policy.mail(standing, &bad, at(0))), want);
        let gone = rcpt(&mut policy, standing, "<gone@ours.example>", at(0));
        assert_eq!(reply(&gone), want);
    }
    assert!(policy.helo(client, b"good.bad.example", at(0)).passes());
    assert!(!policy.helo(client, b"x.bad.example", at(0)).passes());
    assert!(rcpt(&mut policy, client, "<here@ours.example>", at(0)).passes());
    // What a list refuses is not charged to a rate.
    assert!(mail(&mut policy, client, at(0)).passes());
    assert!(!mail(&mut policy, client, at(0)).passes());
}

#[test]
fn a_listed_sender_that_is_only_logged_still_counts() {
    use crate::policy::access::{AccessBuilder, Subject};
    let mut lists = AccessBuilder::default();
    lists.read(Subject::Sender, Listed::Deny, "@there.example");
    let mut policy = Setup::new()
        .on("deny-sender=log")
        .with(|config| config.rate_messages = "1/h".parse().unwrap())
        .policy();
    policy.set_access(Arc::new(lists.build()));
    let client = connect(&mut policy, "192.0.2.1", at(0)).standing;
    let first = mail(&mut policy, client, at(0));
    assert!(first.passes() && first.noticed.contains(Finding::DenySender));
    let second = mail(&mut policy, client, at(0));
    assert_eq!(second.by, Some((Finding::RateMessages, Action::Defer)));
    assert!(second.noticed.contains(Finding::DenySender));
}
