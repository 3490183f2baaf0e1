//! A connection as a client, and the calls made on it.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use pyo3::{
    exceptions::{PyRuntimeError, PyStopIteration, PyValueError},
    prelude::*,
    types::{PyDict, PyTuple},
};
use r3mes_functions::{
    Failure, Reason,
    client::{self, Client, ClientConfig, Event, Reply},
    wire::messages::{CallHead, Progress},
};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    codec::{self, Encoded, Reading},
    failure,
    hooks::hooks,
    mailbox::{Letter, Mailbox, Outcome},
    runtime::{look, runtime, wait},
    tally::Begun,
};

/// What is called, and how its values travel.
#[pyclass(frozen)]
pub(crate) struct Head {
    head: Arc<CallHead>,
    reading: Reading,
    /// `(share, note) -> None`: told how far a call has come.
    progress: Option<Py<PyAny>>,
}

#[pymethods]
impl Head {
    /// Reads a description that the Python half wrote.
    #[new]
    #[pyo3(signature = (head, *, pickle = false, views = false, convert = None, progress = None))]
    fn new(
        head: &[u8],
        pickle: bool,
        views: bool,
        convert: Option<Py<PyAny>>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            head: Arc::new(failure::read(head)?),
            reading: Reading {
                views,
                pickle,
                convert,
            },
            progress,
        })
    }
}

/// The items that come, and where the items of an argument go, with that argument.
type Opened = (Stream, Option<(Upload, Py<PyAny>)>);

/// A connection to a gateway.
#[pyclass(frozen)]
pub(crate) struct Connection(Arc<Client>);

#[pymethods]
impl Connection {
    /// Connects.
    #[new]
    fn new(
        py: Python<'_>,
        gateway: &str,
        token: Option<String>,
        ca: Option<PathBuf>,
    ) -> PyResult<Self> {
        let config = ClientConfig {
            broker: gateway.to_owned(),
            token,
            ca,
        };
        match wait(py, Client::connect(&config))? {
            Ok(client) => Ok(Self(Arc::new(client))),
            Err(error) => {
                let reason = match &error {
                    client::ConnectError::Refused { .. } => "unauthenticated",
                    _ => "unreachable",
                };
                let nothing: Option<&str> = None;
                let words = (reason, error.to_string(), nothing, nothing, nothing);
                let made = hooks(py)?.failure.bind(py).call1(words)?;
                Err(PyErr::from_value(made))
            }
        }
    }

    /// Whether the connection still stands.
    fn connected(&self) -> bool {
        self.0.is_connected()
    }

