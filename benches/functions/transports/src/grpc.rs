//! gRPC over HTTP/2. A node cannot be called by its server, so it keeps one bidirectional stream on which all
//! its calls go; a client opens one for each call, or keeps one too.

use std::{
    collections::HashMap,
    convert::Infallible,
    fs,
    future::{Ready, ready},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Stream, future::BoxFuture, stream};
use r3mes_functions::tls::Authority;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client,
    codegen::{Service, http},
    server::{self, NamedService, StreamingService},
    transport::{
        Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
        server::TcpIncoming,
    },
};
use tonic_prost::ProstCodec;

use crate::{
    CERTIFICATE_LIFE, CONNECTION_WINDOW_BYTES, Echo, HOST, Outcome, PIECE_BYTES,
    STREAM_WINDOW_BYTES, joined, pieces,
};

const CALL: &str = "/bench.Relay/Call";
const SERVE: &str = "/bench.Relay/Serve";
/// Messages that wait for a stream before who sends them does.
const QUEUE: usize = 16;
/// Most bytes of a frame of HTTP/2: a message, with what says whose it is.
const FRAME_BYTES: u32 = PIECE_BYTES as u32 + 64;

/// Part of a call, of its argument one way and of its result the other.
#[derive(Clone, PartialEq, prost::Message)]
struct Part {
    #[prost(uint64, tag = "1")]
    call: u64,
    #[prost(bool, tag = "2")]
    last: bool,
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
}

fn parts(call: u64, payload: Vec<Bytes>) -> impl Iterator<Item = Part> {
    let count = payload.len();
    let payload = payload.into_iter().enumerate();
    payload.map(move |(index, body)| {
        let last = index + 1 == count;
        Part { call, last, body }
    })
}

type ToClient = mpsc::Sender<Result<Part, Status>>;
type Parts = ReceiverStream<Result<Part, Status>>;

/// Passes parts between clients and one node.
#[derive(Clone, Default)]
struct Relay(Arc<Relayed>);

#[derive(Default)]
struct Relayed {
    node: OnceLock<mpsc::Sender<Result<Part, Status>>>,
    /// By the number that the node knows: the client's, and where it waits.
    calls: Mutex<HashMap<u64, (u64, ToClient)>>,
    next: AtomicU64,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    fn serve(&self, mut from_node: Streaming<Part>) -> Parts {
        let (to_node, parts) = mpsc::channel(QUEUE);
        let relayed = Arc::clone(&self.0);
        // The bench has one node.
        let _ = relayed.node.set(to_node);
        tokio::spawn(async move {
            while let Ok(Some(mut part)) = from_node.message().await {
                let back = match part.last {
                    true => lock(&relayed.calls).remove(&part.call),
                    false => lock(&relayed.calls).get(&part.call).cloned(),
                };
                let Some((call, to_client)) = back else {
                    continue;
                };
                part.call = call;
                // A client that is gone misses it.
                let _ = to_client.send(Ok(part)).await;
            }
        });
        ReceiverStream::new(parts)
    }

    fn call(&self, mut from_client: Streaming<Part>) -> Parts {
        let (to_client, parts) = mpsc::channel(QUEUE);
        let relayed = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut numbers = HashMap::new();
            while let Ok(Some(mut part)) = from_client.message().await {
                let call = part.call;
                part.call = *numbers.entry(call).or_insert_with(|| {
                    let number = relayed.next.fetch_add(1, Ordering::Relaxed);
                    lock(&relayed.calls).insert(number, (call, to_client.clone()));
                    number
                });
                if part.last {
                    numbers.remove(&call);
                }
                let Some(node) = relayed.node.get() else {
                    return;
                };
                if node.send(Ok(part)).await.is_err() {
                    return;
                }
            }
        });
        ReceiverStream::new(parts)
    }
}

impl NamedService for Relay {
    const NAME: &'static str = "bench.Relay";
}

impl Service<http::Request<Body>> for Relay {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = Method {
            relay: self.clone(),
            is_node: request.uri().path() == SERVE,
        };
        Box::pin(async move {
            let mut grpc = server::Grpc::new(ProstCodec::default());
            Ok(grpc.streaming(method, request).await)
        })
    }
}

/// One of the two methods.
struct Method {
    relay: Relay,
    is_node: bool,
}

impl StreamingService<Part> for Method {
    type Response = Part;
    type ResponseStream = Parts;
    type Future = Ready<Result<Response<Parts>, Status>>;

    fn call(&mut self, request: Request<Streaming<Part>>) -> Self::Future {
        let parts = request.into_inner();
        ready(Ok(Response::new(match self.is_node {
            true => self.relay.serve(parts),
            false => self.relay.call(parts),
        })))
    }
}

