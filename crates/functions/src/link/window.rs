//! What the other side of a call has granted.

use std::sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool};

use tokio::sync::Notify;

use crate::broker::{FRAME_COST, WINDOW_BYTES};

/// What the other side has granted.
#[derive(Debug)]
pub(super) struct Window {
    left: Mutex<Option<i64>>,
    pub(super) wake: Notify,
    /// Whether this side has sent its last frame.
    pub(super) ended: AtomicBool,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            left: Mutex::new(Some(i64::from(WINDOW_BYTES))),
            wake: Notify::new(),
            ended: AtomicBool::new(false),
        }
    }
}

impl Window {
    pub(super) fn left(&self) -> MutexGuard<'_, Option<i64>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn grant(&self, bytes: u32) {
        if let Some(left) = &mut *self.left() {
            *left += i64::from(bytes);
        }
        self.wake.notify_waiters();
    }

    /// Nobody reads any more.
    pub(super) fn close(&self) {
        *self.left() = None;
        self.wake.notify_waiters();
    }

    /// Takes the cost of a frame with a body of at most `wanted` bytes, as soon as some of it is
    /// granted; how many bytes it may have. `None` when nobody reads any more.
    pub(super) async fn take(&self, wanted: usize) -> Option<usize> {
        loop {
            let woken = self.wake.notified();
            {
                let mut left = self.left();
                let granted = left.as_mut()?;
                let body = (*granted - i64::from(FRAME_COST)).min(wanted as i64);
                if body > 0 || (body == 0 && wanted == 0) {
                    *granted -= body + i64::from(FRAME_COST);
                    return Some(body as usize);
                }
            }
            woken.await;
        }
    }
}
