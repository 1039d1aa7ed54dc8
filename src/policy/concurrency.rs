//! How many connections one client address may have at a time. Parked ones count.

/// Connections per client address. 0 lifts the limit.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Limit(pub u32);

impl Default for Limit {
    /// Like Postfix: half of what would fill a default server.
    fn default() -> Limit {
        Limit(50)
    }
}

impl Limit {
    /// Whether `active` connections, the new one included, are too many.
    pub const fn is_exceeded_by(self, active: u32) -> bool {
        self.0 != 0 && active > self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn the_limit_itself_is_allowed_and_zero_lifts_it() {
        for (limit, active, exceeded) in [
            (1, 1, false),
            (1, 2, true),
            (50, 50, false),
            (50, 51, true),
            (0, u32::MAX, false),
        ] {
            assert_eq!(
                Limit(limit).is_exceeded_by(active),
                exceeded,
                "{active} of {limit}"
            );
        }
    }
}
