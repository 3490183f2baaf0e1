//! What is measured, and how.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;

use crate::{CALLERS, Echo, Outcome, Side};

/// What short calls carry, there and back.
const ARGUMENT: &[u8] = b"argument";
/// Bytes of payloads.
const PAYLOAD_BYTES: usize = 10_000_000;
const LONG_PAYLOAD_BYTES: usize = 250_000_000;

/// A line of the table.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// Digits after the point that it is written with.
    pub(crate) digits: usize,
    /// Whether less of it is better.
    less: bool,
}

impl Figure {
    const fn less(name: &'static str, digits: usize) -> Self {
        let less = true;
        Self { name, digits, less }
    }

    const fn more(name: &'static str, digits: usize) -> Self {
        let less = false;
        Self { name, digits, less }
    }
}

pub(crate) const FIGURES: [Figure; 9] = [
    Figure::less("call, median, µs", 0),
    Figure::less("call, 99%, µs", 0),
    Figure::less("call, processor time, µs", 0),
    Figure::more("calls/s, 64 at a time", 0),
    Figure::less("64 at a time, processor time of a call, µs", 1),
    Figure::less("10 MB there and back, ms", 1),
    Figure::less("10 MB, processor time, ms", 1),
    Figure::less("250 MB there and back, ms", 0),
    Figure::less("250 MB, processor time, ms", 0),
];

/// Where in [`FIGURES`] those of a kind of measurement begin.
const ONE_BY_ONE: usize = 0;
const AT_ONCE: usize = 3;
const PAYLOAD: usize = 5;
const LONG_PAYLOAD: usize = 7;

impl Side {
    /// Keeps these figures, from the one of that index on, where they are better than what was known.
    fn keep(&mut self, from: usize, seen: &[f64]) {
        for ((best, figure), &seen) in self.best.iter_mut().zip(&FIGURES).skip(from).zip(seen) {
            *best = Some(match *best {
                None => seen,
                Some(best) if figure.less => best.min(seen),
                Some(best) => best.max(seen),
            });
        }
    }
}

/// How long and how often.
pub(crate) struct Turns {
    /// Time of a turn of short calls.
    each: Duration,
    rounds: usize,
    /// Payloads of a round.
    payloads: usize,
    long_payloads: usize,
}

impl Turns {
    pub(crate) fn new(quick: bool) -> Self {
        let (each, rounds, payloads, long_payloads) = match quick {
            true => (Duration::from_millis(200), 1, 3, 1),
            false => (Duration::from_millis(500), 8, 3, 1),
        };
        Self {
            each,
            rounds,
            payloads,
            long_payloads,
        }
    }

    /// Measures all sides, each figure of each in turn.
    pub(crate) async fn measure(&self, sides: &mut [&mut Side]) -> Outcome<()> {
        for side in &mut *sides {
            let echoed = side.client.echo(ARGUMENT.into()).await?;
            assert_eq!(echoed, ARGUMENT, "{}", side.name);
        }
        for _ in 0..self.rounds {
            for side in &mut *sides {
                let seen = one_by_one(&*side.client, self.each).await?;
                side.keep(ONE_BY_ONE, &seen);
            }
            for side in &mut *sides {
                let seen = at_once(&side.client, self.each).await?;
                side.keep(AT_ONCE, &seen);
            }
            for side in &mut *sides {
                for _ in 0..self.payloads {
                    let seen = round_trip(&*side.client, PAYLOAD_BYTES).await?;
                    side.keep(PAYLOAD, &seen);
                }
            }
            for side in &mut *sides {
                for _ in 0..self.long_payloads {
                    let seen = round_trip(&*side.client, LONG_PAYLOAD_BYTES).await?;
                    side.keep(LONG_PAYLOAD, &seen);
                }
            }
        }
        Ok(())
    }
}

/// Processor time of this process so far, in seconds.
fn processor() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Median, 99% and processor time of a call, in microseconds.
async fn one_by_one(client: &dyn Echo, each: Duration) -> Outcome<[f64; 3]> {
    let (mut times, until, used) = (Vec::new(), Instant::now() + each, processor());
    while Instant::now() < until {
        let began = Instant::now();
        client.echo(ARGUMENT.into()).await?;
        times.push(began.elapsed());
    }
    let used = processor() - used;
    times.sort_unstable();
    let us = |hundredth: usize| times[times.len() * hundredth / 100].as_secs_f64() * 1e6;
    Ok([us(50), us(99), used * 1e6 / times.len() as f64])
}

/// Calls per second of [`CALLERS`], and microseconds of processor time of a call.
async fn at_once(client: &Arc<dyn Echo>, each: Duration) -> Outcome<[f64; 2]> {
    let (mut calling, began, used) = (JoinSet::new(), Instant::now(), processor());
    for _ in 0..CALLERS {
        let client = Arc::clone(client);
        calling.spawn(async move {
            let mut calls = 0u32;
            while began.elapsed() < each {
                client.echo(ARGUMENT.into()).await?;
                calls += 1;
            }
            Outcome::Ok(calls)
        });
    }
    let mut calls = 0;
    while let Some(done) = calling.join_next().await {
        calls += done??;
    }
    let used = processor() - used;
    let calls = f64::from(calls);
    Ok([calls / began.elapsed().as_secs_f64(), used * 1e6 / calls])
}

/// Time and processor time for so many bytes there and back, in milliseconds.
async fn round_trip(client: &dyn Echo, bytes: usize) -> Outcome<[f64; 2]> {
    let payload = Bytes::from(vec![0x5a; bytes]);
    let (began, used) = (Instant::now(), processor());
    let back = client.echo(payload.clone()).await?;
    let (took, used) = (began.elapsed().as_secs_f64(), processor() - used);
    match back == payload {
        true => Ok([took * 1e3, used * 1e3]),
        false => Err("other bytes came back".into()),
    }
}