/// Opens a bidirectional stream.
async fn open(
    channel: Channel,
    method: &'static str,
    parts: impl Stream<Item = Part> + Send + 'static,
) -> Outcome<Streaming<Part>> {
    let mut grpc = client::Grpc::new(channel);
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static(method);
    let answer = grpc.streaming(Request::new(parts), path, ProstCodec::default());
    Ok(answer.await?.into_inner())
}

/// Gives back what its calls bring, for ever.
async fn node(channel: Channel) -> Outcome<()> {
    let (to_relay, sent) = mpsc::channel(QUEUE);
    let mut coming = open(channel, SERVE, ReceiverStream::new(sent)).await?;
    let mut arguments: HashMap<u64, Vec<Bytes>> = HashMap::new();
    while let Some(part) = coming.message().await? {
        let argument = arguments.entry(part.call).or_default();
        argument.push(part.body);
        if !part.last {
            continue;
        }
        let argument = arguments.remove(&part.call).unwrap_or_default();
        let to_relay = to_relay.clone();
        tokio::spawn(async move {
            for part in parts(part.call, pieces(joined(argument))) {
                if to_relay.send(part).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// A stream for each call.
struct StreamACall(Channel);

impl Echo for StreamACall {
    fn echo(&self, argument: Bytes) -> BoxFuture<'_, Outcome<Bytes>> {
        Box::pin(async {
            let argument = stream::iter(parts(0, pieces(argument)));
            let mut answer = open(self.0.clone(), CALL, argument).await?;
            let mut result = Vec::new();
            while let Some(part) = answer.message().await? {
                result.push(part.body);
            }
            Ok(joined(result))
        })
    }
}

/// One stream for all calls.
struct OneStream {
    to_relay: mpsc::Sender<Part>,
    next: AtomicU64,
    waiting: Arc<Mutex<HashMap<u64, Waiting>>>,
}

struct Waiting {
    result: Vec<Bytes>,
    done: oneshot::Sender<Bytes>,
}

impl OneStream {
    async fn open(channel: Channel) -> Outcome<Self> {
        let (to_relay, sent) = mpsc::channel(QUEUE);
        let mut coming = open(channel, CALL, ReceiverStream::new(sent)).await?;
        let waiting: Arc<Mutex<HashMap<u64, Waiting>>> = Arc::default();
        tokio::spawn({
            let waiting = Arc::clone(&waiting);
            async move {
                while let Ok(Some(part)) = coming.message().await {
                    let mut waiting = lock(&waiting);
                    if let Some(call) = waiting.get_mut(&part.call) {
                        call.result.push(part.body);
                    }
                    let over = part.last.then(|| waiting.remove(&part.call)).flatten();
                    drop(waiting);
                    if let Some(Waiting { result, done }) = over {
                        let _ = done.send(joined(result));
                    }
                }
            }
        });
        Ok(Self {
            to_relay,
            next: AtomicU64::new(0),
            waiting,
        })
    }
}

impl Echo for OneStream {
    fn echo(&self, argument: Bytes) -> BoxFuture<'_, Outcome<Bytes>> {
        Box::pin(async {
            let call = self.next.fetch_add(1, Ordering::Relaxed);
            let (done, result) = oneshot::channel();
            let waiting = Waiting {
                result: Vec::new(),
                done,
            };
            lock(&self.waiting).insert(call, waiting);
            for part in parts(call, pieces(argument)) {
                self.to_relay.send(part).await?;
            }
            Ok(result.await?)
        })
    }
}

/// A client whose relay has a node, with one stream for all its calls or one for each, and with TLS by a
/// certificate of `authority` or without.
pub(crate) async fn start(
    authority: Option<&Authority>,
    one_stream: bool,
) -> Outcome<Arc<dyn Echo>> {
    let listener = TcpListener::bind((HOST, 0)).await?;
    let scheme = if authority.is_some() { "https" } else { "http" };
    let address = format!("{scheme}://{}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let mut server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES);
    let mut endpoint = Endpoint::from_shared(address)?
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES);
    if let Some(authority) = authority {
        let name = format!("grpc-{one_stream}");
        let issued = authority.issue(&name, &[HOST.into()], CERTIFICATE_LIFE)?;
        let (certificate, key) = (fs::read(&issued.certificate)?, fs::read(&issued.key)?);
        let identity = Identity::from_pem(certificate, key);
        server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
        let trusted = Certificate::from_pem(fs::read(authority.certificate())?);
        endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(trusted))?;
    }
    let relay = Relay::default();
    let serving = server.add_service(relay.clone());
    tokio::spawn(serving.serve_with_incoming(incoming));
    tokio::spawn(node(endpoint.connect().await?));
    while relay.0.node.get().is_none() {
        tokio::task::yield_now().await;
    }
    let channel = endpoint.connect().await?;
    Ok(match one_stream {
        true => Arc::new(OneStream::open(channel).await?),
        false => Arc::new(StreamACall(channel)),
    })
}