    /// Calls and waits for the result.
    #[pyo3(signature = (head, args, kwargs))]
    fn call<'py>(
        &self,
        head: &Bound<'py, Head>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, called) = (args.py(), head.get());
        let reading = &called.reading;
        let parts = single(args, kwargs, reading.pickle)?;
        let mut raised = None;
        // This thread drives the call, so what is told runs in it.
        let told = |progress: Progress| {
            let Some(callback) = &called.progress else {
                return true;
            };
            let words = (progress.done, progress.note);
            raised = Python::attach(|py| callback.bind(py).call1(words).err());
            raised.is_none()
        };
        let calling = result(Arc::clone(&self.0), Arc::clone(&called.head), parts, told);
        match (wait(py, calling)?, raised) {
            (_, Some(raised)) => Err(raised),
            (Ok(bytes), None) => reading.value(py, bytes),
            (Err(failure), None) => Err(failure::exception(py, &failure)),
        }
    }

    /// Calls; the result settles `future` of the loop that has `mailbox`.
    #[pyo3(signature = (head, args, kwargs, mailbox, future))]
    fn start(
        &self,
        head: &Bound<'_, Head>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
    ) -> PyResult<Pending> {
        let (py, called) = (args.py(), head.get());
        let parts = single(args, kwargs, called.reading.pickle)?;
        let (reading, mailbox) = (called.reading.again(py), mailbox.get().inner());
        let watcher = called.progress.as_ref();
        let watcher = watcher.map(|callback| (future.clone_ref(py), callback.clone_ref(py)));
        let (watcher, letters) = (watcher.map(Arc::new), Arc::clone(&mailbox));
        let told = move |progress| {
            if let Some(watcher) = &watcher {
                letters.leave(Letter::Progress(Arc::clone(watcher), progress));
            }
            true
        };
        let calling = result(Arc::clone(&self.0), Arc::clone(&called.head), parts, told);
        let mut calling = Box::pin(calling);
        let handle = runtime()?;
        let settled = move |result| {
            let outcome = match result {
                Ok(bytes) => Outcome::Value(bytes, reading),
                Err(failure) => Outcome::Failed(failure),
            };
            mailbox.leave(Letter::Outcome(future, outcome));
        };
        let _entered = handle.enter();
        match look(&mut calling) {
            Poll::Ready(result) => {
                settled(result);
                Ok(Pending(None))
            }
            Poll::Pending => {
                let task = handle.spawn(async move { settled(calling.await) });
                Ok(Pending(Some(task.abort_handle())))
            }
        }
    }

    /// Calls a function that takes or yields items: the items that come, and where the items of an
    /// argument go, with that argument.
    #[pyo3(signature = (head, args, kwargs))]
    fn open(
        &self,
        head: &Bound<'_, Head>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Opened> {
        let (py, Head { head, reading, .. }) = (args.py(), head.get());
        let Encoded { parts, stream } = Encoded::arguments(args, kwargs, reading.pickle)?;
        let (client, head) = (Arc::clone(&self.0), Arc::clone(head));
        let begun = Begun::now();
        let opened = match stream {
            None => wait(py, async {
                client
                    .call_with(&head, parts)
                    .await
                    .map(|reply| (reply, None))
            })?,
            Some(argument) => wait(py, async {
                let (upload, reply) = client.open(&head).await?;
                // Who reads no more says why, in the reply.
                let _ = upload.item_of(parts).await;
                Ok((reply, Some((upload, argument))))
            })?,
        };
        let (reply, upload) = opened.map_err(|failure| {
            begun.end(false);
            failure::exception(py, &failure)
        })?;
        let upload = upload.map(|(upload, argument)| {
            let pickle = reading.pickle;
            let upload = Mutex::new(Some(upload));
            (Upload { upload, pickle }, argument)
        });
        Ok((
            Stream::new(Timed { reply, begun }, reading.again(py)),
            upload,
        ))
    }

    /// The nodes that are connected.
    fn nodes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let nodes = wait(py, self.0.nodes())?.map_err(|error| failure::exception(py, &error))?;
        Reading::default().value(py, failure::write(&nodes)?.into())
    }

    /// The functions that may be called.
    fn functions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let functions = wait(py, self.0.functions())?;
        let functions = functions.map_err(|error| failure::exception(py, &error))?;
        Reading::default().value(py, failure::write(&functions)?.into())
    }
}

/// The arguments of a call that takes no items.
fn single(
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
    pickle: bool,
) -> PyResult<Vec<Bytes>> {
    let encoded = Encoded::arguments(args, kwargs, pickle)?;
    match encoded.stream {
        None => Ok(encoded.parts),
        Some(_) => Err(PyValueError::new_err(
            "an iterator must itself be an argument, not lie within one",
        )),
    }
}

/// The one result of a call. `told` hears how far it has come, and gives the call up by answering false.
async fn result(
    client: Arc<Client>,
    head: Arc<CallHead>,
    parts: Vec<Bytes>,
    told: impl FnMut(Progress) -> bool,
) -> Result<Bytes, Failure> {
    let begun = Begun::now();
    let result = only_item(&client, &head, parts, told).await;
    begun.end(result.is_ok());
    result
}

