//! Where a step's time goes, part by part.

use std::collections::BTreeMap;

use rustix::time::{ClockId, clock_gettime};

/// A clock's time in seconds.
pub(crate) fn now(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds by part of the step.
pub(crate) struct Times {
    pub(crate) clock: ClockId,
    pub(crate) parts: BTreeMap<&'static str, f64>,
}

impl Times {
    pub(crate) fn add(&mut self, part: &'static str, start: f64) {
        *self.parts.entry(part).or_insert(0.0) += now(self.clock) - start;
    }
}

/// Times one expression as part of a step.
macro_rules! part {
    ($times:expr, $name:literal, $work:expr) => {{
        let start = now($times.clock);
        let result = $work;
        $times.add($name, start);
        result
    }};
}

pub(crate) use part;
