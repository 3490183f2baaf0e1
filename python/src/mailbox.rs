//! Things that threads leave for a Python event loop, which one file descriptor wakes.

use std::{
    io::{self, Read, Write},
    os::fd::AsRawFd,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use pyo3::{
    exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration},
    intern,
    prelude::*,
};
use r3mes_functions::{Failure, wire::messages::Progress};

use crate::{codec, failure, node::Job};

/// What is left for a loop.
pub(crate) enum Letter {
    /// A call for the loop to run.
    Job(Job),
    /// Nobody waits for the call of that id any more.
    Cancelled(String),
    /// How far the call has come that the first one, a future, waits for; the second one is to be told.
    Progress(Arc<(Py<PyAny>, Py<PyAny>)>, Progress),
    /// What became of something that a future stands for.
    Outcome(Py<PyAny>, Outcome),
}

/// What became of it.
pub(crate) enum Outcome {
    /// Bytes of a value, and how to read them.
    Value(Bytes, codec::Reading),
    /// Nothing more comes.
    End,
    /// It is done.
    Done(bool),
    /// It failed.
    Failed(Failure),
}

/// The shared side of a mailbox.
pub(crate) struct Box {
    letters: Mutex<Vec<Letter>>,
    bell: UnixStream,
}

impl Box {
    /// Leaves something; rings once for all that lies there together.
    pub(crate) fn leave(&self, letter: Letter) {
        let mut letters = self.letters();
        letters.push(letter);
        let first = letters.len() == 1;
        drop(letters);
        if first {
            // A full pipe has rung already; a closed one has no loop any more.
            let _ = (&self.bell).write(&[0]);
        }
    }

    fn letters(&self) -> MutexGuard<'_, Vec<Letter>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mailbox of an event loop.
#[pyclass(frozen)]
pub(crate) struct Mailbox {
    inner: Arc<Box>,
    door: UnixStream,
}

impl Mailbox {
    /// Its shared side.
    pub(crate) fn inner(&self) -> Arc<Box> {
        Arc::clone(&self.inner)
    }
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new() -> io::Result<Self> {
        let (bell, door) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        door.set_nonblocking(true)?;
        let inner = Box {
            letters: Mutex::default(),
            bell,
        };
        Ok(Self {
            inner: Arc::new(inner),
            door,
        })
    }

    /// What the loop watches for reading.
    fn fileno(&self) -> i32 {
        self.door.as_raw_fd()
    }

    /// Settles the futures of what came; returns the jobs to run, and the ids of calls to cancel.
    ///
    /// What goes wrong with one letter is told as Python tells of what nobody can catch; the others go on.
    fn collect<'py>(&self, py: Python<'py>) -> (Vec<Bound<'py, Job>>, Vec<String>) {
        let mut rung = [0; 64];
        // It may have been emptied already.
        let _ = (&self.door).read(&mut rung);
        let letters = std::mem::take(&mut *self.inner.letters());
        let (mut jobs, mut cancelled) = (Vec::new(), Vec::new());
        for letter in letters {
            let done = match letter {
                Letter::Job(job) => Bound::new(py, job).map(|job| jobs.push(job)),
                Letter::Cancelled(call) => {
                    cancelled.push(call);
                    Ok(())
                }
                Letter::Progress(watcher, progress) => tell(py, &watcher, progress),
                Letter::Outcome(future, outcome) => settle(py, future.bind(py), outcome),
            };
            if let Err(error) = done {
                error.write_unraisable(py, None);
            }
        }
        (jobs, cancelled)
    }
}

/// Tells how far a call has come. What the one who is told raises ends the call.
fn tell(
    py: Python<'_>,
    (future, callback): &(Py<PyAny>, Py<PyAny>),
    progress: Progress,
) -> PyResult<()> {
    let future = future.bind(py);
    if is_done(future)? {
        return Ok(());
    }
    if let Err(error) = callback.bind(py).call1((progress.done, progress.note)) {
        if is_done(future)? {
            // It ended the call itself, so that nobody waits for what it raised.
            return Err(error);
        }
        refuse(future, error)?;
        future.getattr("call")?.call_method0("cancel")?;
    }
    Ok(())
}

/// Lets a future raise an error.
fn refuse(future: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
    let py = future.py();
    let error = if error.is_instance_of::<PyStopIteration>(py) {
        // No future takes that one, since it would end whoever awaits it.
        let other = PyRuntimeError::new_err("the call raised StopIteration");
        other.set_cause(py, Some(error));
        other
    } else {
        error
    };
    future.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?;
    Ok(())
}

fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    future
        .call_method0(intern!(future.py(), "done"))?
        .is_truthy()
}

fn settle(py: Python<'_>, future: &Bound<'_, PyAny>, outcome: Outcome) -> PyResult<()> {
    if is_done(future)? {
        return Ok(());
    }
    let result = match outcome {
        Outcome::Value(bytes, reading) => reading.value(py, bytes),
        Outcome::End => Err(PyStopAsyncIteration::new_err(())),
        Outcome::Done(went_well) => went_well.into_pyobject(py).map_or_else(
            |never| match never {},
            |value| Ok(value.to_owned().into_any()),
        ),
        Outcome::Failed(failure) => Err(failure::exception(py, &failure)),
    };
    match result {
        Ok(value) => future
            .call_method1(intern!(py, "set_result"), (value,))
            .map(drop),
        Err(error) => refuse(future, error),
    }
}
