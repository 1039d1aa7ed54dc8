//! Options that accepted sockets inherit from their listener: set once instead of per connection.

use std::io;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// The kernel's receive buffer per client in bytes, 0 for the kernel's own choice. Set, it no longer grows by itself.
    pub receive_buffer: usize,
    /// The same for sending.
    pub send_buffer: usize,
    /// How long a client may be silent before the kernel asks whether it is still there.
    pub keepalive: Duration,
    /// How long the kernel keeps bytes of ours that the client does not acknowledge. A parked client that has vanished is noticed by it.
    pub unacknowledged: Duration,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions {
            receive_buffer: 0,
            send_buffer: 0,
            keepalive: Duration::from_secs(120),
            unacknowledged: Duration::from_secs(120),
        }
    }
}

impl SocketOptions {
    pub(super) fn apply(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(self.keepalive))?;
        socket.set_tcp_user_timeout(Some(self.unacknowledged))?;
        if self.receive_buffer > 0 {
            socket.set_recv_buffer_size(self.receive_buffer)?;
        }
        if self.send_buffer > 0 {
            socket.set_send_buffer_size(self.send_buffer)?;
        }
        Ok(())
    }
}
