//! A broker on a port of its own, with the nodes and clients of a test.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ed25519_consensus::SigningKey;
use r3mes_functions::{
    Failure, Reason,
    broker::{Broker, Limits},
    client::{Client, ClientConfig, ConnectError},
    node::{self, Invocation, Node, NodeConfig, NodeError},
    registry::FunctionInfo,
    serve::Hub,
    tokens::Tokens,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Long enough for anything that should happen; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that runs, and what ends it.
pub(crate) type Started = (JoinHandle<Result<(), NodeError>>, CancellationToken);

pub(crate) struct Network {
    pub(crate) hub: Arc<Hub>,
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    serving: JoinHandle<()>,
    /// Calls of `forever` that run now, as its nodes count them.
    pub(crate) running: Arc<AtomicUsize>,
}

impl Network {
    pub(crate) async fn new(limits: Limits, tokens: Tokens) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, limits, tokens)
    }

    pub(crate) fn on(listener: TcpListener, limits: Limits, tokens: Tokens) -> Self {
        let address = listener.local_addr().unwrap();
        let broker = Broker::new(limits, tokens, BTreeMap::new(), 1);
        let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
        let stop = CancellationToken::new();
        let (served, stopping) = (Arc::clone(&hub), stop.clone());
        let serving = tokio::spawn(async move { served.serve(listener, None, stopping).await });
        Self {
            hub,
            address,
            stop,
            serving,
            running: Arc::default(),
        }
    }

    pub(crate) async fn open() -> Self {
        Self::new(Limits::default(), Tokens::default()).await
    }

    /// Ends the broker and all its connections.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        (&mut self.serving).await.unwrap();
    }

    /// A node with the functions that tests call, and what ends it.
    pub(crate) fn node(&self, id: &str) -> (Node, CancellationToken) {
        let node = self.node_at(&self.address.to_string(), id, id.len() as u8);
        (node, self.stop.child_token())
    }

    /// A node that reaches the broker at `broker`, with this key.
    pub(crate) fn node_at(&self, broker: &str, id: &str, key: u8) -> Node {
        let config = NodeConfig {
            broker: broker.to_owned(),
            id: id.into(),
            key: SigningKey::from([key; 32]),
            token: None,
            ca: None,
            capabilities: Default::default(),
            max_concurrent: 64,
            resources: BTreeMap::new(),
        };
        let mut node = Node::new(config);
        let info = |name: &str| FunctionInfo {
            max_concurrent: 64,
            ..FunctionInfo::new(name)
        };
        node.register(info("echo"), |call| {
            node::answer(call, async |bytes| Ok(bytes))
        })
        .unwrap();
        node.register(info("count"), count).unwrap();
        node.register(info("raise"), |call| {
            node::answer(call, async |_| {
                let mut failure = Failure::new(Reason::Raised, "division by zero");
                failure.exception = Some("ZeroDivisionError".into());
                Err(failure)
            })
        })
        .unwrap();
        node.register(info("sum"), sum).unwrap();
        node.register(info("flood"), flood).unwrap();
        node.register(info("panic"), |call| {
            node::answer(call, async |bytes| panic!("no {bytes:?} here"))
        })
        .unwrap();
        let running = Arc::clone(&self.running);
        node.register(info("forever"), move |call| {
            let counted = Counted::new(&running);
            async move {
                call.output.cancelled().cancelled().await;
                drop(counted);
                Err(Failure::new(Reason::Cancelled, "told so"))
            }
        })
        .unwrap();
        node
    }

    pub(crate) async fn started(&self, id: &str) -> Started {
        let (node, stop) = self.node(id);
        start(node, stop).await
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_with(None).await.unwrap()
    }

    pub(crate) async fn client_with(&self, token: Option<&str>) -> Result<Client, ConnectError> {
        client_at(self.address, token).await
    }

    /// Waits until nothing is open at the broker, and nothing runs at its nodes.
    pub(crate) async fn until_idle(&self) {
        until("no call is left", async || {
            let at_nodes = self.running.load(Ordering::SeqCst);
            let (calls, waiting, running) = self.hub.with(|broker, _| {
                let view = broker.view();
                let nodes = broker.node_views();
                let running: u32 = nodes.iter().map(|node| node.running).sum();
                (view.calls, view.waiting, running)
            });
            (calls + waiting + at_nodes == 0 && running == 0).then_some(())
        })
        .await;
        let deadline = self.hub.with(|broker, _| broker.next_deadline());
        assert_eq!(deadline, None, "deadlines of calls that have ended");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Runs a node; returns when the broker has its functions.
pub(crate) async fn start(node: Node, stop: CancellationToken) -> Started {
    let mut registered = node.registered();
    let running = tokio::spawn(node.run(stop.clone()));
    registered.wait_for(|registered| *registered).await.unwrap();
    (running, stop)
}

pub(crate) async fn client_at(
    address: SocketAddr,
    token: Option<&str>,
) -> Result<Client, ConnectError> {
    let config = ClientConfig {
        broker: address.to_string(),
        token: token.map(str::to_owned),
        ca: None,
    };
    Client::connect(&config).await
}

/// Tries until something comes of it.
pub(crate) async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let trying = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        loop {
            pace.tick().await;
            if let Some(result) = attempt().await {
                return result;
            }
        }
    };
    let result = tokio::time::timeout(PATIENCE, trying).await;
    result.unwrap_or_else(|_| panic!("it did not come to this: {what}"))
}

/// Waits for what should come soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("it did not come to this: {what}"))
}

/// A call that runs, counted as long as this lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(running))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Yields as many items as its argument says.
async fn count(mut call: Invocation) -> Result<(), Failure> {
    let argument = call.input.item().await.unwrap_or_default();
    let items = String::from_utf8_lossy(&argument).parse::<u32>();
    let items = items.map_err(|error| Failure::new(Reason::Raised, error.to_string()))?;
    for item in 0..items {
        if call.output.item(item.to_le_bytes().to_vec()).await.is_err() {
            return Err(Failure::new(Reason::Cancelled, "nobody reads"));
        }
    }
    let _ = call.output.last("end").await;
    Ok(())
}

/// Yields 256 MiB.
async fn flood(call: Invocation) -> Result<(), Failure> {
    let item = Bytes::from(vec![1; 64 << 10]);
    for _ in 0..4096 {
        if call.output.item(item.clone()).await.is_err() {
            return Err(Failure::new(Reason::Cancelled, "nobody reads"));
        }
    }
    Ok(())
}

/// Adds up the lengths of the items that come, telling how far it is.
async fn sum(mut call: Invocation) -> Result<(), Failure> {
    let mut bytes = 0;
    while let Some(item) = call.input.item().await {
        bytes += item.len();
        call.output.progress(None, format!("{bytes} bytes"));
    }
    let _ = call.output.last(bytes.to_string()).await;
    Ok(())
}
