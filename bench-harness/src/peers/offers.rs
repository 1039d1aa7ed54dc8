//! What a peer's EHLO reply offers: a workload needs PIPELINING or CHUNKING, and who does not offer it takes no part.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The keywords of the EHLO reply, in upper case.
pub fn ask(peer: SocketAddr) -> Result<Vec<String>> {
    let patience = Duration::from_secs(10);
    let stream = TcpStream::connect_timeout(&peer, patience)
        .with_context(|| format!("cannot reach {peer}"))?;
    stream.set_read_timeout(Some(patience))?;
    let mut reader = BufReader::new(stream);
    reply(&mut reader, "220").with_context(|| format!("the greeting of {peer}"))?;
    reader.get_mut().write_all(b"EHLO client.test\r\n")?;
    let lines = reply(&mut reader, "250").with_context(|| format!("EHLO to {peer}"))?;
    reader.get_mut().write_all(b"QUIT\r\n")?;
    reply(&mut reader, "221").with_context(|| format!("QUIT to {peer}"))?;
    let keyword = |line: &String| line.split_whitespace().next().map(str::to_ascii_uppercase);
    Ok(lines.iter().skip(1).filter_map(keyword).collect())
}

/// The texts of one reply of the wanted code. A server that never ends one would be one that never ends: a hundred lines at most.
fn reply(reader: &mut impl std::io::BufRead, code: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    while lines.len() < 100 {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if !line.starts_with(code) || line.len() < 4 {
            bail!("got {:?} in place of {code}", line.trim_end());
        }
        lines.push(line[4..].trim_end().to_owned());
        if line.as_bytes()[3] == b' ' {
            return Ok(lines);
        }
    }
    bail!("a reply of more than a hundred lines")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_many_lines_are_read_to_their_end() {
        let mut text = &b"250-proxy.test\r\n250-SIZE 99\r\n250 CHUNKING\r\n221 bye\r\n"[..];
        let lines = reply(&mut text, "250").unwrap();
        assert_eq!(lines, ["proxy.test", "SIZE 99", "CHUNKING"]);
        assert_eq!(reply(&mut text, "221").unwrap(), ["bye"]);
        assert!(reply(&mut text, "221").is_err());
    }
}
