//! The gateway's process: the public API, routed to whoever serves.

use std::sync::{Arc, PoisonError, RwLock};

use r3mes_gateway::{
    metrics::Metrics,
    openai::{self, NetworkLimits, ServingNode},
    rpc,
    server::serve,
};
use r3mes_types::{Role, nodes::QueryNodes, query::PageRequest};
use tokio_util::sync::CancellationToken;

use crate::{agents, config::Config, home::Home, process};

/// Serving nodes that are asked at most.
const MAX_NODES: u32 = 64;

/// Runs the gateway until `shutdown`.
///
/// # Errors
/// When its address is taken.
pub async fn run(home: &Home, config: &Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let settings = config.services.gateway.clone().unwrap_or_default();
    let listener = agents::listen(settings.listen, "services.gateway.listen").await?;
    let directory = Arc::new(LedgerDirectory::default());
    let chain = agents::chain::connect(home, config)?;
    let following = tokio::spawn(follow(Arc::clone(&directory), chain, shutdown.clone()));
    let metrics = Metrics::new();
    let limits = NetworkLimits {
        concurrent_requests: settings.max_concurrent,
        ..NetworkLimits::default()
    };
    let network = openai::Network::new(directory, &metrics, limits)?;
    tracing::info!(address = %settings.listen, "the gateway is ready");
    process::announce_ready();
    serve(listener, network.router().merge(metrics.router()), shutdown).await;
    following.await?;
    Ok(())
}

/// The serving nodes that stand on the ledger, as of its newest block.
#[derive(Default)]
struct LedgerDirectory {
    nodes: RwLock<Vec<ServingNode>>,
}

impl openai::ServingDirectory for LedgerDirectory {
    fn serving_nodes(&self) -> Vec<ServingNode> {
        self.nodes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Keeps the directory up to date until shutdown. While the ledger does not answer, the last list
/// stands.
async fn follow(directory: Arc<LedgerDirectory>, chain: rpc::Client, shutdown: CancellationToken) {
    let mut height = 0;
    loop {
        let turn = async {
            match serving_nodes(&chain).await {
                Ok(nodes) => {
                    *directory
                        .nodes
                        .write()
                        .unwrap_or_else(PoisonError::into_inner) = nodes
                }
                Err(error) => tracing::warn!("the ledger does not answer: {error:#}"),
            }
            match chain.wait_height(height).await {
                Ok(newest) => height = newest,
                Err(_) => tokio::time::sleep(agents::RETRY_PAUSE).await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = turn => {}
        }
    }
}

async fn serving_nodes(chain: &rpc::Client) -> anyhow::Result<Vec<ServingNode>> {
    let question = QueryNodes {
        role: Some(Role::Serving),
        page: Some(PageRequest {
            limit: MAX_NODES,
            ..PageRequest::default()
        }),
    };
    let nodes = chain.query(&question).await?.nodes;
    let serving = nodes.iter().filter(|node| node.is_active(Role::Serving));
    let with_api = serving.filter_map(|node| {
        let api = node.endpoint(Role::Serving)?.api.to_string();
        let address = node.address.to_string();
        (!api.is_empty()).then_some(ServingNode { address, api })
    });
    Ok(with_api.collect())
}
