//! Arrow Flight over real sockets: tables out and in, and blocks between nodes.

mod peers;
mod python;
mod refusals;
mod tables;

use std::{fs::File, path::Path, sync::Arc};

use arrow_array::RecordBatch;
use arrow_flight::{
    FlightClient, FlightDescriptor, encode::FlightDataEncoderBuilder, error::FlightError,
};
use arrow_schema::SchemaRef;
use flight_tonic::{Status, transport::Endpoint};
use futures::{FutureExt, TryStreamExt, future::BoxFuture, stream};
use r3mes_blobs::{BlobStore, Cid, MemoryStore};
use r3mes_gateway::flight::{
    AdapterFacts, Catalogue, CatalogueError, FlightLimits, Listed, Name, Token, router,
};
use r3mes_model::{AdapterLayout, LoraConfig, PackedModel};
use r3mes_training::{
    package::{Package, Shape},
    state::encode_floats,
};
use r3mes_types::Address;

use super::support::{Running, content};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ROUND: u32 = 3;

/// A node with an adapter of the demonstration's model and a miner's package.
struct Node {
    running: Running,
    store: Arc<MemoryStore>,
    layout: AdapterLayout,
    numbers: Vec<f32>,
    adapter: Cid,
    package: Package,
    package_cid: Cid,
    miner: Address,
}

impl Node {
    async fn start(limits: FlightLimits) -> Self {
        let model =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories15m-b158/model.r3mes");
        let config = PackedModel::read_config(&mut File::open(model).unwrap()).unwrap();
        let layout = AdapterLayout::new(&config, LoraConfig::DEFAULT).unwrap();
        let words = content(1, 4 * layout.len());
        let words = words
            .as_chunks()
            .0
            .iter()
            .map(|&word| u32::from_le_bytes(word));
        let numbers: Vec<f32> = words
            .map(|word| (word >> 8) as f32 / 16_777_216.0)
            .collect();
        let shape = Shape::new(numbers.len(), 4096, 64).unwrap();
        let mut feedback = vec![0.0; numbers.len()];
        let package = Package::compress(shape, 0.95, &mut feedback, &numbers).unwrap();

        let store = Arc::new(MemoryStore::new());
        let adapter = store.put(&encode_floats(&numbers)).unwrap();
        let package_cid = store.put(&package.encode()).unwrap();
        let miner = Address::from([7; 20]);
        let ledger = Ledger {
            layout: layout.clone(),
            adapter,
            package: package_cid,
            miner,
        };
        let router = router(store.clone(), Arc::new(ledger), token(), limits);
        Self {
            running: Running::start(router).await,
            store,
            layout,
            numbers,
            adapter,
            package,
            package_cid,
            miner,
        }
    }

    async fn client(&self) -> FlightClient {
        let mut client = self.stranger().await;
        let value = format!("Bearer {SECRET}");
        client.add_header("authorization", &value).unwrap();
        client
    }

    /// A client without the token.
    async fn stranger(&self) -> FlightClient {
        let endpoint = Endpoint::from_shared(self.running.url("")).unwrap();
        FlightClient::new(endpoint.connect().await.unwrap())
    }
}

fn token() -> Token {
    Token::new(SECRET).unwrap()
}

/// What the ledger would say: one adapter, one package, another whose blob is elsewhere, one that is no
/// package, and an adapter whose model is not here.
struct Ledger {
    layout: AdapterLayout,
    adapter: Cid,
    package: Cid,
    miner: Address,
}

impl Catalogue for Ledger {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Listed>, CatalogueError>> {
        let elsewhere = Cid::raw(b"elsewhere");
        let listed = [
            (Name::Adapter(self.adapter), self.adapter),
            (Name::Package(elsewhere), elsewhere),
            (Name::Package(self.adapter), self.adapter),
            (Name::Adapter(self.package), self.package),
            (self.gradients(), self.package),
        ];
        let listed = listed.map(|(name, cid)| Listed { name, cid }).to_vec();
        async { Ok(listed) }.boxed()
    }

    fn adapter(&self, cid: Cid) -> BoxFuture<'_, Result<Option<AdapterFacts>, CatalogueError>> {
        let facts = (cid == self.adapter).then(|| AdapterFacts {
            layout: self.layout.clone(),
            details: vec![("round", ROUND.to_string())],
        });
        let base = Cid::raw(b"a model");
        let told = match cid == self.package {
            true => Err(CatalogueError::NoModel { base }),
            false => Ok(facts),
        };
        async { told }.boxed()
    }

    fn package(
        &self,
        miner: Address,
        round: u32,
    ) -> BoxFuture<'_, Result<Option<Cid>, CatalogueError>> {
        let found = (miner == self.miner && round == ROUND).then_some(self.package);
        async move { Ok(found) }.boxed()
    }
}

impl Ledger {
    fn gradients(&self) -> Name {
        Name::Gradients {
            miner: self.miner,
            round: ROUND,
        }
    }
}

async fn get(client: &mut FlightClient, name: Name) -> (SchemaRef, Vec<RecordBatch>) {
    let info = client.get_flight_info(descriptor(&name.to_string())).await;
    let ticket = info.unwrap().endpoint.remove(0).ticket.unwrap();
    let table = client.do_get(ticket).await.unwrap();
    let batches: Vec<RecordBatch> = table.try_collect().await.unwrap();
    (batches[0].schema(), batches)
}

/// Writes a table; answers with what the server says.
async fn put(
    client: &mut FlightClient,
    path: &str,
    batches: Vec<RecordBatch>,
) -> Result<String, Status> {
    let messages = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor(path)))
        .with_schema(batches[0].schema())
        .build(stream::iter(batches.into_iter().map(Ok)));
    let answers = client.do_put(messages).await.map_err(status)?;
    let answers: Vec<_> = answers.try_collect().await.map_err(status)?;
    assert_eq!(answers.len(), 1);
    Ok(String::from_utf8(answers[0].app_metadata.to_vec()).unwrap())
}

fn descriptor(path: &str) -> FlightDescriptor {
    FlightDescriptor::new_path(path.split('/').map(str::to_owned).collect())
}

fn status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => panic!("the client failed: {other}"),
    }
}
