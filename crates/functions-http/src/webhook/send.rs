//! Telling a receiver, once.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use bytes::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::counter::Counter;
use r3mes_functions::{
    tls,
    webhook::{Attempt, Webhook},
};
use r3mes_http::metrics::Metrics;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
};

use super::{WebhookHosts, receiver::Receiver, signature::signature};

/// How long a receiver may take to answer, from the look for its address on.
const ANSWER: Duration = Duration::from_secs(10);
/// Receivers that are told at a time.
const AT_ONCE: usize = 64;

/// Tells receivers. A connection serves one message; of its answer only the status is read, and a
/// redirection is not followed.
#[derive(Debug)]
pub(crate) struct Sender {
    hosts: WebhookHosts,
    tls: OnceLock<Arc<tls::ClientConfig>>,
    permits: Semaphore,
    delivered: Counter,
    failed: Counter,
}

/// Leave to send one message.
pub(crate) struct Turn<'a>(#[expect(dead_code, reason = "it is held")] SemaphorePermit<'a>);

impl Sender {
    /// One that tells these, and counts in `metrics`.
    pub(crate) fn new(hosts: WebhookHosts, metrics: &Metrics) -> Self {
        let (delivered, failed) = (Counter::default(), Counter::default());
        metrics.register(|registry| {
            let help = "Webhooks that their receivers took";
            registry.register("functions_webhooks_delivered", help, delivered.clone());
            let help = "Attempts to deliver a webhook that failed";
            registry.register("functions_webhooks_failed", help, failed.clone());
        });
        Self {
            hosts,
            tls: OnceLock::new(),
            permits: Semaphore::new(AT_ONCE),
            delivered,
            failed,
        }
    }

    /// Whether this may be told, as far as its URL says.
    ///
    /// # Errors
    /// Why not, for the caller.
    pub(super) fn check(&self, url: &str) -> Result<(), String> {
        Receiver::parse(url)?.check(&self.hosts)
    }

    /// Waits until there may be one more message under way.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let permit = self.permits.acquire().await;
        Turn(permit.expect("it is never closed"))
    }

    /// Tells a receiver of call `id`.
    pub(crate) async fn send(
        &self,
        _turn: Turn<'_>,
        webhook: &Webhook,
        id: &str,
        body: Bytes,
    ) -> Attempt {
        let telling = tokio::time::timeout(ANSWER, self.tell(webhook, id, body));
        let attempt = telling.await.unwrap_or_else(|_| {
            let words = format!("it did not answer within {} s", ANSWER.as_secs());
            Attempt::Failed(words)
        });
        match &attempt {
            Attempt::Delivered => self.delivered.inc(),
            Attempt::Failed(error) | Attempt::Refused(error) => {
                tracing::debug!(call = id, error, "functions.webhook");
                self.failed.inc()
            }
        };
        attempt
    }

    async fn tell(&self, webhook: &Webhook, id: &str, body: Bytes) -> Attempt {
        let receiver = match Receiver::parse(&webhook.url) {
            // What another gateway took may not be allowed here.
            Ok(receiver) => match receiver.check(&self.hosts) {
                Ok(()) => receiver,
                Err(refusal) => return Attempt::Refused(refusal),
            },
            Err(refusal) => return Attempt::Refused(refusal),
        };
        let addresses = match receiver.addresses(&self.hosts).await {
            Ok(addresses) => addresses,
            Err((true, refusal)) => return Attempt::Refused(refusal),
            Err((false, error)) => return Attempt::Failed(error),
        };
        let request = match request(&receiver, webhook, id, body) {
            Ok(request) => request,
            Err(error) => return Attempt::Refused(error.to_string()),
        };
        match self.exchange(&receiver, &addresses, request).await {
            Err(error) => Attempt::Failed(error),
            Ok(status) if status.is_success() => Attempt::Delivered,
            Ok(StatusCode::GONE) => Attempt::Refused("it answered 410: it wants no more".into()),
            Ok(status) if status.is_redirection() => Attempt::Failed(format!(
                "it answered {}, and redirections are not followed",
                status.as_u16()
            )),
            Ok(status) => Attempt::Failed(format!("it answered {}", status.as_u16())),
        }
    }

    async fn exchange(
        &self,
        receiver: &Receiver,
        addresses: &[SocketAddr],
        request: Request<Body>,
    ) -> Result<StatusCode, String> {
        let stream = TcpStream::connect(addresses).await;
        let stream = stream.map_err(|error| format!("it cannot be reached: {error}"))?;
        if !receiver.is_https {
            return answer(stream, request).await;
        }
        let settings = self.tls().map_err(|error| error.to_string())?;
        let stream = tls::connect(stream, &receiver.host, settings).await;
        answer(stream.map_err(|error| error.to_string())?, request).await
    }

    fn tls(&self) -> Result<Arc<tls::ClientConfig>, tls::TlsError> {
        if let Some(known) = self.tls.get() {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(tls::client_config(None)?);
        Ok(Arc::clone(self.tls.get_or_init(|| read)))
    }
}

fn request(
    receiver: &Receiver,
    webhook: &Webhook,
    id: &str,
    body: Bytes,
) -> Result<Request<Body>, axum::http::Error> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    Request::post(&receiver.path)
        .header(header::HOST, &receiver.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "r3mes")
        .header("webhook-id", id)
        .header("webhook-timestamp", seconds)
        .header(
            "webhook-signature",
            signature(&webhook.key, id, seconds, &body),
        )
        .body(Body::from(body))
}

async fn answer<S>(stream: S, request: Request<Body>) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broke = |error: hyper::Error| format!("its connection broke: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broke)?;
    // Ends with this.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let answer = sender.send_request(request).await.map_err(broke)?;
    Ok(answer.status())
}
