//! Threads that watch for the next job a short while, and then park.
//!
//! Work is cut into items that write to disjoint places, so which thread takes which item never
//! shows in the result. With one thread everything runs on the caller.
//!
//! To wake a parked thread takes tens of microseconds, as long as many a product of a decoded token.
//! So who has done his part looks at a number for up to [`WATCH`] before he parks: long enough for
//! the next product, too short to weigh where another program has the processor.

use std::any::Any;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::environment::undisturbed;

/// Most threads a pool may have.
pub const MAX_THREADS: usize = 1024;

/// Longest that a thread watches for what it waits for before it parks.
const WATCH: Duration = Duration::from_micros(50);

/// A pool: `threads - 1` workers and the caller.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a job runs; a second caller then runs its job alone.
    turn: Mutex<()>,
}

struct Shared {
    state: Mutex<State>,
    /// Goes up with each job, so that a worker joins each once, and when the pool closes. As the next,
    /// it is written under the state's lock alone, and watched without it.
    number: AtomicU64,
    /// Workers inside the job.
    inside: AtomicUsize,
    /// Tells workers that there is a job, or that the pool closes.
    wake: Condvar,
    /// Tells the caller that the last worker has left the job.
    done: Condvar,
}

#[derive(Default)]
struct State {
    job: Option<Job>,
    /// Workers that have parked, and must be woken.
    parked: usize,
    /// What a worker panicked with; the caller goes on panicking with it.
    panic: Option<Box<dyn Any + Send>>,
    closing: bool,
}

/// The job's function, with its lifetime hidden: `Pool::broadcast` returns only after no worker
/// can call it any more.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn() + Sync));

// SAFETY: the function is Sync, and the pool keeps it alive while a worker may call it.
unsafe impl Send for Job {}

impl Pool {
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            number: AtomicU64::new(0),
            inside: AtomicUsize::new(0),
            wake: Condvar::new(),
            done: Condvar::new(),
        });
        let workers = (1..threads.clamp(1, MAX_THREADS))
            .filter_map(|i| {
                let shared = Arc::clone(&shared);
                // A thread that the system refuses is one worker less, never a wrong result.
                thread::Builder::new()
                    .name(format!("exact-{i}"))
                    .spawn(move || shared.work())
                    .ok()
            })
            .collect();
        Self {
            shared,
            workers,
            turn: Mutex::new(()),
        }
    }

    /// Threads that take part in a job, the caller among them.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f` once for every item, on any thread, in any order.
    pub(crate) fn each<T: Send>(&self, items: impl Iterator<Item = T>, f: impl Fn(T) + Sync) {
        undisturbed(|| self.share(items, f));
    }

    fn share<T: Send>(&self, items: impl Iterator<Item = T>, f: impl Fn(T) + Sync) {
        if self.workers.is_empty() {
            items.for_each(f);
            return;
        }
        let slots: Vec<_> = items.map(|item| Mutex::new(Some(item))).collect();
        let turn = match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(panicked)) => Some(panicked.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if slots.len() < 2 || turn.is_none() {
            for slot in slots {
                if let Some(item) = slot.into_inner().unwrap_or_else(PoisonError::into_inner) {
                    f(item);
                }
            }
            return;
        }
        let next = AtomicUsize::new(0);
        self.broadcast(&|| {
            while let Some(slot) = slots.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Some(item) = lock(slot).take() {
                    f(item);
                }
            }
        });
    }

    /// Runs `f` on the caller and on every worker that comes in time.
    fn broadcast(&self, f: &(dyn Fn() + Sync)) {
        // SAFETY: only the lifetime changes; the workers have left the job before this returns,
        // also when `f` panics here.
        let job = Job(unsafe {
            std::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(f)
        });
        {
            let mut state = lock(&self.shared.state);
            state.job = Some(job);
            self.shared.announce(&state);
        }
        let own = catch_unwind(AssertUnwindSafe(f));
        let nobody_inside = || self.shared.inside.load(Ordering::Relaxed) == 0;
        // From here on nobody enters any more.
        lock(&self.shared.state).job = None;
        watch(nobody_inside);
        let mut state = lock(&self.shared.state);
        while !nobody_inside() {
            state = self
                .shared
                .done
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let of_worker = state.panic.take();
        drop(state);
        if let Some(panic) = own.err().or(of_worker) {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// Gives the state its next number, and wakes who has parked.
    fn announce(&self, state: &State) {
        self.number.fetch_add(1, Ordering::Relaxed);
        if state.parked > 0 {
            self.wake.notify_all();
        }
    }

    fn work(&self) {
        let mut seen = 0;
        let number = || self.number.load(Ordering::Relaxed);
        loop {
            watch(|| number() != seen);
            let mut state = lock(&self.state);
            while number() == seen {
                state.parked += 1;
                state = self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.parked -= 1;
            }
            if state.closing {
                return;
            }
            seen = number();
            // Others may have done all of it.
            let Some(job) = state.job else { continue };
            self.inside.fetch_add(1, Ordering::Relaxed);
            drop(state);
            // SAFETY: `inside` was raised while the job was present, so `broadcast` waits.
            let run = || undisturbed(|| unsafe { (*job.0)() });
            let outcome = catch_unwind(AssertUnwindSafe(run));
            let mut state = lock(&self.state);
            if let Err(panic) = outcome {
                state.panic = Some(panic);
            }
            if self.inside.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.done.notify_all();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.shared.state);
            state.closing = true;
            self.shared.announce(&state);
        }
        for worker in self.workers.drain(..) {
            // A worker catches what its jobs panic with.
            let _ = worker.join();
        }
    }
}

/// Looks for up to [`WATCH`] whether something has come about.
fn watch(come_about: impl Fn() -> bool) {
    const LOOKS: usize = 32;
    let begun = Instant::now();
    while begun.elapsed() < WATCH {
        for _ in 0..LOOKS {
            if come_about() {
                return;
            }
            spin_loop();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_item_is_taken_once_by_any_number_of_threads() {
        for threads in 1..=4 {
            let pool = Pool::new(threads);
            for items in [0, 1, 2, 3, 100] {
                let sum = AtomicU64::new(0);
                for _ in 0..20 {
                    pool.each(0..items, |i| {
                        sum.fetch_add(i + 1, Ordering::Relaxed);
                    });
                }
                assert_eq!(sum.into_inner(), 20 * (items * (items + 1) / 2));
            }
        }
    }

    #[test]
    fn a_panic_in_an_item_reaches_the_caller_and_the_pool_goes_on() {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            for bad in 0..8 {
                let job = || pool.each(0..8, |i| assert_ne!(i, bad, "the bad item"));
                assert!(catch_unwind(AssertUnwindSafe(job)).is_err());
            }
            let sum = AtomicU64::new(0);
            pool.each(0..8, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 28);
        }
    }

    #[test]
    fn callers_share_a_pool_without_waiting_for_each_other() {
        let pool = Pool::new(3);
        let sum = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.each(0..10, |i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 100 * 45);
    }
}
