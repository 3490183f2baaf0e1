//! Timing on a machine that others use too: the best of many short batches, taken in turns.

use rustix::time::{ClockId, clock_gettime};

/// Shortest batch in seconds that the clock measures well.
const BATCH: f64 = 200e-6;

/// Batches of each candidate, at least.
const BATCHES: usize = 10;

/// Seconds after which candidates are measured no more.
const ENOUGH: f64 = 0.5;

/// A piece of work to time.
pub(crate) type Work<'a> = Box<dyn FnMut() + 'a>;

/// Seconds for one call of each piece of work.
///
/// The candidates take turns, so that a disturbance meets all of them, and the fastest batch of
/// each counts: that is the one nobody disturbed.
pub(crate) fn seconds(candidates: &mut [Work<'_>]) -> Vec<f64> {
    let calls: Vec<u32> = candidates.iter_mut().map(calls_per_batch).collect();
    let mut best = vec![f64::INFINITY; candidates.len()];
    let start = now();
    for batch in 0.. {
        if batch >= BATCHES && now() - start > ENOUGH * candidates.len() as f64 {
            break;
        }
        for ((work, &calls), best) in candidates.iter_mut().zip(&calls).zip(&mut best) {
            let start = now();
            for _ in 0..calls {
                work();
            }
            *best = best.min((now() - start) / f64::from(calls));
        }
    }
    best
}

fn calls_per_batch(work: &mut Work<'_>) -> u32 {
    work();
    let start = now();
    work();
    (BATCH / (now() - start).max(20e-9)).ceil() as u32
}

/// Seconds that this thread has computed: waiting for a processor does not count.
fn now() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
