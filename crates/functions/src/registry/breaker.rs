//! A circuit breaker: after several failures in a row that are the node's fault, calls go elsewhere for
//! a while; then one is let through to see.

use crate::Moment;

/// Failures in a row after which it opens.
const TRIPS_AT: u32 = 5;
/// Microseconds for which it stays open at first, and at most.
const OPEN_US: (u64, u64) = (1_000_000, 60_000_000);

/// The breaker of one function of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    open_until: Moment,
    probing: bool,
}

impl Breaker {
    /// Whether a call may go through now.
    pub fn admits(&self, now: Moment) -> bool {
        self.failures < TRIPS_AT || (now >= self.open_until && !self.probing)
    }

    /// When calls may go through again, if they may not now.
    pub fn opens_at(&self, now: Moment) -> Option<Moment> {
        (self.failures >= TRIPS_AT && now < self.open_until).then_some(self.open_until)
    }

    /// A call goes through.
    pub fn begin(&mut self) {
        self.probing = self.failures >= TRIPS_AT;
    }

    /// A call ended without the node being to blame.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// A call failed by the node's fault.
    pub fn fail(&mut self, now: Moment) {
        self.failures = self.failures.saturating_add(1);
        self.probing = false;
        if self.failures >= TRIPS_AT {
            let doublings = (self.failures - TRIPS_AT).min(16);
            let open = (OPEN_US.0 << doublings).min(OPEN_US.1);
            self.open_until = now.after(open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_five_failures_and_lets_one_call_see() {
        let mut breaker = Breaker::default();
        let now = Moment(10_000_000);
        for _ in 0..TRIPS_AT {
            assert!(breaker.admits(now));
            breaker.begin();
            breaker.fail(now);
        }
        assert!(!breaker.admits(now));
        let later = breaker.opens_at(now).unwrap();
        assert!(breaker.admits(later));
        breaker.begin();
        assert!(!breaker.admits(later), "one call at a time sees");
        breaker.fail(later);
        let much_later = breaker.opens_at(later).unwrap();
        assert_eq!(much_later.micros_after(later), 2 * OPEN_US.0);
        breaker.begin();
        breaker.succeed();
        assert!(breaker.admits(later));
    }
}
