//! The PROXY header (versions 1 and 2) with which a proxy tells who its client is. What it says is of no consequence here; that there is
//! one, whole and first, is.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest that both versions have at least: `PROXY UNKNOWN` with its CRLF; version 2 has 16.
const HEAD: usize = 15;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Of version 1, CRLF included.
const LINE_MAX: usize = 107;
/// More than any proxy has to say in version 2.
const REST_MAX: u16 = 4096;

/// Reads the header and not one octet more.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    if head.starts_with(SIGNATURE) {
        return read_binary(stream, head[12] >> 4, head[14]).await;
    }
    match head.starts_with(b"PROXY ") {
        true => read_line(stream, &head).await,
        false => Err(damaged()),
    }
}

/// What follows of version 2: the second octet of the length, and so many more.
async fn read_binary(
    stream: &mut (impl AsyncRead + Unpin),
    version: u8,
    length_high: u8,
) -> io::Result<()> {
    let length = u16::from_be_bytes([length_high, stream.read_u8().await?]);
    if version != 2 || length > REST_MAX {
        return Err(damaged());
    }
    let mut rest = vec![0; length.into()];
    stream.read_exact(&mut rest).await?;
    Ok(())
}

/// What follows of version 1, octet by octet: what comes behind the line is not the header's.
async fn read_line(stream: &mut (impl AsyncRead + Unpin), head: &[u8]) -> io::Result<()> {
    let mut line = head.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_MAX || line.contains(&b'\n') {
            return Err(damaged());
        }
        line.push(stream.read_u8().await?);
    }
    Ok(())
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY header")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left behind the header.
    fn rest(octets: &[u8]) -> Option<Vec<u8>> {
        let mut stream = octets;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(read(&mut stream)).ok()?;
        Some(stream.to_vec())
    }

    fn binary(version: u8, length: u16) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend_from_slice(&[version << 4 | 1, 0x11]);
        header.extend_from_slice(&length.to_be_bytes());
        header.resize(header.len() + usize::from(length), 7);
        header
    }

    #[test]
    fn both_versions_are_read_and_nothing_behind_them() {
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\r\n".to_vec(),
            binary(2, 0),
            binary(2, 12),
            binary(2, 300),
        ] {
            let all = [&header, &b"EHLO x\r\n"[..]].concat();
            assert_eq!(rest(&all).as_deref(), Some(&b"EHLO x\r\n"[..]));
        }
    }

    #[test]
    fn what_is_none_is_none() {
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(120));
        for octets in [
            &b"EHLO client.example\r\n"[..],
            b"PROXY TCP4 1\nEHLO client.example\r\n",
            b"PROXY TCP4 1",
            long.as_bytes(),
            &binary(1, 12),
            &binary(2, 5000),
            &binary(2, 12)[..20],
        ] {
            assert_eq!(rest(octets), None, "{}", octets.escape_ascii());
        }
    }
}
