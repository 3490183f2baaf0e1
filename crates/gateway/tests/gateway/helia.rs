//! Helia, which nobody here wrote, asks our router where a file is and fetches it from our gateway.

use std::sync::Arc;

use r3mes_blobs::{BlobStore, MemoryStore};
use r3mes_gateway::ipfs::{GatewayLimits, router, routing};
use sha2::{Digest, Sha256};

use super::{
    outside::{Runs, judged},
    support::{Running, content},
};

#[tokio::test(flavor = "multi_thread")]
async fn helia_finds_a_file_by_our_router_and_verifies_what_our_gateway_sends() {
    let store = Arc::new(MemoryStore::new());
    let file = content(1, 3_000_000);
    let cid = store.put(&file).unwrap();
    let gateway = Running::start(router(store.clone(), GatewayLimits::default())).await;
    let directory = Running::start(routing(store, &gateway.url("")).unwrap()).await;
    let said = judged(Runs::Helia, "helia/verified_fetch.mjs", |command| {
        command.args([directory.url(""), cid.to_string()]);
    })
    .await;
    let Some(said) = said else { return };
    assert_eq!(said.trim(), hex::encode(Sha256::digest(&file)));
}
