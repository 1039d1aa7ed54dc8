//! One connection's octets, in plaintext or in TLS. An enum and no trait object: plaintext pays one look.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

pub enum Wire {
    Plain(TcpStream),
    /// Boxed: most connections have none, and it is a kilobyte.
    Tls(Box<TlsStream<TcpStream>>),
    /// Lent to a handshake, and gone where that failed.
    Gone,
}

impl Wire {
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Wire::Plain(tcp) => Some(tcp),
            Wire::Tls(tls) => Some(tls.get_ref().0),
            Wire::Gone => None,
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Wire::Tls(_))
    }

    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Wire::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Wire::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
            Wire::Gone => gone(),
        }
    }

    /// Octets taken in TLS may wait for the kernel: [`Wire::poll_flush`] has them leave.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Plain(tcp) => Pin::new(tcp).poll_write(cx, octets),
            Wire::Tls(tls) => Pin::new(tls).poll_write(cx, octets),
            Wire::Gone => gone(),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Plain(_) => Poll::Ready(Ok(())),
            Wire::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Wire::Gone => gone(),
        }
    }

    /// Says that nothing more will be sent: close_notify in TLS, then FIN.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Wire::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Wire::Gone => gone(),
        }
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}
