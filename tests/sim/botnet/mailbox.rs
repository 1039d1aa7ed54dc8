//! The mail server behind weir: takes all mail for its users, refuses whom it does not know, and remembers who got what.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use weir_smtp::time::Moment;

use super::places::is_user;
use crate::net::End;
use crate::tasks::{Host, Over, Socket};

#[derive(Default)]
pub struct Mailbox {
    /// How often each recipient of an errand has got it.
    received: RefCell<HashMap<usize, HashMap<String, u32>>>,
    pub wrong: RefCell<Vec<String>>,
}

impl Mailbox {
    /// The story of one connection.
    pub fn serve(
        self: Rc<Self>,
        end: End,
    ) -> impl FnOnce(Host) -> Pin<Box<dyn Future<Output = ()>>> {
        move |host| {
            Box::pin(async move {
                let socket = host.adopt(end);
                _ = self.talk(&socket).await;
                socket.close();
            })
        }
    }

    /// How many recipients of an errand have got it, and whether one of them got it twice.
    pub fn recipients_of(&self, errand: usize) -> (u32, bool) {
        let received = self.received.borrow();
        let Some(recipients) = received.get(&errand) else {
            return (0, false);
        };
        let twice = recipients.values().any(|times| *times > 1);
        (recipients.len() as u32, twice)
    }

    async fn talk(&self, socket: &Socket) -> Result<(), Over> {
        let mut recipients: Vec<String> = Vec::new();
        socket.send(b"220 users.test ESMTP\r\n");
        loop {
            let line = socket.line(Moment::NEVER).await?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let verb = line.split([' ', ':']).next().unwrap_or("");
            let reply: &[u8] = match verb {
                "EHLO" => b"250-users.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n",
                "MAIL" | "RSET" | "NOOP" => {
                    recipients.clear();
                    b"250 2.0.0 well\r\n"
                }
                "RCPT" => self.recipient(&line, &mut recipients),
                "DATA" if recipients.is_empty() => b"503 5.5.1 for whom\r\n",
                "DATA" => {
                    socket.send(b"354 go on\r\n");
                    let body = socket.through(b"\r\n.\r\n", Moment::NEVER).await?;
                    self.receive(&body, std::mem::take(&mut recipients));
                    b"250 2.0.0 taken\r\n"
                }
                "QUIT" => {
                    socket.send(b"221 2.0.0 bye\r\n");
                    return Ok(());
                }
                _ => {
                    self.wrong.borrow_mut().push(format!("the mail server got {line:?}"));
                    b"500 5.5.2 what\r\n"
                }
            };
            socket.send(reply);
        }
    }

    fn recipient(&self, line: &str, recipients: &mut Vec<String>) -> &'static [u8] {
        let path = line
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('>'));
        match path {
            Some((path, _)) if is_user(path) => {
                recipients.push(path.to_owned());
                b"250 2.1.5 known\r\n"
            }
            _ => b"550 5.1.1 nobody of that name\r\n",
        }
    }

    fn receive(&self, body: &[u8], recipients: Vec<String>) {
        let body = String::from_utf8_lossy(body);
        let number = body.lines().find_map(|line| line.strip_prefix("Errand: "));
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            self.wrong.borrow_mut().push(format!(
                "the mail server got a message without a number: {body:?}"
            ));
            return;
        };
        let mut received = self.received.borrow_mut();
        let its = received.entry(number).or_default();
        for recipient in recipients {
            *its.entry(recipient).or_default() += 1;
        }
    }
}
