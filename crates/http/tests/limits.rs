//! Each limit of the server, on streams in memory whose clock stands still while anything happens.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::Request,
    routing,
};
use futures::{StreamExt, stream};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use r3mes_http::server::{DRAIN_TIMEOUT, Limits, MAX_STREAMS, serve, serve_connection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    sync::Barrier,
    task::{JoinHandle, JoinSet},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

/// One connection, and the server's end of it.
struct Connection {
    client: DuplexStream,
    served: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Connection {
    fn open(limits: Limits) -> Self {
        let (client, server) = duplex(1 << 16);
        let shutdown = CancellationToken::new();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let serving = serve_connection(server, address, router(), limits, shutdown.clone());
        Self {
            client,
            served: tokio::spawn(serving),
            shutdown,
        }
    }

    async fn say(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    /// Everything that is still answered, and after how many seconds the connection has ended.
    async fn rest(mut self) -> (String, u64) {
        let began = Instant::now();
        let mut answer = Vec::new();
        self.client.read_to_end(&mut answer).await.unwrap();
        self.served.await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        (answer, began.elapsed().as_secs())
    }
}

/// Echoes bodies at `/`, ignores them at `/early`, and never answers at `/never`.
fn router() -> Router {
    Router::new()
        .route("/", routing::any(|body: Bytes| async { body }))
        .route("/early", routing::post(|| async { "no need" }))
        .route("/never", routing::get(pending::<()>))
}

const POST: &str = "POST / HTTP/1.1\r\nHost: r3mes\r\nContent-Length: 10000\r\n";

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_half_a_head_is_hung_up_on() {
    let limit = Limits::default().header_timeout.as_secs();
    for said in [
        "",
        // As HTTP/2 begins, and as POST does.
        "P",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: r3",
    ] {
        let mut connection = Connection::open(Limits::default());
        connection.say(said).await;
        let (_, seconds) = connection.rest().await;
        let most = limit + DRAIN_TIMEOUT.as_secs();
        assert!((limit..=most).contains(&seconds), "{said:?}: {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_used_is_kept_as_long_as_a_head_may_take() {
    let mut connection = Connection::open(Limits::default());
    let ask = "GET / HTTP/1.1\r\nHost: r3mes\r\n\r\n";
    for _ in 0..3 {
        connection.say(ask).await;
        time::sleep(Limits::default().header_timeout - Duration::from_secs(1)).await;
    }
    let (answer, seconds) = connection.rest().await;
    assert_eq!(answer.matches("200 OK").count(), 3, "{answer}");
    assert!(seconds <= 1, "{seconds} s after the last pause");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_answered_408_and_the_connection_ends() {
    let mut connection = Connection::open(Limits::default());
    connection.say(&format!("{POST}\r\nhalf a body")).await;
    let (answer, seconds) = connection.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.contains("30 s, and 512 bytes a second"), "{answer}");
    assert_eq!(seconds, Limits::default().body_pause.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_body_of_drops_ends_too_though_no_pause_is_long() {
    let mut connection = Connection::open(Limits::default());
    connection.say(&format!("{POST}\r\n")).await;
    let began = Instant::now();
    while connection.client.write_all(b"x").await.is_ok() {
        time::sleep(Duration::from_secs(10)).await;
    }
    let seconds = began.elapsed().as_secs();
    assert!((30..=40).contains(&seconds), "{seconds} s");
    let (answer, _) = connection.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_that_comes_as_fast_as_it_must_is_taken() {
    let mut connection = Connection::open(Limits::default());
    connection
        .say(&format!("{POST}Connection: close\r\n\r\n"))
        .await;
    let began = Instant::now();
    for _ in 0..10 {
        // 250 bytes a second: the time for the first ones makes up for that until all are there.
        connection.say(&"x".repeat(1000)).await;
        time::sleep(Duration::from_secs(4)).await;
    }
    assert!(began.elapsed() > Limits::default().body_pause);
    let (answer, _) = connection.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(&"x".repeat(10_000)), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_s_own_time_is_not_the_client_s() {
    /// Takes a minute over each part of a body, and says how much there was.
    async fn ponder(body: Body) -> String {
        let mut parts = body.into_data_stream();
        let mut bytes = 0;
        while let Some(part) = parts.next().await {
            bytes += part.unwrap().len();
            time::sleep(Duration::from_secs(60)).await;
        }
        bytes.to_string()
    }
    let (mut client, server) = duplex(1 << 16);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let router = Router::new().route("/", routing::post(ponder));
    let stop = CancellationToken::new();
    let serving = serve_connection(server, address, router, Limits::default(), stop);
    tokio::spawn(serving);
    let body = "x".repeat(10_000);
    let said = format!("{POST}Connection: close\r\n\r\n{body}");
    client.write_all(said.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("10000"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_holds_no_connection() {
    let mut connection = Connection::open(Limits::default());
    let post = POST.replace("POST /", "POST /early");
    connection.say(&format!("{post}\r\nhalf")).await;
    let (answer, seconds) = connection.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(seconds <= 30, "{seconds} s");
}

#[tokio::test(start_paused = true)]
async fn a_conversation_of_grpc_may_pause() {
    let mut connection = Connection::open(Limits::default());
    let kind = "Content-Type: application/grpc+proto\r\nConnection: close\r\n";
    connection.say(&format!("{POST}{kind}\r\n")).await;
    time::sleep(Duration::from_secs(3600)).await;
    connection.say(&"x".repeat(10_000)).await;
    let (answer, _) = connection.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn what_is_open_at_a_shutdown_is_cut_off_in_time() {
    let mut connection = Connection::open(Limits::default());
    connection
        .say("GET /never HTTP/1.1\r\nHost: r3mes\r\n\r\n")
        .await;
    // Longer than any limit on heads or bodies: the request has both.
    time::sleep(Duration::from_secs(600)).await;
    connection.shutdown.cancel();
    let (answer, seconds) = connection.rest().await;
    assert_eq!((answer.as_str(), seconds), ("", DRAIN_TIMEOUT.as_secs()));
}

/// Who is being answered, and the most there were at once.
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
    /// As many have to come as may.
    full: Barrier,
}

impl Crowd {
    fn router(places: usize) -> (Arc<Self>, Router) {
        let crowd = Arc::new(Self {
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            full: Barrier::new(places),
        });
        let come = |State(crowd): State<Arc<Self>>| async move {
            let now = crowd.now.fetch_add(1, Ordering::SeqCst) + 1;
            crowd.most.fetch_max(now, Ordering::SeqCst);
            crowd.full.wait().await;
            crowd.now.fetch_sub(1, Ordering::SeqCst);
        };
        let router = Router::new().route("/", routing::get(come));
        (Arc::clone(&crowd), router.with_state(crowd))
    }
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_a_place() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let (crowd, router) = Crowd::router(2);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, router, limits, stop.clone()));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let mut client = TcpStream::connect(address).await.unwrap();
        let ask = b"GET / HTTP/1.1\r\nHost: r3mes\r\nConnection: close\r\n\r\n";
        client.write_all(ask).await.unwrap();
        clients.spawn(async move {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        });
    }
    while let Some(answer) = clients.join_next().await {
        assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
    }
    assert_eq!(crowd.most.load(Ordering::SeqCst), 2);
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn requests_above_the_limit_of_one_http_2_connection_wait_for_a_place() {
    let places = MAX_STREAMS as usize;
    let (crowd, router) = Crowd::router(places);
    let (client, server) = duplex(1 << 16);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let stop = CancellationToken::new();
    let serving = serve_connection(server, address, router, Limits::default(), stop);
    tokio::spawn(serving);
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(client));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    // One answer first: by then the server has said how many there may be.
    let ask = || {
        Request::get("http://r3mes/none")
            .body(Body::empty())
            .unwrap()
    };
    assert_eq!(sender.send_request(ask()).await.unwrap().status(), 404);
    let mut answers = JoinSet::new();
    for _ in 0..2 * places {
        let ask = Request::get("http://r3mes/").body(Body::empty()).unwrap();
        answers.spawn(sender.send_request(ask));
    }
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
    assert_eq!(crowd.most.load(Ordering::SeqCst), places);
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_over_http_2_ends_its_stream_alone() {
    let (client, server) = duplex(1 << 16);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let stop = CancellationToken::new();
    let serving = serve_connection(server, address, router(), Limits::default(), stop);
    tokio::spawn(serving);
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(client));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let never = stream::pending::<Result<Bytes, Infallible>>();
    let slow = Request::post("http://r3mes/").body(Body::from_stream(never));
    let answer = sender.send_request(slow.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 408);
    let again = Request::post("http://r3mes/").body(Body::from("well"));
    let answer = sender.send_request(again.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
}
