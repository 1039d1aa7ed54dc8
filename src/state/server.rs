//! The server of --state redis://: where it is.

use std::fmt;
use std::time::Duration;

use redis::Client;

/// A Valkey or Redis server and what it takes to be let in. Shown without the password.
#[derive(Clone)]
pub struct Server(Client);

impl Server {
    /// Or what is wrong with it.
    pub fn parse(url: &str) -> Result<Server, String> {
        let client = Client::open(url).map_err(|error| {
            let detail = error.detail().unwrap_or("not understood");
            format!("is no address of a server: {detail}")
        })?;
        Ok(Server(client))
    }

    /// Whether it answers, and lets weir in. Waits for that.
    pub fn ping(&self, patience: Duration) -> Result<(), String> {
        let asked = || {
            let mut connection = self.0.get_connection_with_timeout(patience)?;
            connection.set_read_timeout(Some(patience))?;
            redis::cmd("PING").query::<()>(&mut connection)
        };
        asked().map_err(|error| error.to_string())
    }

    pub fn client(&self) -> &Client {
        &self.0
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.0.get_connection_info();
        write!(f, "redis://{}", info.addr())?;
        match info.redis_settings().db() {
            0 => Ok(()),
            db => write!(f, "/{db}"),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
