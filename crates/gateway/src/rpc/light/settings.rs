//! What trust begins with, and what is kept of it.

use std::path::PathBuf;
use std::time::Duration;

use r3mes_ledger::Genesis;
use r3mes_types::wire::Wire;
use serde::{Deserialize, Serialize};

use super::block::{LightBlock, TrustOptions};

/// What trust begins with.
#[derive(Clone, Debug)]
pub enum Root {
    /// The block validators of the genesis.
    Genesis,
    /// A header, by its height and hash.
    Header {
        /// Its height.
        height: u64,
        /// Its hash.
        hash: [u8; 32],
    },
}

/// How a chain is followed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What trust begins with.
    pub root: Root,
    /// For how long headers are trusted.
    pub options: TrustOptions,
    /// How old the newest header may be. `None` for a network that makes blocks only when something
    /// happens: there a node that shows an old state cannot be told from a quiet network.
    pub max_age: Option<Duration>,
    /// How long the first answer waits for the block that proves the newest state, so that it knows
    /// what happened a moment ago. Later ones are about what is proved already.
    pub first_wait: Duration,
    /// How long the block is waited for that proves a transaction of this process, which the node says is
    /// in one. After that its word is forgotten.
    pub patience: Duration,
    /// Where the newest verified header is kept, so that a restart goes on from it.
    pub file: Option<PathBuf>,
}

/// What is written down: a verified block, and what trust began with.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) root: String,
    pub(super) block: LightBlock,
}

impl Settings {
    /// A patience that any network's next block comes within.
    pub const PATIENCE: Duration = Duration::from_secs(20);

    /// The block that was verified before, from the same beginning of trust. A file that is of another
    /// one, or damaged, is as none: it is written anew.
    #[must_use]
    pub fn kept(&self, genesis: &Genesis) -> Option<LightBlock> {
        let bytes = std::fs::read(self.file.as_ref()?).ok()?;
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        let is_ours = kept.root == self.root.name(genesis)
            && kept.block.signed.header.chain_id.as_str() == genesis.chain_id.as_str()
            && kept.block.check().is_ok();
        is_ours.then_some(kept.block)
    }
}

impl Root {
    /// What tells one beginning of trust from another.
    pub(super) fn name(&self, genesis: &Genesis) -> String {
        match self {
            Self::Genesis => format!("genesis {}", r3mes_types::Hash::of(&genesis.encode())),
            Self::Header { height, hash } => format!("{height}:{}", hex::encode(hash)),
        }
    }

    /// The height that the chain has at least.
    pub(super) fn height(&self) -> u64 {
        match self {
            Self::Genesis => 0,
            Self::Header { height, .. } => *height,
        }
    }
}
