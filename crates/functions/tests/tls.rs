#![expect(clippy::unwrap_used, reason = "a test")]
//! TLS over real sockets: who is trusted, and what is said where that fails.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use ed25519_consensus::SigningKey;
use r3mes_functions::{
    broker::{Broker, Limits},
    client::{Client, ClientConfig, ConnectError},
    node::{self, Node, NodeConfig, NodeError},
    registry::FunctionInfo,
    serve::Hub,
    tls::{Authority, AuthorityError, Issued, ServerTls, TlsError},
    tokens::Tokens,
    wire::messages::CallHead,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Long enough for anything that should happen; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker, and the authority of its certificate.
struct Network {
    address: SocketAddr,
    authority: Authority,
    _folder: TempDir,
    _stop: DropGuard,
}

fn hosts(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

async fn broker(tls: Option<ServerTls>) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let broker = Broker::new(Limits::default(), Tokens::default(), BTreeMap::new(), 1);
    let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move { hub.serve(listener, tls, stopping).await });
    (address, stop.drop_guard())
}

impl Network {
    /// With the certificate that `issue` gets of a new authority.
    async fn new(issue: impl FnOnce(&Authority) -> Issued) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        let files = issue(&authority);
        let tls = ServerTls::from_files(&files.certificate, &files.key).unwrap();
        let (address, stop) = broker(Some(tls)).await;
        Self {
            address,
            authority,
            _folder: folder,
            _stop: stop,
        }
    }

    /// For 127.0.0.1 and localhost.
    async fn usual() -> Self {
        Self::new(|authority| {
            let names = hosts(&["localhost", "127.0.0.1"]);
            authority.issue("server", &names, DAY).unwrap()
        })
        .await
    }

    fn broker(&self) -> String {
        format!("tls://{}", self.address)
    }

    fn ca(&self) -> PathBuf {
        self.authority.certificate()
    }
}

async fn client(broker: &str, ca: Option<PathBuf>) -> Result<Client, ConnectError> {
    let config = ClientConfig {
        broker: broker.into(),
        token: None,
        ca,
    };
    tokio::time::timeout(PATIENCE, Client::connect(&config))
        .await
        .unwrap()
}

