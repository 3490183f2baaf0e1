//! What a service is told of the network: which blobs are adapters and packages, and of what.

use futures::future::BoxFuture;
use r3mes_blobs::Cid;
use r3mes_model::AdapterLayout;
use r3mes_types::Address;

use super::Name;

/// What is known of an adapter besides its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFacts {
    /// The order and shapes of its tensors.
    pub layout: AdapterLayout,
    /// What else there is to tell, such as `model`, `run` and `round`; it stands in the schema's
    /// metadata under `r3mes.NAME`.
    pub details: Vec<(&'static str, String)>,
}

/// A flight that may be listed, if its blob is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// The blob.
    pub cid: Cid,
}

/// Why a catalogue does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the catalogue of adapters and packages does not answer")]
pub struct CatalogueError {
    /// What went wrong.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Knows which blobs are adapters and packages. A node's asks the ledger.
pub trait Catalogue: Send + Sync {
    /// What there is to list, newest first.
    ///
    /// # Errors
    /// When the ledger does not answer.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Listed>, CatalogueError>>;

    /// The facts of an adapter; none when the CID is not that of a known one.
    ///
    /// # Errors
    /// When the ledger does not answer, or the model that it belongs to cannot be read.
    fn adapter(&self, cid: Cid) -> BoxFuture<'_, Result<Option<AdapterFacts>, CatalogueError>>;

    /// The package of a miner in a round of the newest run, if it has published one.
    ///
    /// # Errors
    /// When the ledger does not answer.
    fn package(
        &self,
        miner: Address,
        round: u32,
    ) -> BoxFuture<'_, Result<Option<Cid>, CatalogueError>>;
}
