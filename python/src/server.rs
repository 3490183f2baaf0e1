//! A gateway within this process: frames and HTTP on one port.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use pyo3::{
    exceptions::{PyOSError, PyValueError},
    prelude::*,
};
use r3mes_functions::{
    broker::{Broker, Limits},
    serve::Hub,
    tls::ServerTls,
    tokens::{Token, Tokens},
};
use r3mes_functions_http::{Functions, HttpLimits, Origins, WebhookHosts};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::runtime::{runtime, wait};

/// A gateway that runs.
#[pyclass(frozen)]
pub(crate) struct ServerHandle {
    address: SocketAddr,
    stop: CancellationToken,
    serving: Mutex<Option<JoinHandle<()>>>,
}

#[pymethods]
impl ServerHandle {
    /// Listens at `HOST:PORT` and serves. `tokens` are `(token, user, groups)`; `token_required` says
    /// whether nobody may come without one, `tls` the files of a certificate and its key, `webhook_hosts`
    /// who alone may be told that a call is over: all on the public Internet over https if it is absent;
    /// `cors_origins` whose pages may call from a browser.
    #[new]
    fn new(
        py: Python<'_>,
        address: &str,
        tokens: Vec<(String, String, Vec<String>)>,
        token_required: bool,
        tls: Option<(PathBuf, PathBuf)>,
        webhook_hosts: Option<Vec<String>>,
        cors_origins: Vec<String>,
    ) -> PyResult<Self> {
        let tls = tls
            .map(|(certificate, key)| ServerTls::from_files(&certificate, &key))
            .transpose()
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let origins = Origins::listed(&cors_origins).map_err(PyValueError::new_err)?;
        let bound = wait(py, TcpListener::bind(address))?;
        let listener = bound.map_err(|error| {
            let words = format!(
                "cannot listen at {address}: {error}. Is another gateway there? Give Server another port."
            );
            PyOSError::new_err(words)
        })?;
        let tokens = tokens
            .into_iter()
            .map(|(token, user, groups)| Token::new(&token, user, groups, None));
        let limits = Limits {
            token_required,
            ..Limits::default()
        };
        let mut seed = [0; 8];
        getrandom(&mut seed)?;
        let broker = Broker::new(
            limits,
            Tokens::new(tokens),
            BTreeMap::new(),
            u64::from_le_bytes(seed),
        );
        let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
        let stop = CancellationToken::new();
        let (address, stopping) = (listener.local_addr()?, stop.clone());
        let serving = runtime()?.spawn(async move {
            let http = HttpLimits {
                webhooks: webhook_hosts.map_or(WebhookHosts::Public, WebhookHosts::Only),
                origins,
                ..HttpLimits::default()
            };
            let api = Functions::new(hub, http, None);
            api.serve(listener, tls, stopping).await;
        });
        Ok(Self {
            address,
            stop,
            serving: Mutex::new(Some(serving)),
        })
    }

    /// Where it listens.
    fn address(&self) -> String {
        self.address.to_string()
    }

    /// Waits until it has ended.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        let lock = || self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut serving) = lock().take() else {
            return Ok(());
        };
        let ended = wait(py, &mut serving);
        if ended.is_err() {
            // A signal came; somebody may wait again.
            *lock() = Some(serving);
        }
        ended?.map_err(|error| PyOSError::new_err(error.to_string()))
    }

    /// Ends it, and all connections.
    fn stop(&self) {
        self.stop.cancel();
    }
}

fn getrandom(seed: &mut [u8; 8]) -> PyResult<()> {
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, seed)?;
    Ok(())
}
