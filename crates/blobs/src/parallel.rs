//! Work on several items by several threads at once.

use std::{
    num::NonZero,
    panic,
    thread::{self, available_parallelism},
};

/// Most threads for work that keeps a processor busy.
const MAX_BUSY: usize = 8;

/// Threads for work that mostly waits for the disk, which does several things at once better.
const WAITING: usize = 8;

/// What `work` makes of each item, in order, by as many threads as there are processors.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let processors = available_parallelism().map_or(1, NonZero::get);
    by_threads(processors.min(MAX_BUSY), items, work)
}

/// Does work that waits for the disk on every item, and gives the first failure, if any.
pub(crate) fn try_each<T: Sync, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    by_threads(WAITING, items, work).into_iter().collect()
}

fn by_threads<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let share = items.len().div_ceil(threads).max(1);
    let mut shares = items.chunks(share);
    let (Some(first), work) = (shares.next(), &work) else {
        return Vec::new();
    };
    thread::scope(|scope| {
        let others: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(work).collect::<Vec<R>>()))
            .collect();
        let mut done: Vec<R> = first.iter().map(work).collect();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => panic::resume_unwind(panic),
            }
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_whatever_the_number_of_threads() {
        for count in 0..40usize {
            let items: Vec<usize> = (0..count).collect();
            let expected: Vec<usize> = items.iter().map(|n| n * n).collect();
            for threads in 1..10 {
                assert_eq!(by_threads(threads, &items, |n| n * n), expected);
            }
            let failed = try_each(&items, |n| if *n < 17 { Ok(()) } else { Err(*n) });
            assert_eq!(failed, if count > 17 { Err(17) } else { Ok(()) });
        }
    }
}