async fn only_item(
    client: &Client,
    head: &CallHead,
    parts: Vec<Bytes>,
    mut told: impl FnMut(Progress) -> bool,
) -> Result<Bytes, Failure> {
    let mut reply = client.call_with(head, parts).await?;
    let mut first = None;
    while let Some(event) = reply.event().await? {
        match event {
            Event::Progress(progress) => {
                if !told(progress) {
                    let words = "the caller gave the call up";
                    return Err(Failure::new(Reason::Cancelled, words));
                }
            }
            Event::Item(_) if first.is_some() => {
                let words = format!(
                    "{} yields items: say stream=True where you make the remote function",
                    head.function
                );
                return Err(Failure::new(Reason::Invalid, words));
            }
            Event::Item(item) => first = Some(item),
            Event::Queued(_) | Event::Started(_) => {}
        }
    }
    let words = "the function ended without a result";
    first.ok_or_else(|| Failure::new(Reason::Internal, words))
}

/// A call that an event loop waits for.
#[pyclass(frozen)]
pub(crate) struct Pending(Option<AbortHandle>);

#[pymethods]
impl Pending {
    /// Gives the call up: it is cancelled at the node.
    fn cancel(&self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// The answer of a call, and when that began.
struct Timed {
    reply: Reply,
    begun: Begun,
}

type Next = Pin<Box<dyn Future<Output = (Timed, Result<Option<Bytes>, Failure>)> + Send>>;

enum State {
    Idle(Timed),
    /// Something was asked for and has not come yet.
    Asked(Next),
    /// Somebody waits for it.
    Lent,
    Over,
}

/// Items that a call yields.
#[pyclass(frozen)]
pub(crate) struct Stream {
    state: Arc<Mutex<State>>,
    closed: CancellationToken,
    reading: Reading,
}

impl Stream {
    fn new(call: Timed, reading: Reading) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::Idle(call))),
            closed: CancellationToken::new(),
            reading,
        }
    }

    fn next(&self) -> PyResult<Option<Next>> {
        // A statement of its own, so that the lock is free again for what follows.
        let before = std::mem::replace(&mut *lock(&self.state), State::Lent);
        match before {
            State::Idle(mut call) => Ok(Some(Box::pin(async move {
                let item = call.reply.item().await;
                (call, item)
            }))),
            State::Asked(next) => Ok(Some(next)),
            State::Lent => Err(PyRuntimeError::new_err(
                "somebody waits for the next item already",
            )),
            State::Over => {
                *lock(&self.state) = State::Over;
                Ok(None)
            }
        }
    }

    fn came<'py>(
        &self,
        py: Python<'py>,
        call: Timed,
        item: Result<Option<Bytes>, Failure>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        settle(&self.state, call, &item);
        match item {
            Ok(Some(bytes)) => self.reading.value(py, bytes).map(Some),
            Ok(None) => Ok(None),
            Err(failure) => Err(failure::exception(py, &failure)),
        }
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settle(state: &Mutex<State>, call: Timed, item: &Result<Option<Bytes>, Failure>) {
    let mut state = lock(state);
    if matches!(*state, State::Lent) {
        *state = match item {
            Ok(Some(_)) => State::Idle(call),
            end => {
                call.begun.end(end.is_ok());
                State::Over
            }
        };
    }
}

