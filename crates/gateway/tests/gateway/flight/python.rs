//! `pyarrow.flight`, which nobody here wrote, is the judge of the tables.

use r3mes_gateway::flight::FlightLimits;

use super::{
    super::outside::{Runs, judged},
    Node, ROUND, SECRET,
};

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_reads_and_writes_adapters_and_packages() {
    let node = Node::start(FlightLimits::default()).await;
    judged(Runs::Python, "flight_client.py", |command| {
        let arguments = [
            node.running.address.to_string(),
            node.adapter.to_string(),
            node.package_cid.to_string(),
            node.miner.to_string(),
            ROUND.to_string(),
        ];
        command.args(arguments).env("R3MES_FLIGHT_TOKEN", SECRET);
    })
    .await;
}
