//! How both halves of the count travel: as text in JSON, once a run; and how the sink is asked for its half.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Arrived, NUMBERS_MAX, PAGE_NUMBERS, PAGE_OCTETS, PAGES_MAX, Sent, new_page};
use crate::outcome::{hex, unhex};

/// Fates, as hexadecimal digits.
#[derive(Serialize, Deserialize)]
pub(super) struct SentText(String);

impl From<Sent> for SentText {
    fn from(sent: Sent) -> SentText {
        SentText(hex(&sent.octets))
    }
}

impl TryFrom<SentText> for Sent {
    type Error = String;

    fn try_from(text: SentText) -> Result<Sent, String> {
        let octets = unhex(&text.0).ok_or("the fates of messages are not hexadecimal")?;
        if octets.len() > NUMBERS_MAX as usize / 4 {
            return Err("more fates than a process can have messages".into());
        }
        Ok(Sent { octets })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct ArrivedText {
    total: u64,
    unknown: u64,
    pages: Vec<PageText>,
}

#[derive(Serialize, Deserialize)]
struct PageText {
    process: u16,
    page: u32,
    /// Hexadecimal, zero octets at the end left out.
    seen: String,
}

impl From<Arrived> for ArrivedText {
    fn from(arrived: Arrived) -> ArrivedText {
        let pages = arrived.pages.iter().map(|(&(process, page), octets)| {
            let used = octets.iter().rposition(|&octet| octet != 0);
            PageText {
                process,
                page,
                seen: hex(&octets[..used.map_or(0, |last| last + 1)]),
            }
        });
        ArrivedText {
            total: arrived.total,
            unknown: arrived.unknown,
            pages: pages.collect(),
        }
    }
}

impl TryFrom<ArrivedText> for Arrived {
    type Error = String;

    fn try_from(text: ArrivedText) -> Result<Arrived, String> {
        let mut arrived = Arrived {
            total: text.total,
            unknown: text.unknown,
            ..Arrived::default()
        };
        if text.pages.len() > PAGES_MAX {
            return Err(format!("more than {PAGES_MAX} pages of sightings"));
        }
        for PageText {
            process,
            page,
            seen,
        } in text.pages
        {
            let octets = unhex(&seen).ok_or("sightings are not hexadecimal")?;
            if octets.len() > PAGE_OCTETS || page >= NUMBERS_MAX / PAGE_NUMBERS {
                return Err(format!(
                    "page {page} of process {process} cannot be: too high or too long"
                ));
            }
            let mut whole = new_page();
            whole[..octets.len()].copy_from_slice(&octets);
            arrived.pages.insert((process, page), whole);
        }
        Ok(arrived)
    }
}

/// How long a sink may take to answer: it has to write down some hundred megabytes at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// All pages of a run as text, with room for their names.
const ANSWER_OCTETS_MAX: u64 = (PAGES_MAX * (2 * PAGE_OCTETS + 64)) as u64;

/// Asks the sink whose control port this is what arrived of a run.
pub async fn fetch(control: SocketAddr, run: u64) -> anyhow::Result<Arrived> {
    let answer = ask(control, &format!("ledger {run}")).await?;
    serde_json::from_str(&answer)
        .with_context(|| format!("the sink at {control} sent a ledger of run {run} that is none"))
}

/// Has the sink drop what it knows of a run.
pub async fn forget(control: SocketAddr, run: u64) -> anyhow::Result<()> {
    ask(control, &format!("forget {run}")).await?;
    Ok(())
}

/// Puts one line to a control port and returns the answer without its `ok`; an answer `error ...` is an error.
pub async fn ask(control: SocketAddr, line: &str) -> anyhow::Result<String> {
    let answer = tokio::time::timeout(PATIENCE, exchange(control, line))
        .await
        .with_context(|| {
            format!("the control port {control} of the sink did not answer within {PATIENCE:?}")
        })??;
    match answer.split_once(' ').unwrap_or((&answer, "")) {
        ("ok", rest) => Ok(rest.to_owned()),
        // who answers there may be anybody: nothing of it reaches the terminal as it is
        ("error", why) => bail!(
            "the sink at {control} refused `{line}`: {}",
            why.escape_debug()
        ),
        _ => bail!(
            "what answers at {control} is no control port of a weir-bench sink: {:.60?}",
            answer
        ),
    }
}

async fn exchange(control: SocketAddr, line: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(control)
        .await
        .with_context(|| format!("the control port {control} of the sink takes no connection"))?;
    stream
        .write_all(format!("{line}\n").as_bytes())
        .await
        .with_context(|| format!("cannot write to the control port {control}"))?;
    // says that no further line comes; a sink that is gone already is found out by the read
    stream.shutdown().await.ok();
    let mut answer = String::new();
    stream
        .take(ANSWER_OCTETS_MAX)
        .read_to_string(&mut answer)
        .await
        .with_context(|| format!("cannot read from the control port {control}"))?;
    answer.truncate(answer.trim_end().len());
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::super::{Fate, MessageId, Seen};
    use super::*;
    use tokio::net::TcpListener;

    fn some_arrived() -> Arrived {
        let mut arrived = Arrived::default();
        for number in (0..60_000).step_by(7) {
            let id = MessageId {
                run: 1,
                process: (number % 3) as u16,
                number,
            };
            arrived.count(Seen::Whole(id));
        }
        arrived.count(Seen::Unknown);
        arrived
    }

    #[test]
    fn both_halves_survive_their_text() {
        let mut sent = Sent::default();
        sent.set(0, Fate::Accepted);
        sent.set(12_345, Fate::Unanswered);
        let text = serde_json::to_string(&sent).unwrap();
        assert_eq!(serde_json::from_str::<Sent>(&text).unwrap(), sent);
        let arrived = some_arrived();
        let text = serde_json::to_string(&arrived).unwrap();
        assert_eq!(serde_json::from_str::<Arrived>(&text).unwrap(), arrived);
    }

    #[test]
    fn text_that_cannot_be_is_an_error() {
        let long = "0".repeat(2 * PAGE_OCTETS + 2);
        for pages in [
            r#"{"process":0,"page":0,"seen":"xx"}"#.to_owned(),
            r#"{"process":0,"page":16384,"seen":"01"}"#.to_owned(),
            format!(r#"{{"process":0,"page":0,"seen":"{long}"}}"#),
        ] {
            let text = format!(r#"{{"total":1,"unknown":0,"pages":[{pages}]}}"#);
            assert!(serde_json::from_str::<Arrived>(&text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Sent>("\"0\"").is_err());
    }

    /// A control port that says the same to everybody.
    async fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut line = String::new();
            stream.read_to_string(&mut line).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn answers_are_told_apart() {
        runtime().block_on(async {
            let arrived = serde_json::to_string(&some_arrived()).unwrap();
            let answer: &'static str = format!("ok {arrived}\n").leak();
            assert_eq!(
                fetch(answering(answer).await, 1).await.unwrap(),
                some_arrived()
            );
            assert!(forget(answering("ok\n").await, 1).await.is_ok());
            for (answer, want) in [
                ("error no such run\n", "no such run"),
                ("error \u{1b}[31mred\n", "\\u{1b}[31mred"),
                ("220 mx.example\r\n", "no control port"),
                ("", "no control port"),
                ("ok {}\n", "a ledger of run 1 that is none"),
            ] {
                let error = fetch(answering(answer).await, 1).await.unwrap_err();
                assert!(format!("{error:#}").contains(want), "{error:#}");
            }
        });
    }

    #[test]
    fn nobody_there_is_an_error_with_the_address() {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            drop(listener);
            let error = format!("{:#}", fetch(address, 1).await.unwrap_err());
            assert!(error.contains(&address.to_string()), "{error}");
        });
    }
}
