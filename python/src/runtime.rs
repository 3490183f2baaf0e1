//! The threads that move frames, and how a Python thread waits for them.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::Duration,
};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};

/// How long a waiting thread goes without looking for signals, such as that of Ctrl-C.
const SIGNALS: Duration = Duration::from_millis(100);

/// The runtime, and the process that it belongs to: a forked child has none of its parent's threads.
static RUNTIME: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

/// The runtime of this process. One thread moves all frames: it never runs Python code, and handing
/// frames among several would cost more than it gains.
pub(crate) fn runtime() -> io::Result<Handle> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let here = std::process::id();
    match &*runtime {
        Some((process, running)) if *process == here => Ok(running.handle().clone()),
        _ => {
            let new = Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("r3mes")
                .enable_all()
                .build()?;
            let handle = new.handle().clone();
            // The parent's cannot be ended here: its threads are not in this process.
            std::mem::forget(runtime.replace((here, new)));
            Ok(handle)
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for `future` in this thread without holding up other Python threads, and lets signals through.
///
/// # Errors
/// What a signal handler raised.
pub(crate) fn wait<F>(py: Python<'_>, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let handle = runtime()?;
    let mut future = pin!(future);
    loop {
        let polled = py.detach(|| {
            let _entered = handle.enter();
            let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
            let mut context = Context::from_waker(&waker);
            let until = std::time::Instant::now() + SIGNALS;
            loop {
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    return Some(output);
                }
                let left = until.saturating_duration_since(std::time::Instant::now());
                if left.is_zero() {
                    return None;
                }
                std::thread::park_timeout(left);
            }
        });
        match polled {
            Some(output) => return Ok(output),
            None => py.check_signals()?,
        }
    }
}

/// Looks at `future` once.
pub(crate) fn look<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    std::pin::Pin::new(future).poll(&mut context)
}
