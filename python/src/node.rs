//! A compute node, and the calls that it is given.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use pyo3::{
    exceptions::{PyRuntimeError, PyStopIteration, PyValueError},
    prelude::*,
    types::{PyBytes, PyDict, PyTuple},
};
use r3mes_functions::{
    Failure, Reason,
    node::{Input, Invocation, Node, NodeConfig, NodeError, Output, key_file},
    registry::{Capabilities, FunctionInfo},
    wire::messages::Caller,
};
use serde::Deserialize;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::described,
    codec::{Encoded, Reading},
    failure, load,
    mailbox::{self, Letter, Mailbox, Outcome},
    runtime::{look, runtime, wait},
};

type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a call ends at the node.
enum Ending {
    /// Its last bytes are on their way.
    Sending(Sending),
    /// Everything was sent.
    Sent,
    Failed(Failure),
}

/// A call that this node was given.
#[pyclass(frozen)]
pub(crate) struct Job {
    target: Arc<Target>,
    caller: Caller,
    first: Mutex<Option<Bytes>>,
    input: Mutex<Option<Input>>,
    output: Arc<Output>,
    ended: Mutex<Option<oneshot::Sender<Ending>>>,
}

/// A function of this node.
struct Target {
    function: Py<PyAny>,
    /// What makes an iterable of a job whose arguments follow as items.
    stream: Py<PyAny>,
    reading: Reading,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    fn end(&self, ending: Ending) {
        if let Some(ended) = lock(&self.ended).take() {
            // The node's run may have ended before the call.
            let _ = ended.send(ending);
        }
    }

    fn last(&self, parts: Vec<Bytes>) {
        let output = Arc::clone(&self.output);
        let mut sending: Sending = Box::pin(async move {
            // A caller that is gone has no use for it.
            let _ = output.last_of(parts).await;
        });
        self.end(match look(&mut sending) {
            Poll::Ready(()) => Ending::Sent,
            Poll::Pending => Ending::Sending(sending),
        });
    }
}

#[pymethods]
impl Job {
    /// The function.
    #[getter]
    fn target<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.target.function.bind(py).clone()
    }

    /// The token's name, empty for somebody without one.
    #[getter]
    fn user(&self) -> &str {
        &self.caller.user
    }

    /// Groups that the token carries.
    #[getter]
    fn groups(&self) -> Vec<String> {
        self.caller.groups.clone()
    }

    /// The gateway's id of the call.
    #[getter]
    fn call(&self) -> &str {
        &self.caller.call
    }

    /// Whether nobody waits for the call any more.
    #[getter]
    fn cancelled(&self) -> bool {
        self.output.cancelled().is_cancelled()
    }

    /// The arguments.
    fn arguments<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let (py, job) = (slf.py(), slf.get());
        let first = lock(&job.first).take();
        let first =
            first.ok_or_else(|| PyRuntimeError::new_err("the arguments were read already"))?;
        let stream = || job.target.stream.bind(py).call1((slf,));
        job.target.reading.arguments(py, first, &stream)
    }

    /// The arguments as they came, for another process.
    fn raw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &lock(&self.first).take().unwrap_or_default())
    }

    /// The next item of the argument that is a stream, however long it takes.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let over = || PyStopIteration::new_err(());
        let mut input = lock(&self.input).take().ok_or_else(over)?;
        let item = wait(py, input.item())?.ok_or_else(over)?;
        *lock(&self.input) = Some(input);
        self.target.reading.plain().value(py, item)
    }

    /// The next item of the argument that is a stream as it came; nothing after the last one.
    fn next_raw<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some(mut input) = lock(&self.input).take() else {
            return Ok(None);
        };
        let Some(item) = wait(py, input.item())? else {
            return Ok(None);
        };
        *lock(&self.input) = Some(input);
        Ok(Some(PyBytes::new(py, &item)))
    }

    /// The next item of the argument that is a stream settles `future`.
    fn next_soon(
        slf: &Bound<'_, Self>,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
    ) -> PyResult<()> {
        let mailbox = mailbox.get().inner();
        let Some(mut input) = lock(&slf.get().input).take() else {
            mailbox.leave(Letter::Outcome(future, Outcome::End));
            return Ok(());
        };
        let own = slf.clone().unbind();
        runtime()?.spawn(async move {
            let outcome = match input.item().await {
                Some(item) => {
                    *lock(&own.get().input) = Some(input);
                    Outcome::Value(item, own.get().target.reading.plain())
                }
                None => Outcome::End,
            };
            mailbox.leave(Letter::Outcome(future, outcome));
        });
        Ok(())
    }

    /// Answers with a value.
    fn finish(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let parts = Encoded::value(value, self.target.reading.pickle)?.parts;
        self.last(parts);
        Ok(())
    }

    /// Answers with the bytes of a value.
    fn finish_raw(&self, item: &[u8]) {
        self.last(vec![Bytes::copy_from_slice(item)]);
    }

    /// Yields an item, waiting until there is room for it; false when nobody reads any more.
    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let parts = Encoded::value(value, self.target.reading.pickle)?.parts;
        self.send_parts(value.py(), parts)
    }

    /// Yields an item whose bytes are known.
    fn send_raw(&self, py: Python<'_>, item: &[u8]) -> PyResult<bool> {
        self.send_parts(py, vec![Bytes::copy_from_slice(item)])
    }

    /// Yields an item: whether that went well if it is known at once, otherwise it settles `future`.
    fn send_soon(
        &self,
        value: &Bound<'_, PyAny>,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
    ) -> PyResult<Option<bool>> {
        let parts = Encoded::value(value, self.target.reading.pickle)?.parts;
        let output = Arc::clone(&self.output);
        let mut sending = Box::pin(async move { output.item_of(parts).await.is_ok() });
        match look(&mut sending) {
            Poll::Ready(sent) => Ok(Some(sent)),
            Poll::Pending => {
                let mailbox = mailbox.get().inner();
                runtime()?.spawn(async move {
                    let sent = sending.await;
                    mailbox.leave(Letter::Outcome(future, Outcome::Done(sent)));
                });
                Ok(None)
            }
        }
    }

    /// Says that all items were yielded.
    fn finish_stream(&self) {
        self.end(Ending::Sent);
    }

    /// Says that the call failed.
    #[pyo3(signature = (reason, message, exception = None, traceback = None))]
    fn fail(
        &self,
        reason: &str,
        message: String,
        exception: Option<String>,
        traceback: Option<String>,
    ) {
        self.end(Ending::Failed(Failure {
            exception,
            traceback,
            ..Failure::new(failure::reason(reason), message)
        }));
    }

    /// Says how far the call has come.
    fn progress(&self, done: Option<f64>, note: String) {
        self.output.progress(done, note);
    }
}

