#![expect(clippy::unwrap_used, reason = "a test")]
//! Gateways that meet on real NATS servers. Each gateway has a runtime of its own, so that it can be
//! killed with all its sockets.

mod cluster;
mod kept;

use std::{collections::BTreeMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use ed25519_consensus::SigningKey;
use r3mes_functions::{
    Reason,
    broker::{Broker, Limits},
    client::{Client, ClientConfig},
    federation::{Federation, FederationConfig},
    node::{self, Node, NodeConfig, NodeError},
    registry::FunctionInfo,
    serve::Hub,
    tls::Authority,
    tokens::Tokens,
    wire::messages::CallHead,
};
use tokio::{runtime::Runtime, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::cluster::Cluster;

/// Long enough for anything that should happen; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(name: &str, cluster: &Cluster, first: usize) -> FederationConfig {
    FederationConfig {
        servers: cluster.urls(first),
        ca: None,
        credentials: None,
        name: name.into(),
        prefix: "test".into(),
        replicas: cluster.len(),
    }
}

/// A gateway with a runtime of its own.
struct Gateway {
    address: SocketAddr,
    runtime: Option<Runtime>,
    stop: CancellationToken,
}

impl Gateway {
    async fn join(name: &str, cluster: &Cluster, first: usize) -> Self {
        Self::join_with(config(name, cluster, first)).await
    }

    async fn join_with(config: FederationConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let started = runtime.spawn(async move {
            let federation = until("NATS answers", async || {
                Federation::connect(config.clone()).await.ok()
            })
            .await;
            let (owned, mut taken) = mpsc::unbounded_channel();
            let broker = Broker::new(Limits::default(), Tokens::default(), BTreeMap::new(), 1);
            let hub = Arc::new(Hub::new(broker, owned));
            let (owners, claiming) = (federation.owners().clone(), Arc::clone(&hub));
            tokio::spawn(async move {
                while let Some((id, key)) = taken.recv().await {
                    let owner = owners.claim(&id, key).await;
                    claiming.with(|broker, now| broker.set_owner(&id, owner, now));
                }
            });
            let (meeting, meet_stop) = (Arc::clone(&hub), stopping.clone());
            tokio::spawn(async move { federation.run(meeting, meet_stop).await.unwrap() });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move { hub.serve(listener, None, stopping).await });
            address
        });
        Self {
            address: started.await.unwrap(),
            runtime: Some(runtime),
            stop,
        }
    }

    /// Ends it as a killed process ends: everything at once.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    async fn client(&self) -> Client {
        connect(&[self]).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill();
    }
}

async fn connect(gateways: &[&Gateway]) -> Client {
    Client::connect(&ClientConfig {
        broker: list(gateways),
        token: None,
        ca: None,
    })
    .await
    .unwrap()
}

fn list(gateways: &[&Gateway]) -> String {
    let addresses = gateways.iter().map(|gateway| gateway.address.to_string());
    addresses.collect::<Vec<_>>().join(", ")
}

/// A node that echoes, and one function that never ends.
fn node(id: &str, key: u8, gateways: &[&Gateway]) -> JoinHandle<Result<(), NodeError>> {
    let mut node = Node::new(NodeConfig {
        broker: list(gateways),
        id: id.into(),
        key: SigningKey::from([key; 32]),
        token: None,
        ca: None,
        capabilities: Default::default(),
        max_concurrent: 64,
        resources: BTreeMap::new(),
    });
    let info = |name: &str| FunctionInfo {
        max_concurrent: 64,
        ..FunctionInfo::new(name)
    };
    node.register(info("echo"), |call| {
        node::answer(call, async |bytes| Ok(bytes))
    })
    .unwrap();
    node.register(info("forever"), |call| async move {
        let _ = call.output.item("begun").await;
        call.output.cancelled().cancelled().await;
        Ok(())
    })
    .unwrap();
    tokio::spawn(node.run(CancellationToken::new()))
}

/// Tries until there is something.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let trying = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        loop {
            pace.tick().await;
            if let Some(found) = attempt().await {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, trying)
        .await
        .unwrap_or_else(|_| panic!("in {PATIENCE:?} it did not come to this: {what}"))
}

/// Waits for a node with its functions, of which it tells after its name.
async fn sees(client: &Client, id: &str) {
    until("the node and its functions are known", async || {
        let nodes = client.nodes().await.unwrap();
        let mut ready = nodes.iter().filter(|node| !node.functions.is_empty());
        ready.any(|node| node.id == id).then_some(())
    })
    .await;
}

