//! The ends of calls: a gateway, nodes, clients.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::Bytes;
use ed25519_consensus::SigningKey;
use r3mes_functions::{
    broker::{Broker, Limits},
    client::{Client, ClientConfig},
    node::{self, Node, NodeConfig},
    registry::{Capabilities, FunctionInfo},
    serve::Hub,
    tokens::Tokens,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{Outcome, ready};

/// Places of a node, and of a function that takes and never returns.
const PLACES: u32 = 256;
pub(crate) const HELD_PLACES: u32 = 16;

/// Cancelled when whoever started this process is gone.
fn until_input_ends() -> CancellationToken {
    let ended = CancellationToken::new();
    let ending = ended.clone();
    std::thread::spawn(move || {
        // An input that cannot be read is over, too.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        ending.cancel();
    });
    ended
}

/// Serves until its input ends; says its address.
pub(crate) async fn gateway() -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let broker = Broker::new(Limits::default(), Tokens::default(), BTreeMap::new(), 1);
    let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
    ready(&listener.local_addr()?.to_string())?;
    hub.serve(listener, None, until_input_ends()).await;
    Ok(())
}

/// A node whose functions' names begin with `prefix`.
pub(crate) async fn node(broker: &str, id: &str, prefix: &str) -> Outcome<()> {
    let mut node = Node::new(NodeConfig {
        broker: broker.to_owned(),
        id: id.into(),
        key: SigningKey::from(*blake3::hash(id.as_bytes()).as_bytes()),
        token: None,
        ca: None,
        capabilities: Capabilities::default(),
        max_concurrent: PLACES,
        resources: BTreeMap::new(),
    });
    let info = |name: &str, max_concurrent| FunctionInfo {
        max_concurrent,
        ..FunctionInfo::new(format!("{prefix}{name}"))
    };
    node.register(info("echo", PLACES), |call| {
        node::answer(call, async |bytes| Ok(bytes))
    })?;
    node.register(info("flood", PLACES), |call| async move {
        let item = Bytes::from(vec![1; 64 << 10]);
        // Until nobody reads any more.
        while call.output.item(item.clone()).await.is_ok() {}
        Ok(())
    })?;
    node.register(info("hold", HELD_PLACES), |call| async move {
        let _held = call;
        std::future::pending().await
    })?;
    let mut registered = node.registered();
    let running = tokio::spawn(node.run(until_input_ends()));
    if registered.wait_for(|registered| *registered).await.is_ok() {
        // Whoever started it may be gone by now; then its input ends, too.
        let _ = ready(id);
    }
    Ok(running.await??)
}

pub(crate) async fn client(broker: &str) -> Outcome<Client> {
    let config = ClientConfig {
        broker: broker.to_owned(),
        token: None,
        ca: None,
    };
    Ok(Client::connect(&config).await?)
}
