//! Rates over all hosts, on the server: for each client and kind until when its allowance is used up.
//!
//! The server does what a shard does with a rate (policy/rate.rs), in one step and by its own clock, so that hosts need not agree on
//! the time. A moment is never put further ahead than the rate's unit: what several hosts have let pass at once before they
//! knew of each other is not held against the client for longer. Keys end by themselves when the allowance is whole again.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};

use crate::net::ClientPrefix;
use crate::policy::budget::{Kind, Owed, Spent};

/// Clients and kinds in one call: the server serves nobody else meanwhile.
const PER_CALL: usize = 512;

/// Keys, and for each: how many, microseconds each of them costs, the unit in microseconds. Answers how far ahead each is.
const SCRIPT: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ahead = {}
for i, key in ipairs(KEYS) do
  local count, cost, unit = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
  local tat = math.max(tonumber(redis.call('GET', key) or 0) or 0, now)
  tat = math.min(tat + count * cost, now + unit)
  redis.call('SET', key, string.format('%.0f', tat), 'PX', math.floor((tat - now) / 1000) + 1)
  ahead[i] = tat - now
end
return ahead
";

/// Tells what was spent here, and hears what was spent everywhere.
pub async fn settle(
    connection: &mut MultiplexedConnection,
    spent: &[Spent],
    prefix: ClientPrefix,
) -> Result<Vec<Owed>, RedisError> {
    let mut owed = Vec::with_capacity(spent.len());
    for part in spent.chunks(PER_CALL) {
        let mut call = cmd("EVAL");
        call.arg(SCRIPT).arg(part.len());
        for spent in part {
            call.arg(key(spent, prefix));
        }
        for spent in part {
            let (cost, unit) = (spent.rate.cost(), spent.rate.unit());
            call.arg(spent.count);
            call.arg(cost.as_micros() as u64);
            call.arg(unit.as_micros() as u64);
        }
        let ahead: Vec<u64> = call.query_async(connection).await?;
        owed.extend(part.iter().zip(ahead).map(|(spent, ahead)| Owed {
            client: spent.client,
            kind: spent.kind,
            ahead: Duration::from_micros(ahead),
        }));
    }
    Ok(owed)
}

/// With the bits that make a client: a network and its first address are two clients.
fn key(spent: &Spent, prefix: ClientPrefix) -> String {
    let kind = match spent.kind {
        Kind::Connections => 'c',
        Kind::Messages => 'm',
        Kind::Recipients => 'r',
    };
    let (v4, v6) = prefix.bits();
    format!("weir:rate:{kind}:{v4}/{v6}:{:x}", spent.client.to_bits())
}