impl Job {
    fn send_parts(&self, py: Python<'_>, parts: Vec<Bytes>) -> PyResult<bool> {
        let mut sending = Box::pin(self.output.item_of(parts));
        match look(&mut sending) {
            Poll::Ready(sent) => Ok(sent.is_ok()),
            Poll::Pending => Ok(wait(py, sending)?.is_ok()),
        }
    }
}

/// Calls that wait for one of several threads.
#[pyclass(frozen)]
#[derive(Default)]
pub(crate) struct Pool {
    state: Arc<(Mutex<Waiting>, Condvar)>,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Threads that wait.
    idle: usize,
    /// Whether one of them was woken and has not come yet. No second one is woken then: a thread that
    /// finishes a short call sooner takes the next one itself, without a change of threads.
    woken: bool,
    closed: bool,
}

fn push((waiting, ready): &(Mutex<Waiting>, Condvar), job: Job) {
    let mut waiting = lock(waiting);
    waiting.jobs.push_back(job);
    if waiting.idle > 0 && !std::mem::replace(&mut waiting.woken, true) {
        ready.notify_one();
    }
}

#[pymethods]
impl Pool {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// The next call, however long it takes; nothing when the pool is closed.
    fn take(&self, py: Python<'_>) -> Option<Job> {
        let (waiting, ready) = &*self.state;
        let mut came = false;
        loop {
            {
                let mut waiting = lock(waiting);
                if std::mem::take(&mut came) {
                    waiting.idle -= 1;
                    waiting.woken = false;
                }
                if let Some(job) = waiting.jobs.pop_front() {
                    let more = !waiting.jobs.is_empty() && waiting.idle > 0;
                    if more && !std::mem::replace(&mut waiting.woken, true) {
                        ready.notify_one();
                    }
                    return Some(job);
                }
                if waiting.closed {
                    return None;
                }
                waiting.idle += 1;
            }
            came = true;
            py.detach(|| {
                let mut waiting = lock(waiting);
                while waiting.jobs.is_empty() && !waiting.closed {
                    // Another thread may have taken the call for which this one was woken.
                    waiting.woken = false;
                    waiting = ready.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
            });
        }
    }

    /// Threads that wait.
    fn idle(&self) -> usize {
        lock(&self.state.0).idle
    }

    /// Lets all threads go once no call is left.
    fn close(&self) {
        lock(&self.state.0).closed = true;
        self.state.1.notify_all();
    }
}

/// Who runs a function's calls.
enum Runner {
    Threads(Arc<(Mutex<Waiting>, Condvar)>),
    Loop(Arc<mailbox::Box>),
}

async fn attend(
    target: Arc<Target>,
    runner: Arc<Runner>,
    invocation: Invocation,
) -> Result<(), Failure> {
    let Invocation {
        caller,
        mut input,
        output,
    } = invocation;
    let cancelled = output.cancelled().clone();
    // When the connection is lost, so is this; the function is told as of any other cancellation.
    let _told = cancelled.clone().drop_guard();
    let first = input.item().await;
    let first = first.ok_or_else(|| Failure::new(Reason::Invalid, "the call has no arguments"))?;
    let (ended, mut ending) = oneshot::channel();
    let call = caller.call.clone();
    let job = Job {
        target,
        caller,
        first: Mutex::new(Some(first)),
        input: Mutex::new(Some(input)),
        output: Arc::new(output),
        ended: Mutex::new(Some(ended)),
    };
    match &*runner {
        Runner::Threads(waiting) => push(waiting, job),
        Runner::Loop(mailbox) => mailbox.leave(Letter::Job(job)),
    }
    let ending = tokio::select! {
        ending = &mut ending => ending,
        () = cancelled.cancelled() => {
            if let Runner::Loop(mailbox) = &*runner {
                mailbox.leave(Letter::Cancelled(call));
            }
            ending.await
        }
    };
    match ending {
        Ok(Ending::Sent) => Ok(()),
        Ok(Ending::Sending(sending)) => {
            sending.await;
            Ok(())
        }
        Ok(Ending::Failed(failure)) => Err(failure),
        Err(_) => Err(Failure::new(Reason::Internal, "the node forgot the call")),
    }
}

/// What the Python half says of a node.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    gateway: String,
    id: String,
    key: PathBuf,
    token: Option<String>,
    ca: Option<PathBuf>,
    capabilities: Capabilities,
    max_concurrent: u32,
    resources: BTreeMap<String, f64>,
}

