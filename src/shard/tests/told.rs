//! What shared upstream connections are told of each client that they serve.

use crate::route::Identity;

use super::*;

fn telling(identity: Identity) -> Stage {
    let config = WorldConfig {
        identity,
        ..settings()
    };
    Stage::new(config, 1, 1)
}

/// An upstream connection whose server wants to know of clients.
fn curious(stage: &mut Stage) -> SlotId {
    let leg = stage.legs(1)[0];
    stage.say(leg, "220 mx.example ESMTP\r\n");
    stage.heard(leg);
    stage.say(
        leg,
        "250-mx.example\r\n250-PIPELINING\r\n250-XFORWARD NAME ADDR PORT HELO\r\n250 CHUNKING\r\n",
    );
    leg
}

const ENVELOPE: &str = "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n";

fn introduction(client: u8) -> String {
    format!("XFORWARD NAME=[UNAVAILABLE] ADDR=198.51.100.{client} PORT=40000 HELO=c.example\r\n")
}

/// All say goodbye, and nothing is left of them.
fn leave(stage: &mut Stage, clients: &[SlotId]) {
    for client in clients {
        stage.say(*client, "QUIT\r\n");
    }
    stage.assert_empty();
}

#[test]
fn each_transaction_on_a_shared_connection_names_its_own_client() {
    let mut stage = telling(Identity::Xforward);
    let (first, second) = (stage.client(), stage.client());
    stage.heard(first);
    stage.heard(second);
    stage.ask(first);
    let leg = curious(&mut stage);
    assert_eq!(stage.heard(leg), introduction(1) + ENVELOPE);
    stage.say(leg, "250 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.finish(first, leg);
    stage.ask(second);
    assert_eq!(stage.heard(leg), introduction(2) + ENVELOPE);
    stage.say(leg, "550 5.7.0 no\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.finish(second, leg);
    leave(&mut stage, &[first, second]);
}

#[test]
fn a_reset_in_front_of_an_introduction_goes_up_first() {
    let mut stage = telling(Identity::Xforward);
    let (slow, quick) = (stage.client(), stage.client());
    stage.heard(slow);
    stage.heard(quick);
    stage.ask(slow);
    let leg = curious(&mut stage);
    stage.heard(leg);
    stage.say(leg, "250 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.ask(quick);
    stage.say(slow, "RSET\r\n");
    assert_eq!(
        stage.heard(leg),
        "RSET\r\n".to_owned() + &introduction(2) + ENVELOPE
    );
    stage.say(leg, "250 Ok\r\n250 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.finish(quick, leg);
    leave(&mut stage, &[slow, quick]);
}

#[test]
fn a_server_that_does_not_ask_is_told_nothing() {
    for identity in [Identity::Xforward, Identity::None] {
        let mut stage = telling(identity);
        let client = stage.client();
        stage.heard(client);
        stage.ask(client);
        let leg = stage.legs(1)[0];
        stage.greet(leg);
        stage.deliver(client, leg);
        leave(&mut stage, &[client]);
    }
}

#[test]
fn a_field_above_each_message_names_its_client() {
    let mut stage = telling(Identity::Received);
    let client = stage.client();
    stage.heard(client);
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.heard(leg);
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.say(client, "DATA\r\n");
    stage.say(client, "Subject: x\r\n\r\nbody\r\n.\r\n");
    let said = stage.heard(leg);
    let (command, message) = said.split_once("\r\n").expect("a command and its chunk");
    assert_eq!(command, format!("BDAT {} LAST", message.len()));
    let field = message.strip_suffix("Subject: x\r\n\r\nbody\r\n");
    let field = field.expect("the message is as it came");
    let lines: Vec<&str> = field.split_terminator("\r\n").collect();
    assert_eq!(
        lines[..2],
        [
            "Received: from c.example (unknown [198.51.100.1])",
            "\tby weir.example (weir) with ESMTP id 1.1.1;",
        ]
    );
    assert!(lines[2].starts_with('\t') && lines[2].ends_with(" +0000"));
    let year: u32 = lines[2]
        .split(' ')
        .nth(3)
        .and_then(|y| y.parse().ok())
        .expect("a year");
    assert!(year >= 2024, "{field}");
    stage.say(leg, "250 Ok\r\n");
    leave(&mut stage, &[client]);
}
