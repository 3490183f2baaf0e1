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
    tls::{self, TlsError},
    webhook::{Attempt, Place, Shares, Webhook},
    wire::messages::logged_call,
};
use r3mes_http::metrics::Metrics;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use super::{WebhookHosts, receiver::Receiver, signature::signature};

/// How long a receiver may take to answer, from the look for its address on.
const ANSWER: Duration = Duration::from_secs(10);
/// Messages that are under way at a time, and those of one user.
const AT_ONCE: usize = 64;
const OF_A_USER: usize = 16;

/// Tells receivers. A connection serves one message; of its answer only the status is read, and a
/// redirection is not followed.
#[derive(Debug)]
pub(crate) struct Sender {
    hosts: WebhookHosts,
    tls: OnceLock<Arc<tls::ClientConfig>>,
    permits: Arc<Semaphore>,
    shares: Shares,
    delivered: Counter,
    failed: Counter,
}

/// Leave to send one message.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

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
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            shares: Shares::new(OF_A_USER),
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

    /// Waits until there may be one more message of this user under way. Of each user so few wait with the
    /// others that nobody waits long.
    pub(crate) async fn turn(&self, user: &str) -> Turn {
        let place = self.shares.place(user).await;
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        Turn {
            _permit: permit.expect("it is never closed"),
            _place: place,
        }
    }

    /// Tells a receiver of call `id`.
    pub(crate) async fn send(
        &self,
        _turn: Turn,
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
                tracing::debug!(call = logged_call(id), error, "functions.webhook");
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
        let settings = self.tls().map_err(no_tls)?;
        let stream = tls::connect(stream, &receiver.host, settings).await;
        answer(stream.map_err(no_tls)?, request).await
    }

    fn tls(&self) -> Result<Arc<tls::ClientConfig>, tls::TlsError> {
        if let Some(known) = self.tls.get() {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(tls::client_config(None)?);
        Ok(Arc::clone(self.tls.get_or_init(|| read)))
    }
}

/// Why no TLS is spoken with a receiver, for its caller, who has no settings of this gateway.
fn no_tls(error: TlsError) -> String {
    match error {
        TlsError::Untrusted => {
            "its certificate is signed by no authority that the gateway's machine trusts".into()
        }
        TlsError::NoAuthorities(why) => {
            format!("the gateway's machine trusts no certificate authority ({why})")
        }
        TlsError::OtherName { wanted, names } => {
            format!("its certificate is for {names}, and not for {wanted}")
        }
        TlsError::PlainText => "it speaks no TLS".into(),
        TlsError::Ended(error) => {
            format!("the connection ended before TLS was agreed on ({error})")
        }
        other => other.to_string(),
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_user_whose_receivers_do_not_answer_leaves_turns_to_others() {
        let sender = Sender::new(WebhookHosts::Public, &Metrics::new());
        let now = |user: &str| sender.turn(user).now_or_never();
        let mut held: Vec<Turn> = std::iter::from_fn(|| now("alice")).collect();
        assert_eq!(held.len(), OF_A_USER);
        held.push(now("bob").unwrap());
        // There are so many in all, whoever they are of.
        held.extend((0..AT_ONCE).filter_map(|user| now(user.to_string().as_str())));
        assert_eq!(held.len(), AT_ONCE);
        let mut waiting = Box::pin(sender.turn("carol"));
        assert!(waiting.as_mut().now_or_never().is_none());
        held.pop();
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_told_without_advice_for_others() {
        for error in [
            TlsError::Untrusted,
            TlsError::NoAuthorities("it has no file of them".into()),
        ] {
            let told = no_tls(error);
            assert!(told.contains("the gateway's machine trusts"), "{told}");
            assert!(!told.contains("--ca"), "{told}");
        }
    }
}
