//! How the calls of this process went.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use pyo3::prelude::*;

/// When the first call began.
static FIRST: OnceLock<Instant> = OnceLock::new();
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);
static ENDED_WELL: AtomicU64 = AtomicU64::new(0);
/// For how long calls took that ended, together.
static MICROSECONDS: AtomicU64 = AtomicU64::new(0);

/// A call that has begun. One that is given up never ends.
#[derive(Clone, Copy)]
pub(crate) struct Begun(Instant);

impl Begun {
    /// A call begins.
    pub(crate) fn now() -> Self {
        let now = Instant::now();
        FIRST.get_or_init(|| now);
        BEGUN.fetch_add(1, Relaxed);
        Self(now)
    }

    /// It ended.
    pub(crate) fn end(self, well: bool) {
        let took = u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX);
        ENDED.fetch_add(1, Relaxed);
        ENDED_WELL.fetch_add(well.into(), Relaxed);
        MICROSECONDS.fetch_add(took, Relaxed);
    }
}

/// Calls that began, that ended well, and that ended; seconds that those took together, and seconds since
/// the first one began, if there was one.
#[pyfunction]
pub(crate) fn calls_made() -> (u64, u64, u64, f64, Option<f64>) {
    let since_first = FIRST.get().map(|first| first.elapsed().as_secs_f64());
    (
        BEGUN.load(Relaxed),
        ENDED_WELL.load(Relaxed),
        ENDED.load(Relaxed),
        MICROSECONDS.load(Relaxed) as f64 / 1e6,
        since_first,
    )
}