async fn echo(client: &Client, payload: Bytes) -> Option<Bytes> {
    let reply = client.call(&CallHead::new("echo"), payload).await.ok()?;
    reply.result().await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_gateway_reaches_any_node() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let one = Gateway::join("one", &cluster, 0).await;
    let other = Gateway::join("other", &cluster, 0).await;
    let _node = node("far", 1, &[&other]);
    let client = one.client().await;
    sees(&client, "far").await;
    let payload: Bytes = (0..10_000_000u32)
        .map(|i| (i * 7 + i / 1000) as u8)
        .collect();
    assert!(echo(&client, payload.clone()).await == Some(payload));
    let nodes = client.nodes().await.unwrap();
    assert_eq!(nodes[0].gateway.as_deref(), Some("other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_fails_its_calls_and_the_next_call_works() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let one = Gateway::join("one", &cluster, 0).await;
    let mut other = Gateway::join("other", &cluster, 0).await;
    let third = Gateway::join("third", &cluster, 0).await;
    let _node = node("far", 1, &[&other, &third]);
    let client = connect(&[&one, &third]).await;
    sees(&client, "far").await;
    let mut reply = client.call(&CallHead::new("forever"), "").await.unwrap();
    assert_eq!(reply.item().await.unwrap().unwrap(), "begun");
    other.kill();
    let failed = tokio::time::timeout(PATIENCE, reply.item()).await.unwrap();
    assert_eq!(failed.unwrap_err().reason, Reason::NodeLost);
    let again = until("the node is at another gateway", || {
        echo(&client, "hello".into())
    })
    .await;
    assert_eq!(again, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_gateway_was_killed_goes_on_at_another() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let mut one = Gateway::join("one", &cluster, 0).await;
    let other = Gateway::join("other", &cluster, 0).await;
    let _node = node("far", 1, &[&other]);
    let client = connect(&[&one, &other]).await;
    sees(&client, "far").await;
    let mut reply = client.call(&CallHead::new("forever"), "").await.unwrap();
    assert_eq!(reply.item().await.unwrap().unwrap(), "begun");
    one.kill();
    let failed = tokio::time::timeout(PATIENCE, reply.item()).await.unwrap();
    assert_eq!(failed.unwrap_err().reason, Reason::Disconnected);
    let client = connect(&[&one, &other]).await;
    assert_eq!(echo(&client, "hello".into()).await.unwrap(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_belongs_to_the_first_key_at_every_gateway() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let one = Gateway::join("one", &cluster, 0).await;
    let other = Gateway::join("other", &cluster, 0).await;
    let _node = node("gpu", 1, &[&one]);
    let client = other.client().await;
    sees(&client, "gpu").await;
    let thief = node("gpu", 2, &[&other]);
    let refused = tokio::time::timeout(PATIENCE, thief)
        .await
        .unwrap()
        .unwrap();
    assert!(refused.unwrap_err().to_string().contains("another key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_of_three_may_die() {
    let Some(mut cluster) = Cluster::start(3) else {
        return;
    };
    let one = Gateway::join("one", &cluster, 0).await;
    let other = Gateway::join("other", &cluster, 1).await;
    let _node = node("far", 1, &[&other]);
    let client = one.client().await;
    sees(&client, "far").await;
    cluster.kill(1);
    let again = until("calls pass by the other servers", || {
        echo(&client, "hello".into())
    })
    .await;
    assert_eq!(again, "hello");
    // Who took the id is still known: the two servers that are left have it.
    let third = Gateway::join("third", &cluster, 2).await;
    let thief = node("far", 2, &[&third]);
    let refused = tokio::time::timeout(PATIENCE, thief)
        .await
        .unwrap()
        .unwrap();
    assert!(refused.unwrap_err().to_string().contains("another key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_meet_over_tls_where_they_trust_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(&folder.path().join("ca")).unwrap();
    let life = Duration::from_secs(24 * 3600);
    let issued = authority.issue("server", &["127.0.0.1".into()], life);
    let issued = issued.unwrap();
    let tls = Some((issued.certificate.as_path(), issued.key.as_path()));
    let Some(cluster) = Cluster::start_with(1, tls) else {
        return;
    };
    // The server asks for TLS, also where its address does not tell.
    let hidden = FederationConfig {
        ca: Some(authority.certificate()),
        ..config("one", &cluster, 0)
    };
    let open = FederationConfig {
        servers: vec![hidden.servers[0].replace("nats://", "tls://")],
        ..hidden.clone()
    };
    let one = Gateway::join_with(hidden).await;
    let other = Gateway::join_with(open.clone()).await;
    let _node = node("far", 1, &[&other]);
    let client = one.client().await;
    sees(&client, "far").await;
    let answer = until("a call passes", || echo(&client, "hello".into())).await;
    assert_eq!(answer, "hello");

    let stranger = Authority::create(&folder.path().join("stranger")).unwrap();
    let refused = Federation::connect(FederationConfig {
        ca: Some(stranger.certificate()),
        ..open
    })
    .await;
    let refusal = refused.unwrap_err().to_string();
    assert!(refusal.contains("certificate"), "{refusal}");
}
