//! How the broker has done of late.

use crate::Moment;

/// Seconds that are looked back over.
pub const WINDOW_S: u64 = 60;

/// What happened in one second, or in the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Calls that ended at a node.
    pub calls: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Microseconds from when those calls came until they ended.
    pub response_us: u64,
    /// Calls that were given to a node.
    pub given: u64,
    /// Microseconds from when those came until a node had them.
    pub routing_us: u64,
}

/// Sums of the last minute.
#[derive(Debug)]
pub struct Recent {
    seconds: [(u64, Sums); WINDOW_S as usize],
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            seconds: [(0, Sums::default()); WINDOW_S as usize],
        }
    }
}

impl Recent {
    /// A node was given a call that had come at `came`.
    pub fn given(&mut self, came: Moment, now: Moment) {
        let sums = self.at(now);
        sums.given += 1;
        sums.routing_us += now.micros_after(came);
    }

    /// A call that had come at `came` ended at its node.
    pub fn ended(&mut self, came: Moment, failed: bool, now: Moment) {
        let sums = self.at(now);
        sums.calls += 1;
        sums.failed += u64::from(failed);
        sums.response_us += now.micros_after(came);
    }

    /// The sums of the last minute.
    pub fn sums(&self, now: Moment) -> Sums {
        let oldest = (now.0 / 1_000_000).saturating_sub(WINDOW_S - 1);
        let recent = self.seconds.iter().filter(|(second, _)| *second >= oldest);
        recent.fold(Sums::default(), |total, (_, one)| Sums {
            calls: total.calls + one.calls,
            failed: total.failed + one.failed,
            response_us: total.response_us + one.response_us,
            given: total.given + one.given,
            routing_us: total.routing_us + one.routing_us,
        })
    }

    fn at(&mut self, now: Moment) -> &mut Sums {
        let second = now.0 / 1_000_000;
        let place = &mut self.seconds[(second % WINDOW_S) as usize];
        if place.0 != second {
            *place = (second, Sums::default());
        }
        &mut place.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_looked_back_over_and_no_more() {
        let mut recent = Recent::default();
        let at = |seconds: u64| Moment(seconds * 1_000_000);
        recent.given(at(100), at(101));
        recent.ended(at(100), true, at(103));
        recent.ended(at(150), false, at(151));
        let sums = recent.sums(at(151));
        assert_eq!((sums.calls, sums.failed, sums.given), (2, 1, 1));
        assert_eq!((sums.routing_us, sums.response_us), (1_000_000, 4_000_000));
        assert_eq!(recent.sums(at(165)).calls, 1);
        assert_eq!(recent.sums(at(500)), Sums::default());
    }
}
