//! `r3mes status`

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
