//! Every peer that is installed starts with its own configuration and speaks SMTP before a scripted server. A peer that is not
//! installed has to say so; nothing else may keep one away.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use super::super::child::Child;
use super::super::offers;
use super::super::sink::Shown;
use super::*;

#[test]
fn every_peer_has_a_word_and_no_other_word_is_one() {
    for kind in Kind::ALL {
        assert_eq!(kind.word().parse::<Kind>().unwrap(), kind);
    }
    let error = "exim".parse::<Kind>().unwrap_err().to_string();
    assert!(error.contains("nginx-mail"), "{error}");
}

#[test]
fn installed_peers_answer_and_offer_what_the_sink_has() {
    let folder = Folder::new("test").unwrap();
    let sink = scripted_sink(&folder);
    let weir = WeirOptions::default();
    let bench = Bench {
        folder: &folder,
        sink: &sink,
        setting: Setting::Plain,
        threads: 2,
        weir: &weir,
    };
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Weir) {
        match bench.start(kind).unwrap() {
            Start::Absent(why) => assert!(
                why.contains("not installed") || why.contains("as root only"),
                "{}: {why}",
                kind.word()
            ),
            Start::Ready(mut peer) => {
                let offers = offers::ask(peer.smtp).unwrap();
                for keyword in ["PIPELINING", "CHUNKING"] {
                    let offered = offers.iter().any(|offer| offer == keyword);
                    assert!(offered, "{}: {offers:?}", kind.word());
                }
                let cpu = peer.cpu().unwrap();
                assert_eq!(cpu.is_some(), kind != Kind::Direct, "{}", kind.word());
            }
        }
    }
}

#[test]
fn a_weir_that_is_none_is_an_error_with_its_words() {
    let folder = Folder::new("test").unwrap();
    let sink = scripted_sink(&folder);
    let weir = WeirOptions {
        binary: "/bin/false".into(),
        flags: Vec::new(),
    };
    let bench = Bench {
        folder: &folder,
        sink: &sink,
        setting: Setting::Plain,
        threads: 2,
        weir: &weir,
    };
    let error = bench.start(Kind::Weir).err().unwrap().to_string();
    assert!(error.contains("weir ended (exit status: 1)"), "{error}");
}

/// A server of this process that greets, answers EHLO and QUIT, and ends with the test.
pub fn scripted_sink(folder: &Folder) -> Sink {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let smtp = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    let mut command = Command::new("sleep");
    command.arg("60");
    Sink {
        smtp,
        smtp_tls: smtp,
        smtp_proxied: smtp,
        control: smtp,
        chunking: true,
        shown: Shown::make(folder).unwrap(),
        child: Child::spawn("sink", command, folder.path()).unwrap(),
    }
}

/// A client that is gone is none of its business.
fn answer(stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    reader.get_mut().write_all(b"220 sink.test\r\n").ok()?;
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 0 {
        let reply = match line.split_whitespace().next() {
            Some("EHLO") => "250-sink.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
            Some("QUIT") => "221 bye\r\n",
            _ => "502 what?\r\n",
        };
        reader.get_mut().write_all(reply.as_bytes()).ok()?;
        line.clear();
    }
    Some(())
}