#[pymethods]
impl Stream {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    /// The next item, however long it takes.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let over = || PyStopIteration::new_err(());
        let mut next = self.next()?.ok_or_else(over)?;
        let (call, item) = match look(&mut next) {
            Poll::Ready(came) => came,
            Poll::Pending => {
                let closed = self.closed.cancelled();
                let came = wait(py, async {
                    tokio::select! {
                        came = next => Some(came),
                        () = closed => None,
                    }
                })?;
                came.ok_or_else(over)?
            }
        };
        self.came(py, call, item)?.ok_or_else(over)
    }

    /// `(True, item)` if the next item is there, `(False, None)` if there is none yet, else nothing.
    fn look<'py>(&self, py: Python<'py>) -> PyResult<Option<(bool, Option<Bound<'py, PyAny>>)>> {
        let Some(mut next) = self.next()? else {
            return Ok(None);
        };
        match look(&mut next) {
            Poll::Ready((call, item)) => {
                Ok(self.came(py, call, item)?.map(|item| (true, Some(item))))
            }
            Poll::Pending => {
                *lock(&self.state) = State::Asked(next);
                Ok(Some((false, None)))
            }
        }
    }

    /// The next item settles `future` of the loop that has `mailbox`.
    fn settle(
        &self,
        py: Python<'_>,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
    ) -> PyResult<()> {
        let mailbox = mailbox.get().inner();
        let Some(next) = self.next()? else {
            mailbox.leave(Letter::Outcome(future, Outcome::End));
            return Ok(());
        };
        let (state, reading) = (Arc::clone(&self.state), self.reading.again(py));
        let closed = self.closed.clone();
        runtime()?.spawn(async move {
            let came = tokio::select! {
                came = next => Some(came),
                () = closed.cancelled() => None,
            };
            let outcome = match came {
                None => Outcome::End,
                Some((call, item)) => {
                    settle(&state, call, &item);
                    match item {
                        Ok(Some(bytes)) => Outcome::Value(bytes, reading),
                        Ok(None) => Outcome::End,
                        Err(failure) => Outcome::Failed(failure),
                    }
                }
            };
            mailbox.leave(Letter::Outcome(future, outcome));
        });
        Ok(())
    }

    /// How far the call said it has come, of what was read so far: a share, and a line for people.
    fn progress(&self) -> Option<(Option<f64>, String)> {
        match &*lock(&self.state) {
            State::Idle(call) => call
                .reply
                .progress()
                .map(|told| (told.done, told.note.clone())),
            _ => None,
        }
    }

    /// Wants no more: the call is cancelled if it still runs.
    fn close(&self) {
        *lock(&self.state) = State::Over;
        self.closed.cancel();
    }
}

/// Where the items of an argument go.
#[pyclass(frozen)]
pub(crate) struct Upload {
    upload: Mutex<Option<client::Upload>>,
    pickle: bool,
}

#[pymethods]
impl Upload {
    /// Sends an item, waiting until there is room for it; false when nobody reads any more.
    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let parts = Encoded::value(value, self.pickle)?.parts;
        let Some(upload) = lock(&self.upload).take() else {
            return Ok(false);
        };
        let sent = wait(value.py(), upload.item_of(parts))?;
        *lock(&self.upload) = Some(upload);
        Ok(sent.is_ok())
    }

    /// Sends an item: whether it is read, if that is known at once, otherwise it settles `future`.
    fn send_soon(
        slf: &Bound<'_, Self>,
        value: &Bound<'_, PyAny>,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
    ) -> PyResult<Option<bool>> {
        let parts = Encoded::value(value, slf.get().pickle)?.parts;
        let Some(upload) = lock(&slf.get().upload).take() else {
            return Ok(Some(false));
        };
        let mut sending = Box::pin(async move {
            let sent = upload.item_of(parts).await;
            (upload, sent.is_ok())
        });
        match look(&mut sending) {
            Poll::Ready((upload, sent)) => {
                *lock(&slf.get().upload) = Some(upload);
                Ok(Some(sent))
            }
            Poll::Pending => {
                let (mailbox, own) = (mailbox.get().inner(), slf.clone().unbind());
                runtime()?.spawn(async move {
                    let (upload, sent) = sending.await;
                    *lock(&own.get().upload) = Some(upload);
                    mailbox.leave(Letter::Outcome(future, Outcome::Done(sent)));
                });
                Ok(None)
            }
        }
    }

    /// Says that nothing follows.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(upload) = lock(&self.upload).take() {
            // Who reads no more needs no end.
            let _ = wait(py, upload.end())?;
        }
        Ok(())
    }
}

/// Bytes as a value, for descriptions.
pub(crate) fn described(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    Ok(codec::Encoded::value(value, false)?.parts.concat())
}