/// A function as the Python half gives it: what it is, what to call, what makes streams, which pool or
/// mailbox, whether pickled values are read, and whether bytes come as views.
type Given<'py> = (
    Bound<'py, PyAny>,
    Py<PyAny>,
    Py<PyAny>,
    Bound<'py, PyAny>,
    bool,
    bool,
);

/// A node that runs.
#[pyclass(frozen)]
pub(crate) struct NodeHandle {
    stop: CancellationToken,
    registered: watch::Receiver<bool>,
    running: Mutex<Option<JoinHandle<Result<(), NodeError>>>>,
}

#[pymethods]
impl NodeHandle {
    /// Connects, and serves from now on.
    #[new]
    fn new(description: &Bound<'_, PyAny>, functions: Vec<Given<'_>>) -> PyResult<Self> {
        let description: Description = failure::read(&described(description)?)?;
        let mut node = Node::new(NodeConfig {
            key: key_file(&description.key)?,
            broker: description.gateway,
            id: description.id,
            token: description.token,
            ca: description.ca,
            capabilities: description.capabilities,
            max_concurrent: description.max_concurrent,
            resources: description.resources,
        });
        for (info, function, stream, runner, pickle, views) in functions {
            let info: FunctionInfo = failure::read(&described(&info)?)?;
            let runner = Arc::new(match runner.cast::<Pool>() {
                Ok(pool) => Runner::Threads(Arc::clone(&pool.get().state)),
                Err(_) => Runner::Loop(runner.cast::<Mailbox>()?.get().inner()),
            });
            let reading = Reading {
                views,
                pickle,
                convert: None,
            };
            let target = Arc::new(Target {
                function,
                stream,
                reading,
            });
            node.register(info, move |invocation| {
                attend(Arc::clone(&target), Arc::clone(&runner), invocation)
            })
            .map_err(PyValueError::new_err)?;
        }
        let (stop, registered) = (CancellationToken::new(), node.registered());
        node.tell_load(load::watch(stop.clone())?);
        let running = runtime()?.spawn(node.run(stop.clone()));
        Ok(Self {
            stop,
            registered,
            running: Mutex::new(Some(running)),
        })
    }

    /// Waits until the gateway has the functions, or the node has ended.
    fn ready(&self, py: Python<'_>) -> PyResult<bool> {
        let mut registered = self.registered.clone();
        let waiting = async move { registered.wait_for(|registered| *registered).await.is_ok() };
        wait(py, waiting)
    }

    /// Whether the gateway has the functions.
    fn registered(&self) -> bool {
        *self.registered.borrow()
    }

    /// Waits until the node has ended; why, if it was refused.
    fn wait(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let Some(mut running) = lock(&self.running).take() else {
            return Ok(None);
        };
        let ended = wait(py, &mut running);
        if ended.is_err() {
            // A signal came; somebody may wait again.
            *lock(&self.running) = Some(running);
        }
        match ended? {
            Ok(Ok(())) => Ok(None),
            Ok(Err(error)) => Ok(Some(error.to_string())),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    /// Ends it.
    fn stop(&self) {
        self.stop.cancel();
    }
}
