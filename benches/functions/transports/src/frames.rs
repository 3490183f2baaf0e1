//! The project's own frames over TCP: node, broker and client as they are.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use ed25519_consensus::SigningKey;
use futures::future::BoxFuture;
use r3mes_functions::{
    broker::{Broker, Limits},
    client::{Client, ClientConfig},
    node::{self, Node, NodeConfig},
    registry::{Capabilities, FunctionInfo},
    serve::Hub,
    tls::{Authority, ServerTls},
    tokens::Tokens,
    wire::messages::CallHead,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{CALLERS, CERTIFICATE_LIFE, Echo, HOST, Outcome};

struct Frames(Client);

impl Echo for Frames {
    fn echo(&self, argument: Bytes) -> BoxFuture<'_, Outcome<Bytes>> {
        Box::pin(async {
            let reply = self.0.call(&CallHead::new("echo"), argument).await?;
            Ok(reply.result().await?)
        })
    }
}

/// A client whose broker has a node, with TLS by a certificate of `authority` or without.
pub(crate) async fn start(authority: Option<&Authority>) -> Outcome<Arc<dyn Echo>> {
    let tls = match authority {
        None => None,
        Some(authority) => {
            let issued = authority.issue("frames", &[HOST.into()], CERTIFICATE_LIFE)?;
            Some(ServerTls::from_files(&issued.certificate, &issued.key)?)
        }
    };
    let scheme = if tls.is_some() { "tls://" } else { "" };
    let ca = authority.map(Authority::certificate);
    let listener = TcpListener::bind((HOST, 0)).await?;
    let address = format!("{scheme}{}", listener.local_addr()?);
    let broker = Broker::new(Limits::default(), Tokens::default(), BTreeMap::new(), 1);
    let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
    let forever = CancellationToken::new();
    tokio::spawn({
        let forever = forever.clone();
        async move { hub.serve(listener, tls, forever).await }
    });
    let mut node = Node::new(NodeConfig {
        broker: address.clone(),
        id: "bench".into(),
        key: SigningKey::from([7; 32]),
        token: None,
        ca: ca.clone(),
        capabilities: Capabilities::default(),
        max_concurrent: CALLERS,
        resources: BTreeMap::new(),
    });
    let info = FunctionInfo {
        max_concurrent: CALLERS,
        ..FunctionInfo::new("echo")
    };
    node.register(info, |call| node::answer(call, async |bytes| Ok(bytes)))?;
    tokio::spawn(node.run(forever));
    let client = Client::connect(&ClientConfig {
        broker: address,
        token: None,
        ca,
    })
    .await?;
    while client.functions().await?.is_empty() {
        tokio::task::yield_now().await;
    }
    Ok(Arc::new(Frames(client)))
}
