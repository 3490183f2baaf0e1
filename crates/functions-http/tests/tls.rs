#![expect(clippy::unwrap_used, reason = "a test")]
//! Remote functions over one port that speaks TLS: HTTP/1.1, HTTP/2 and frames.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::body::Body;
use ed25519_consensus::SigningKey;
use hyper::{Request, Response, StatusCode, Version, body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use r3mes_functions::{
    broker::{Broker, Limits},
    client::{Client, ClientConfig, ConnectError},
    node::{self, Node, NodeConfig},
    registry::FunctionInfo,
    serve::Hub,
    tls::{Authority, ServerTls, client_config},
    tokens::Tokens,
    wire::messages::CallHead,
};
use r3mes_functions_http::{Functions, HttpLimits};
use rmpv::Value as Packed;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Long enough for anything that should happen; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A gateway that speaks TLS, and a node.
struct Network {
    address: SocketAddr,
    ca: PathBuf,
    _folder: TempDir,
    _stop: DropGuard,
}

impl Network {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        let hosts = ["localhost".into(), "127.0.0.1".into()];
        let issued = authority.issue("server", &hosts, DAY).unwrap();
        let tls = ServerTls::from_files(&issued.certificate, &issued.key).unwrap();
        let broker = Broker::new(Limits::default(), Tokens::default(), BTreeMap::new(), 1);
        let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let network = Self {
            address: listener.local_addr().unwrap(),
            ca: authority.certificate(),
            _folder: folder,
            _stop: stop.clone().drop_guard(),
        };
        let api = Functions::new(hub, HttpLimits::default(), None);
        let stopping = stop.clone();
        tokio::spawn(async move { api.serve(listener, Some(tls), stopping).await });
        let node = network.node();
        let mut registered = node.registered();
        tokio::spawn(node.run(stop));
        let waiting = registered.wait_for(|registered| *registered);
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap()
            .unwrap();
        network
    }

    fn node(&self) -> Node {
        let mut node = Node::new(NodeConfig {
            broker: format!("tls://{}", self.address),
            id: "lab".into(),
            key: SigningKey::from([1; 32]),
            token: None,
            ca: Some(self.ca.clone()),
            capabilities: Default::default(),
            max_concurrent: 8,
            resources: BTreeMap::new(),
        });
        node.register(FunctionInfo::new("echo"), |call| {
            node::answer(call, async |bytes| Ok(bytes))
        })
        .unwrap();
        node
    }

    /// Asks over HTTP inside of TLS, in the version that `alpn` names.
    async fn ask(&self, alpn: &[u8], request: Request<Body>) -> (Version, StatusCode, Value) {
        let mut config = client_config(Some(&self.ca)).unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        let stream = TokioIo::new(stream);
        let answer = if alpn == b"h2" {
            let executor = TokioExecutor::new();
            let (mut sender, moving) = conn::http2::handshake(executor, stream).await.unwrap();
            tokio::spawn(moving);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, moving) = conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(moving);
            sender.send_request(request).await.unwrap()
        };
        read(answer).await
    }
}

async fn read(answer: Response<Incoming>) -> (Version, StatusCode, Value) {
    let (version, status) = (answer.version(), answer.status());
    let body = axum::body::to_bytes(Body::new(answer.into_body()), 1 << 20).await;
    let value = serde_json::from_slice(&body.unwrap()).unwrap();
    (version, status, value)
}

fn call() -> Request<Body> {
    Request::post("https://localhost/api/fn/echo")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Body::from("[1, 2]"))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_has_frames_and_both_versions_of_http_inside_of_tls() {
    let network = Network::open().await;
    for (alpn, version) in [
        (&b"h2"[..], Version::HTTP_2),
        (&b"http/1.1"[..], Version::HTTP_11),
    ] {
        let (spoken, status, value) = network.ask(alpn, call()).await;
        assert_eq!((spoken, status), (version, StatusCode::OK), "{value}");
        // An echo returns its arguments as they are carried.
        assert_eq!(value, json!([[1, 2], {}]));
    }
    let config = ClientConfig {
        broker: format!("tls://localhost:{}", network.address.port()),
        token: None,
        ca: Some(network.ca.clone()),
    };
    let client = Client::connect(&config).await.unwrap();
    let mut arguments = Vec::new();
    let pair = Packed::from(vec![
        Packed::from(vec![Packed::from(1)]),
        Packed::Map(vec![]),
    ]);
    rmpv::encode::write_value(&mut arguments, &pair).unwrap();
    let reply = client.call(&CallHead::new("echo"), arguments.clone()).await;
    assert_eq!(reply.unwrap().result().await.unwrap(), arguments);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_no_tls_to_its_port_is_told_so() {
    let network = Network::open().await;
    let url = format!("http://{}/api/functions", network.address);
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let problem: Value = answer.json().await.unwrap();
    let words = problem["detail"].as_str().unwrap();
    assert!(words.contains("https://"), "{words}");
    let config = ClientConfig {
        broker: network.address.to_string(),
        ..ClientConfig::default()
    };
    let refused = Client::connect(&config).await.unwrap_err();
    assert!(
        matches!(&refused, ConnectError::Refused { reason, .. } if reason.contains("tls://")),
        "{refused:?}"
    );
}
