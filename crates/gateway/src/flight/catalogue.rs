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
pub enum CatalogueError {
    /// An adapter's model is not here, whose shape decides the adapter's.
    #[error(
        "the packed file {base} of the adapter's model is not stored here, so its shapes are \
         unknown; as bytes it may be at blob/CID"
    )]
    NoModel {
        /// The packed file.
        base: Cid,
    },
    /// Whom it asks does not answer.
    #[error("the catalogue of adapters and packages does not answer")]
    Silent {
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
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
    /// When the ledger does not answer, or the model that it belongs to is not here.
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
