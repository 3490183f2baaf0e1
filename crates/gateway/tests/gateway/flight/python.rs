//! `pyarrow.flight`, which nobody here wrote, is the judge of the tables.

use std::{path::Path, process::Stdio};

use r3mes_gateway::flight::FlightLimits;
use tokio::process::Command;

use super::{Node, ROUND, SECRET};

/// Set to 1 where no Python client can be installed.
const SKIP: &str = "R3MES_SKIP_PYTHON";

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_reads_and_writes_adapters_and_packages() {
    if std::env::var(SKIP).is_ok_and(|value| value == "1") {
        return eprintln!("left out: {SKIP}=1");
    }
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients");
    let python = clients.join(".venv/bin/python");
    assert!(
        python.exists(),
        "pyarrow is not installed: run tests/clients/setup.sh once, or set {SKIP}=1 to leave this \
         test out"
    );
    let node = Node::start(FlightLimits::default()).await;
    let judged = Command::new(python)
        .arg(clients.join("flight_client.py"))
        .args([
            node.running.address.to_string(),
            node.adapter.to_string(),
            node.package_cid.to_string(),
            node.miner.to_string(),
            ROUND.to_string(),
        ])
        .env("R3MES_FLIGHT_TOKEN", SECRET)
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stdout);
    let complaint = String::from_utf8_lossy(&judged.stderr);
    print!("{said}");
    assert!(judged.status.success(), "{said}\n{complaint}");
}
