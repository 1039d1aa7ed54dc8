//! Probes: what is asked of an endpoint, what its answers change, and who hears of them.

use super::*;
use crate::shard::mail::ProbeFailure;
use crate::tls::testing::{client_config, name};
use crate::tls::{UpstreamMode, UpstreamTls};

/// The shard that probes, asking every ten seconds.
fn prober(servers: u8) -> Stage {
    let mut config = settings();
    config.probe = ProbeConfig {
        interval: Duration::from_secs(10),
        relay_test: true,
    };
    let mut stage = Stage::sharing(config, servers, 10, Arc::new(Shared::new(0)), 0);
    stage.settle();
    stage
}

/// A server answers a probe's EHLO with these extensions; what it hears then.
fn answer(stage: &mut Stage, leg: SlotId, extensions: &[&str]) -> String {
    stage.say(leg, "220 mx.example ESMTP\r\n");
    assert_eq!(stage.heard(leg), "EHLO weir.example\r\n");
    let lines: Vec<String> = extensions
        .iter()
        .map(|word| format!("250-{word}\r\n"))
        .collect();
    stage.say(
        leg,
        &format!("250-mx.example\r\n{}250 HELP\r\n", lines.concat()),
    );
    stage.heard(leg)
}

fn ehlo(stage: &mut Stage) -> String {
    let client = stage.client();
    stage.heard(client);
    stage.say(client, "EHLO c\r\n");
    stage.heard(client)
}

#[test]
fn a_new_endpoint_is_asked_whether_it_relays_for_the_world_once() {
    let mut stage = prober(1);
    let leg = stage.legs(1)[0];
    assert_eq!(
        answer(&mut stage, leg, &[]),
        "MAIL FROM:<relay-test@weir-probe.invalid>\r\n"
    );
    stage.say(leg, "250 Ok\r\n");
    assert_eq!(
        stage.heard(leg),
        "RCPT TO:<relay-test@weir-probe.example>\r\n"
    );
    stage.say(leg, "554 5.7.1 Relay access denied\r\n");
    assert_eq!(stage.heard(leg), "RSET\r\n");
    stage.say(leg, "250 Ok\r\n");
    assert_eq!(stage.heard(leg), "QUIT\r\n");
    stage.say(leg, "221 bye\r\n");
    assert!(stage.legs(1).is_empty());
    stage.sleep(Duration::from_secs(11));
    let leg = stage.legs(1)[0];
    assert_eq!(
        answer(&mut stage, leg, &[]),
        "QUIT\r\n",
        "the second time it is only asked how it is"
    );
    assert_eq!(stage.shared.upstream_open(0), 0, "probes need no permit");
}

#[test]
fn what_all_upstreams_offer_is_announced() {
    let mut stage = prober(2);
    assert!(
        !ehlo(&mut stage).contains("SMTPUTF8"),
        "conservative before"
    );
    let (one, two) = (stage.legs(1)[0], stage.legs(2)[0]);
    answer(&mut stage, one, &["SMTPUTF8", "8BITMIME"]);
    assert!(
        !ehlo(&mut stage).contains("8BITMIME"),
        "the other has not been heard"
    );
    answer(&mut stage, two, &["8BITMIME", "DSN"]);
    let announced = ehlo(&mut stage);
    assert!(
        announced.contains("8BITMIME")
            && !announced.contains("SMTPUTF8")
            && !announced.contains("DSN")
    );
    let told = stage.posted();
    let all = told
        .iter()
        .all(|(to, mail)| *to == To::Others && matches!(mail, Mail::Probed { result: Ok(_), .. }));
    assert!(all && told.len() == 2, "the other shards hear it too");
}

#[test]
fn what_a_server_offers_in_plaintext_is_not_believed_of_it_inside_tls() {
    let mut stage = prober(1);
    let plain = stage.legs(1)[0];
    let spec = |name: &str, tls| UpstreamSpec {
        name: name.into(),
        weight: 1,
        max: 10,
        addresses: vec![server(1)],
        tls,
    };
    let tls = UpstreamTls {
        mode: UpstreamMode::Require,
        implicit: false,
        name: name(),
        config: client_config(&[&rustls::version::TLS13]),
    };
    let table = vec![
        spec("mx1.example:25", None),
        spec("mx2.example:25", Some(tls)),
    ];
    let mail = Mail::Upstreams(table.into());
    stage.world.handle_mail(stage.now, mail);
    stage.settle();
    let legs = stage.legs(1);
    assert_eq!(legs.len(), 2, "the other way is asked too");
    answer(&mut stage, plain, &["8BITMIME"]);
    let told = stage.posted();
    assert!(
        !ehlo(&mut stage).contains("8BITMIME"),
        "the way through TLS has not been heard"
    );
    // Another shard hears the same.
    let mut other = Stage::new(settings(), 1, 10);
    for (_, mail) in told {
        other.world.handle_mail(other.now, mail);
    }
    assert!(ehlo(&mut other).contains("8BITMIME"));
    let without = answer(&mut stage, legs[1], &[]);
    assert_eq!(without, "", "no TLS, no use");
    let refused = |mail: &Mail| {
        let failed = matches!(
            mail,
            Mail::Probed {
                result: Err(ProbeFailure::Tls),
                ..
            }
        );
        failed && matches!(mail, Mail::Probed { approach, .. } if approach.tls.is_some())
    };
    assert!(stage.posted().iter().any(|(_, mail)| refused(mail)));
    assert!(
        ehlo(&mut stage).contains("8BITMIME"),
        "who speaks in plaintext has heard nothing bad of it"
    );
    assert_eq!(stage.counters.upstream_ejections.at(0).value(), 0);
    assert_eq!(stage.counters.upstream_ejections.at(1).value(), 1);
}

#[test]
fn a_server_that_does_not_answer_is_taken_out_and_comes_back() {
    let mut stage = prober(2);
    let (one, two) = (stage.legs(1)[0], stage.legs(2)[0]);
    answer(&mut stage, one, &["8BITMIME"]);
    stage.reset(two);
    let told = stage.posted();
    assert!(told.iter().any(|(_, mail)| matches!(
        mail,
        Mail::Probed {
            result: Err(ProbeFailure::Closed),
            ..
        }
    )));
    assert!(
        ehlo(&mut stage).contains("8BITMIME"),
        "one that is down takes nothing from all"
    );
    assert_eq!(stage.counters.upstream_ejections.at(1).value(), 1);
    stage.sleep(Duration::from_secs(11));
    let two = stage.legs(2)[0];
    answer(&mut stage, two, &["8BITMIME"]);
    let client = stage.client();
    stage.ask(client);
    assert_eq!(stage.heard(client), "");
}

#[test]
fn a_probe_that_hangs_is_given_up() {
    let mut stage = prober(1);
    let leg = stage.legs(1)[0];
    stage.sleep(Duration::from_secs(61));
    assert!(stage.closed(leg).is_some());
    assert_eq!(
        stage
            .counters
            .upstream_probes
            .at(0, crate::metrics::Probe::Failed)
            .value(),
        1
    );
}
