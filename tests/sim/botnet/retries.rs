//! When mail that was deferred is tried again: schedules as mail servers have them out of the box, and as bots do.

use std::time::Duration;

use crate::chance::Chance;

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// queue_run_delay 300 s, backoff by age between 300 and 4000 s, five days.
    Postfix,
    /// `F,2h,15m; G,16h,1h,1.5; F,4d,6h`, with a queue run every half hour.
    Exim,
    /// A queue run every hour, five days.
    Sendmail,
    /// (sqrt(age) + 20)², seven days.
    Qmail,
    /// A minute four times, five minutes six times, then a quarter of an hour, two days.
    Exchange,
    /// A provider's pool: a few minutes at first, up to an hour, one day.
    Pool,
    /// A provider: from some minutes on ever longer, three days.
    Provider,
    /// A shop's program: 1, 5, 15, 30 and 60 minutes after the first try, and then no more.
    Shop,
    Never,
    /// A bot's queue: so many more tries, so many minutes apart.
    Bot {
        times: u32,
        minutes: u64,
    },
}

impl Retry {
    /// How long after a try that failed the next one is made, if there is one.
    pub fn wait(self, tries: u32, age: Duration, chance: &mut Chance) -> Option<Duration> {
        let age = age.as_secs();
        let (wait, lifetime) = match self {
            Retry::Postfix => (age.clamp(300, 4000) + chance.below(300), 5 * DAY),
            Retry::Exim => (exim(age, tries) + chance.below(30 * MINUTE), 4 * DAY),
            Retry::Sendmail => (HOUR + chance.below(30), 5 * DAY),
            Retry::Qmail => (qmail(age), 7 * DAY),
            Retry::Exchange => (exchange(tries) + chance.below(20), 2 * DAY),
            Retry::Pool => {
                let most = ((5 * MINUTE) << tries.min(8)).min(HOUR);
                (chance.within(most / 2..most), DAY)
            }
            Retry::Provider => {
                let most = ((10 * MINUTE) << tries.min(8)).min(6 * HOUR);
                (chance.within(most / 2..most), 3 * DAY)
            }
            Retry::Shop => {
                const AFTER: [u64; 5] = [MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR];
                let after = AFTER.get(tries as usize - 1)?;
                (after.saturating_sub(age).max(1), 2 * HOUR)
            }
            Retry::Never => return None,
            Retry::Bot { times, minutes } if tries <= times => {
                let wait = minutes * MINUTE;
                (chance.within(wait / 2..wait * 2), DAY)
            }
            Retry::Bot { .. } => return None,
        };
        (age + wait <= lifetime).then_some(Duration::from_secs(wait))
    }
}

fn exim(age: u64, tries: u32) -> u64 {
    if age < 2 * HOUR {
        15 * MINUTE
    } else if age < 16 * HOUR {
        // An hour, half as long again each time; the first eight tries were a quarter of an hour apart.
        let nth = tries.saturating_sub(8).min(8) as i32;
        (HOUR as f64 * 1.5_f64.powi(nth)) as u64
    } else {
        6 * HOUR
    }
}

fn qmail(age: u64) -> u64 {
    let next = ((age as f64).sqrt() + 20.0).powi(2) as u64;
    next - age
}

fn exchange(tries: u32) -> u64 {
    match tries {
        1..=4 => MINUTE,
        5..=10 => 5 * MINUTE,
        _ => 15 * MINUTE,
    }
}
