//! The `openai` Python client, which nobody here wrote, is the judge of the API over the exact
//! engine and the model of the demonstration, on a serving node and through the network gateway.

use std::{path::Path, sync::Arc, thread};

use r3mes_blobs::MemoryStore;
use r3mes_exact::{Cpu, CpuOptions};
use r3mes_gateway::openai::{
    Api, ApiLimits, Network, NetworkLimits, ServingDirectory, ServingNode,
};
use r3mes_http::metrics::Metrics;
use r3mes_inference::exact::{self, Limits, Parts};
use r3mes_model::{ChatTemplate, Model, PLAIN_TEMPLATE, PackedModel, Tokenizer};
use r3mes_types::SecretKey;

use super::{
    outside::{Runs, is_left_out, judged},
    support::Running,
};

const MODEL: &str = "stories15m-b158";

/// The one node that serves.
struct Single(ServingNode);

impl ServingDirectory for Single {
    fn serving_nodes(&self) -> Vec<ServingNode> {
        vec![self.0.clone()]
    }
}

async fn judge(running: &Running) {
    judged(Runs::Python, "openai_client.py", |command| {
        command.args([&running.url("/v1"), MODEL]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_python_client_finds_nothing_amiss() {
    if is_left_out("R3MES_SKIP_PYTHON") {
        return;
    }
    let assets = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../assets")
        .join(MODEL);
    let packed = PackedModel::open(&assets.join("model.r3mes")).unwrap();
    let device = Cpu::new(CpuOptions::default()).unwrap();
    let (engine, worker) = exact::engine(Parts {
        model: Arc::new(Model::load(device, &packed)),
        tokenizer: Arc::new(Tokenizer::open(&assets.join("tokenizer.json")).unwrap()),
        template: ChatTemplate::new(PLAIN_TEMPLATE, "<s>", "</s>").unwrap(),
        name: MODEL.to_owned(),
        key: SecretKey::from_bytes(&[7; 32]).unwrap(),
        limits: Limits::default(),
    });
    let worker = thread::spawn(move || worker.run());

    let (store, metrics) = (Arc::new(MemoryStore::new()), Metrics::new());
    let api = Api::new(
        Arc::new(engine.clone()),
        store,
        &metrics,
        ApiLimits::default(),
    );
    let node = Running::start(api.unwrap().router()).await;
    judge(&node).await;

    let directory = Single(ServingNode {
        address: "remes1serving".to_owned(),
        api: node.url(""),
    });
    let network = Network::new(Arc::new(directory), &metrics, NetworkLimits::default());
    let gateway = Running::start(network.unwrap().router()).await;
    judge(&gateway).await;

    gateway.stop().await;
    node.stop().await;
    engine.stop();
    worker.join().unwrap();
}
