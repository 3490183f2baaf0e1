//! A receiver of webhooks.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::sync::mpsc;

/// What came.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

type Shared = (
    mpsc::UnboundedSender<Message>,
    Arc<Mutex<VecDeque<Option<StatusCode>>>>,
);

/// Serves until the test ends.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) came: mpsc::UnboundedReceiver<Message>,
}

impl Receiver {
    /// One that gives these answers in turn, or none where there is none, and 204 then. Each names another
    /// place of it, for who follows redirections.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Option<StatusCode>>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, came) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        let router = Router::new().fallback(take).with_state((tell, answers));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, came }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/told", self.address)
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Message {
        let came = tokio::time::timeout(super::PATIENCE, self.came.recv()).await;
        came.unwrap().unwrap()
    }
}

async fn take(State((tell, answers)): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let _ = tell.send(Message { headers, body });
    let answer = answers.lock().unwrap().pop_front();
    match answer.unwrap_or(Some(StatusCode::NO_CONTENT)) {
        Some(status) => (status, [(header::LOCATION, "/elsewhere")]).into_response(),
        None => std::future::pending().await,
    }
}
