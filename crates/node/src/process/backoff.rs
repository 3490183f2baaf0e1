//! How long a child that ended is left alone.

use std::time::Duration;

/// First pause before a restart; doubles with each failure in a row.
const FIRST: Duration = Duration::from_millis(250);
/// Longest pause before a restart.
const LONGEST: Duration = Duration::from_secs(30);
/// A child that was ready and ran this long starts with a clean slate.
const STEADY: Duration = Duration::from_secs(60);
/// A child that ended this often in a row without ever being ready is given up.
pub(super) const MAX_FAILED_STARTS: u32 = 5;

/// The pauses of one child.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    first: Duration,
    next: Duration,
    failed_starts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::from(FIRST)
    }
}

impl Backoff {
    /// Pauses of which the first is as long as this.
    pub(super) fn from(first: Duration) -> Self {
        Self {
            first,
            next: first,
            failed_starts: 0,
        }
    }

    /// The pause after a child ended that had been `ready` and lived so long, or never was ready.
    /// `None` when it is given up.
    pub(super) fn after(&mut self, ready: Option<Duration>) -> Option<Duration> {
        match ready {
            Some(lived) => {
                self.failed_starts = 0;
                if lived > STEADY {
                    self.next = self.first;
                }
            }
            None => self.failed_starts += 1,
        }
        let pause = self.longer();
        (self.failed_starts < MAX_FAILED_STARTS).then_some(pause)
    }

    /// The next pause, after an end that says nothing of the child: however often, it is not given up.
    pub(super) fn longer(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lived as long as this, having been ready.
    const SHORT: Option<Duration> = Some(Duration::from_secs(59));
    const LONG: Option<Duration> = Some(Duration::from_secs(61));

    fn millis(pause: Option<Duration>) -> Option<u128> {
        pause.map(|pause| pause.as_millis())
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_steady_life() {
        let mut backoff = Backoff::default();
        let pauses = [(); 9].map(|()| millis(backoff.after(SHORT)));
        let doubled = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
        assert_eq!(pauses, doubled.map(Some));
        assert_eq!(millis(backoff.after(LONG)), Some(250));
        assert_eq!(millis(backoff.after(SHORT)), Some(500));
    }

    #[test]
    fn five_ends_in_a_row_without_being_ready_are_too_many() {
        let mut backoff = Backoff::default();
        for pause in [250, 500, 1_000, 2_000] {
            assert_eq!(millis(backoff.after(None)), Some(pause));
        }
        // Once ready, it has five more.
        assert_eq!(millis(backoff.after(SHORT)), Some(4_000));
        for pause in [8_000, 16_000, 30_000, 30_000] {
            assert_eq!(millis(backoff.after(None)), Some(pause));
        }
        assert_eq!(backoff.after(None), None);
    }

    #[test]
    fn ends_that_say_nothing_of_the_child_are_not_counted() {
        let mut backoff = Backoff::default();
        let pauses = [(); 9].map(|()| backoff.longer().as_millis());
        assert_eq!(pauses[..3], [250, 500, 1_000]);
        assert_eq!(pauses[8], 30_000);
        for _ in 0..MAX_FAILED_STARTS - 1 {
            assert_eq!(millis(backoff.after(None)), Some(30_000));
        }
        assert_eq!(backoff.after(None), None);
    }
}
