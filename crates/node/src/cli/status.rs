//! `r3mes status`

use std::collections::BTreeMap;

use r3mes_gateway::rpc;
use r3mes_types::{Amount, bank::QueryBalance, rewards::QueryVesting};
use serde::Serialize;

use super::{args::Overrides, output::Output};
use crate::{
    agents::{self, chain::remes},
    home::Home,
    keyring::Keyring,
    process,
    process::Board,
};

#[derive(Serialize)]
struct Status {
    home: String,
    /// Whether `r3mes init` has been run there.
    initialised: bool,
    running: bool,
    services: Board,
    /// What services said that ended unasked, in this run or, if nothing runs, in the last.
    failures: BTreeMap<String, String>,
    network: Option<Chain>,
    network_error: Option<String>,
}

#[derive(Serialize)]
struct Chain {
    rpc: String,
    chain_id: String,
    height: u64,
    app_hash: String,
    account: Option<Account>,
}

/// What this home's account has.
#[derive(Serialize)]
struct Account {
    address: String,
    free_uremes: u64,
    vesting_uremes: u64,
}

async fn account(client: &rpc::Client, home: &Home) -> anyhow::Result<Option<Account>> {
    let Ok(address) = Keyring::new(home).account_address() else {
        return Ok(None);
    };
    let free = client.query(&QueryBalance { address }).await?.amount;
    let vesting = client.query(&QueryVesting { address }).await?.total;
    Ok(Some(Account {
        address: address.to_string(),
        free_uremes: free.uremes(),
        vesting_uremes: vesting.uremes(),
    }))
}

/// What runs here, and where the network stands.
pub(super) fn run(home: &Home, overrides: &Overrides, out: &Output) -> anyhow::Result<()> {
    let config = super::load_or_default(home, overrides)?;
    let board = process::read_board(home);
    let rpc = config.network.rpc.clone();
    let answer = super::runtime()?.block_on(async {
        let client = agents::chain::connect(home, &config)?;
        let status = client.status().await?;
        // Before the first block there is nothing to ask.
        let account = match status.app_hash {
            Some(_) => account(&client, home).await?,
            None => None,
        };
        anyhow::Ok((status, account))
    });
    let (network, network_error) = match answer {
        Ok((status, account)) => (
            Some(Chain {
                rpc,
                chain_id: status.chain_id,
                height: status.height,
                app_hash: status.app_hash.map(hex::encode).unwrap_or_default(),
                account,
            }),
            None,
        ),
        Err(error) => (None, Some(super::explain(&error))),
    };
    let status = Status {
        home: home.root().display().to_string(),
        initialised: home.is_initialised(),
        running: board.is_some(),
        failures: failures(board.clone().or_else(|| process::last_board(home))),
        services: board.unwrap_or_default(),
        network,
        network_error,
    };
    out.show(&status, || text(&status))
}

fn failures(board: Option<Board>) -> BTreeMap<String, String> {
    let services = board.unwrap_or_default().into_iter();
    services
        .filter_map(|(label, service)| Some((label, service.failure?)))
        .collect()
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
    } else if !status.initialised {
        lines.push("services  no home is there yet; `r3mes init` makes one".to_owned());
    } else {
        lines.push("services  none run here; start them with `r3mes start`".to_owned());
    }
    for (label, failure) in &status.failures {
        lines.push(format!("{label:9} ended: {failure}"));
    }
    match (&status.network, &status.network_error) {
        (Some(chain), _) => {
            lines.push(format!(
                "network   {} at height {}, app hash {}, by {}",
                chain.chain_id, chain.height, chain.app_hash, chain.rpc
            ));
            if let Some(account) = &chain.account {
                lines.push(format!(
                    "account   {} has {}, and rewards of {} that vest",
                    account.address,
                    remes(Amount::new(account.free_uremes)),
                    remes(Amount::new(account.vesting_uremes)),
                ));
            }
        }
        (None, Some(error)) => lines.push(format!("network   no answer: {error}")),
        (None, None) => {}
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{HomeLock, Phase, ServiceStatus};

    #[test]
    fn why_a_service_was_given_up_is_shown_after_everything_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let miner = ServiceStatus {
            phase: Phase::Stopped,
            pid: None,
            restarts: 0,
            log: home.log("miner"),
            failure: Some("it computes something else".to_owned()),
        };
        let lock = HomeLock::take(&home).unwrap();
        lock.publish(&Board::from([("miner".to_owned(), miner)]))
            .unwrap();
        drop(lock);
        let status = Status {
            home: folder.path().display().to_string(),
            initialised: true,
            running: false,
            services: Board::new(),
            failures: failures(process::last_board(&home)),
            network: None,
            network_error: None,
        };
        let said = text(&status);
        assert!(said.contains("none run here"), "{said}");
        assert!(
            said.contains("miner     ended: it computes something else"),
            "{said}"
        );
    }
}