/// Why there is no TLS.
async fn refusal(broker: &str, ca: PathBuf) -> TlsError {
    match client(broker, Some(ca)).await {
        Err(ConnectError::Tls { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn node(broker: &str, ca: Option<PathBuf>) -> Node {
    let mut node = Node::new(NodeConfig {
        broker: broker.into(),
        id: "lab".into(),
        key: SigningKey::from([1; 32]),
        token: None,
        ca,
        capabilities: Default::default(),
        max_concurrent: 4,
        resources: BTreeMap::new(),
    });
    node.register(FunctionInfo::new("echo"), |call| {
        node::answer(call, async |bytes| Ok(bytes))
    })
    .unwrap();
    node
}

async fn refused_node(broker: &str, ca: Option<PathBuf>) -> NodeError {
    let running = node(broker, ca).run(CancellationToken::new());
    let ended = tokio::time::timeout(PATIENCE, running).await.unwrap();
    ended.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_over_tls() {
    let network = Network::usual().await;
    let node = node(&network.broker(), Some(network.ca()));
    let mut registered = node.registered();
    let stop = CancellationToken::new();
    let running = tokio::spawn(node.run(stop.clone()));
    let waiting = registered.wait_for(|registered| *registered);
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap();
    let by_name = format!("https://localhost:{}", network.address.port());
    for broker in [network.broker(), by_name] {
        let client = client(&broker, Some(network.ca())).await.unwrap();
        let payload = Bytes::from(vec![7; 5_000_000]);
        let reply = client.call(&CallHead::new("echo"), payload.clone()).await;
        assert_eq!(reply.unwrap().result().await.unwrap(), payload);
    }
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_is_not_trusted_is_told_apart() {
    let network = Network::usual().await;
    let folder = tempfile::tempdir().unwrap();
    let stranger = Authority::create(folder.path()).unwrap().certificate();
    let untrusted = refusal(&network.broker(), stranger.clone()).await;
    assert!(matches!(untrusted, TlsError::Untrusted), "{untrusted:?}");
    let error = refused_node(&network.broker(), Some(stranger)).await;
    let words = error.to_string();
    assert!(matches!(error, NodeError::Tls { .. }), "{error:?}");
    assert!(words.contains("R3MES_FUNCTIONS_CA"), "{words}");

    let elsewhere = Network::new(|authority| {
        let names = hosts(&["gateway.example.com"]);
        authority.issue("server", &names, DAY).unwrap()
    })
    .await;
    let other = refusal(&elsewhere.broker(), elsewhere.ca()).await;
    let words = other.to_string();
    assert!(matches!(other, TlsError::OtherName { .. }), "{other:?}");
    assert!(
        words.contains("gateway.example.com") && words.contains("not for 127.0.0.1"),
        "{words}"
    );

    let now = SystemTime::now();
    let expired = Network::new(|authority| {
        let life = (now - 2 * DAY, now - DAY);
        let names = hosts(&["127.0.0.1"]);
        authority.issue_between("server", &names, life).unwrap()
    })
    .await;
    let old = refusal(&expired.broker(), expired.ca()).await;
    assert!(matches!(old, TlsError::Expired), "{old:?}");

    let early = Network::new(|authority| {
        let life = (now + DAY, now + 2 * DAY);
        let names = hosts(&["127.0.0.1"]);
        authority.issue_between("server", &names, life).unwrap()
    })
    .await;
    let young = refusal(&early.broker(), early.ca()).await;
    assert!(matches!(young, TlsError::NotYetValid), "{young:?}");
}

#[tokio::test]
async fn plain_and_tls_tell_each_other_apart() {
    let network = Network::usual().await;
    let plain = network.address.to_string();
    let told = client(&plain, None).await.unwrap_err();
    let words = told.to_string();
    assert!(matches!(told, ConnectError::Refused { .. }), "{told:?}");
    assert!(words.contains("tls://HOST:PORT"), "{words}");
    let told = refused_node(&plain, None).await;
    assert!(matches!(told, NodeError::Refused { .. }), "{told:?}");
    assert!(told.to_string().contains("tls://HOST:PORT"), "{told}");

    let (open, _stop) = broker(None).await;
    let broker = format!("tls://{open}");
    let told = refusal(&broker, network.ca()).await;
    assert!(
        matches!(told, TlsError::Ended(_) | TlsError::PlainText),
        "{told:?}"
    );
    assert!(told.to_string().contains("without tls://"), "{told}");
    let told = refused_node(&broker, Some(network.ca())).await;
    assert!(matches!(told, NodeError::Tls { .. }), "{told:?}");

    let told = refused_node("ftp://gateway", None).await;
    assert!(matches!(told, NodeError::Address { .. }), "{told:?}");
}

#[test]
fn an_authority_issues_more_and_writes_over_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca");
    let authority = Authority::create(&path).unwrap();
    let names = hosts(&["gateway.example.com", "10.0.0.1", "::1"]);
    let first = authority.issue("first", &names, DAY).unwrap();
    for secret in [path.join("ca.key"), first.key.clone()] {
        let mode = secret.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", secret.display());
    }
    ServerTls::from_files(&first.certificate, &first.key).unwrap();

    let again = Authority::create(&path).unwrap_err();
    assert!(matches!(again, AuthorityError::Exists(_)), "{again:?}");
    let opened = Authority::open(&path).unwrap();
    let again = opened.issue("first", &names, DAY).unwrap_err();
    assert!(matches!(again, AuthorityError::Exists(_)), "{again:?}");
    let second = opened.issue("second", &names, DAY).unwrap();
    let mixed = ServerTls::from_files(&first.certificate, &second.key).unwrap_err();
    assert!(matches!(mixed, TlsError::OtherKey { .. }), "{mixed:?}");
    let swapped = ServerTls::from_files(&first.key, &first.certificate).unwrap_err();
    assert!(matches!(swapped, TlsError::File { .. }), "{swapped:?}");

    let wrong = opened.issue("third", &hosts(&["not a host"]), DAY);
    assert!(matches!(wrong, Err(AuthorityError::Host(_))), "{wrong:?}");
    let none = opened.issue("third", &[], DAY);
    assert!(matches!(none, Err(AuthorityError::NoHost)), "{none:?}");
    let other = folder.path().join("other");
    Authority::create(&other).unwrap();
    std::fs::copy(other.join("ca.pem"), path.join("ca.pem")).unwrap();
    let mixed = Authority::open(&path).unwrap().issue("third", &names, DAY);
    assert!(
        matches!(mixed, Err(AuthorityError::OtherKey(..))),
        "{mixed:?}"
    );
    assert!(!path.join("third.key").exists(), "nothing is left of it");
    let missing = Authority::open(&folder.path().join("nowhere")).unwrap_err();
    assert!(matches!(missing, AuthorityError::Key { .. }), "{missing:?}");
}
