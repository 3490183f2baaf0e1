//! `r3mes status`

use serde::Serialize;

use super::{args::Overrides, output::Output};
use crate::{home::Home, process, process::Board};

#[derive(Serialize)]
struct Status {
    home: String,
    running: bool,
    services: Board,
    network: Option<Chain>,
    network_error: Option<String>,
}

#[derive(Serialize)]
struct Chain {
    rpc: String,
    chain_id: String,
    height: u64,
    app_hash: String,
}

/// What runs here, and where the network stands.
pub(super) fn run(home: &Home, overrides: &Overrides, out: &Output) -> anyhow::Result<()> {
    let config = super::load_or_default(home, overrides)?;
    let board = process::read_board(home);
    let rpc = config.network.rpc.clone();
    let answer = super::runtime()?.block_on(async {
        crate::agents::chain::connect(&config)?
            .status()
            .await
            .map_err(anyhow::Error::from)
    });
    let (network, network_error) = match answer {
        Ok(status) => (
            Some(Chain {
                rpc,
                chain_id: status.chain_id,
                height: status.height,
                app_hash: status.app_hash.map(hex::encode).unwrap_or_default(),
            }),
            None,
        ),
        Err(error) => (None, Some(super::explain(&error))),
    };
    let status = Status {
        home: home.root().display().to_string(),
        running: board.is_some(),
        services: board.unwrap_or_default(),
        network,
        network_error,
    };
    out.show(&status, || text(&status))
}

fn text(status: &Status) -> String {
    let mut lines = vec![format!("home      {}", status.home)];
    if status.running {
        for (label, service) in &status.services {
            let pid = service
                .pid
                .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let phase = serde_json::to_string(&service.phase).unwrap_or_default();
            lines.push(format!(
                "{label:9} {} pid {pid}, {} restarts, log {}",
                phase.trim_matches('"'),
                service.restarts,
                service.log.display()
            ));
        }
    } else {
        lines.push("services  none run here; start them with `r3mes start`".to_owned());
    }
    match (&status.network, &status.network_error) {
        (Some(chain), _) => lines.push(format!(
            "network   {} at height {}, app hash {}, by {}",
            chain.chain_id, chain.height, chain.app_hash, chain.rpc
        )),
        (None, Some(error)) => lines.push(format!("network   no answer: {error}")),
        (None, None) => {}
    }
    lines.join("\n")
}
