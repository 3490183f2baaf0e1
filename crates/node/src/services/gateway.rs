//! The gateway's process: the public API, routed to whoever serves.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use r3mes_gateway::{
    openai::{self, NetworkLimits, ServingNode},
    rpc,
};
use r3mes_http::{metrics::Metrics, server::serve};
use r3mes_types::{Role, nodes::QueryNodes, query::PageRequest};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{agents, config::Config, home::Home, process};

/// Serving nodes that are asked at most.
const MAX_NODES: u32 = 64;
/// Pause before the ledger is asked again after it did not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

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
    let report = {
        let directory = Arc::clone(&directory);
        move || json!(directory.ledger())
    };
    let metrics = Metrics::new();
    let limits = NetworkLimits {
        concurrent_requests: settings.max_concurrent,
        ..NetworkLimits::default()
    };
    let network = openai::Network::new(directory, &metrics, limits)?.with_report(report);
    tracing::info!(address = %settings.listen, "the gateway is ready");
    process::announce_ready();
    let router = network.router().merge(metrics.router());
    serve(listener, router, config.http.limits(), shutdown).await;
    following.await?;
    Ok(())
}

/// The ledger as it last answered.
#[derive(Default)]
struct LedgerDirectory {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    nodes: Vec<ServingNode>,
    ledger: Ledger,
}

/// What `/v1/status` says of the ledger; all but `answers` is of the last time it did.
#[derive(Clone, Debug, Default, Serialize)]
struct Ledger {
    answers: bool,
    chain_id: Option<String>,
    height: Option<u64>,
    time: Option<String>,
    catching_up: Option<bool>,
}

impl LedgerDirectory {
    fn ledger(&self) -> Ledger {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.ledger.clone()
    }

    /// Takes what the ledger answered, or that it did not.
    fn learn(&self, answer: anyhow::Result<(Vec<ServingNode>, rpc::Status)>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok((nodes, status)) => {
                known.nodes = nodes;
                known.ledger = Ledger {
                    answers: true,
                    chain_id: Some(status.chain_id),
                    height: Some(status.height),
                    time: Some(status.time),
                    catching_up: Some(status.catching_up),
                };
            }
            Err(error) => {
                known.ledger.answers = false;
                tracing::warn!("the ledger does not answer: {error:#}");
            }
        }
    }
}

impl openai::ServingDirectory for LedgerDirectory {
    fn serving_nodes(&self) -> Vec<ServingNode> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.nodes.clone()
    }
}

/// Keeps the directory up to date until shutdown. While the ledger does not answer, the last list
/// stands.
async fn follow(directory: Arc<LedgerDirectory>, chain: rpc::Client, shutdown: CancellationToken) {
    let mut height = 0;
    loop {
        let turn = async {
            directory.learn(ask(&chain).await);
            match chain.wait_height(height).await {
                Ok(newest) => height = newest,
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = turn => {}
        }
    }
}

async fn ask(chain: &rpc::Client) -> anyhow::Result<(Vec<ServingNode>, rpc::Status)> {
    Ok((serving_nodes(chain).await?, chain.status().await?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_answers_no_more_is_reported_as_it_was_and_as_silent() {
        let directory = LedgerDirectory::default();
        assert_eq!(json!(directory.ledger())["answers"], false);
        let status = rpc::Status {
            chain_id: "a".into(),
            moniker: String::new(),
            height: 5,
            app_hash: None,
            time: "2026-01-01T00:00:00Z".into(),
            catching_up: false,
        };
        directory.learn(Ok((Vec::new(), status)));
        directory.learn(Err(anyhow::anyhow!("gone")));
        let report = json!(directory.ledger());
        assert_eq!(
            (&report["answers"], &report["height"]),
            (&false.into(), &5.into())
        );
    }
}
