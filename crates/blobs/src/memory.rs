use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use r3mes_types::Cid;

use crate::{
    AnyCid, BlobStore, Block, Collected, Pin, PinName, StoreError, Usage,
    disk::DEFAULT_GRACE,
    walk::{self, Reached},
};

/// Blocks in memory, for tests and for processes that keep nothing.
#[derive(Debug)]
pub struct MemoryStore {
    grace: Duration,
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    /// By key.
    blocks: HashMap<AnyCid, (Block, Instant)>,
    pins: BTreeSet<Pin>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store with the default grace period.
    #[must_use]
    pub fn new() -> Self {
        Self::with_grace(DEFAULT_GRACE)
    }

    /// An empty store that keeps unpinned blocks for at least `grace`.
    #[must_use]
    pub fn with_grace(grace: Duration) -> Self {
        Self {
            grace,
            contents: Mutex::default(),
        }
    }

    /// A panic of another thread cannot leave the maps half changed, so poison is ignored.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn usage(&self) -> Usage {
        Usage {
            blocks: self.blocks.len() as u64,
            bytes: self.blocks.values().map(|(block, _)| size(block)).sum(),
        }
    }
}

fn size(block: &Block) -> u64 {
    block.bytes().len() as u64
}

impl BlobStore for MemoryStore {
    fn any_block(&self, cid: &AnyCid) -> Result<Option<Block>, StoreError> {
        let contents = self.contents();
        let found = contents.blocks.get(&cid.key());
        Ok(found.map(|(block, _)| block.clone().by(cid)))
    }

    fn contains_any(&self, cid: &AnyCid) -> Result<bool, StoreError> {
        Ok(self.contents().blocks.contains_key(&cid.key()))
    }

    fn insert(&self, blocks: &[Block]) -> Result<(), StoreError> {
        let now = Instant::now();
        let stored = blocks
            .iter()
            .map(|block| (block.cid().key(), (block.clone(), now)));
        self.contents().blocks.extend(stored);
        Ok(())
    }

    fn pin(&self, root: &Cid, name: &PinName) -> Result<(), StoreError> {
        let (root, name) = (*root, name.clone());
        self.contents().pins.insert(Pin { root, name });
        Ok(())
    }

    fn unpin(&self, root: &Cid, name: &PinName) -> Result<bool, StoreError> {
        let (root, name) = (*root, name.clone());
        Ok(self.contents().pins.remove(&Pin { root, name }))
    }

    fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        Ok(self.contents().pins.iter().cloned().collect())
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        Ok(self.contents().usage())
    }

    fn collect_garbage(&self, keep_bytes: u64) -> Result<Collected, StoreError> {
        let mut reached = Reached::default();
        for pin in self.pins()? {
            let root = pin.root;
            walk::reach(self, &root.into(), &mut reached).map_err(|source| {
                StoreError::Unreadable {
                    root,
                    source: Box::new(source),
                }
            })?;
        }
        let mut contents = self.contents();
        let mut unpinned: Vec<_> = contents
            .blocks
            .iter()
            .filter(|(key, (_, since))| !reached.all.contains(key) && since.elapsed() >= self.grace)
            .map(|(key, (block, since))| (*since, key.clone(), size(block)))
            .collect();
        unpinned.sort();
        let mut bytes = contents.usage().bytes;
        let mut removed = Usage::default();
        for (_, cid, size) in unpinned {
            if bytes <= keep_bytes {
                break;
            }
            contents.blocks.remove(&cid);
            bytes -= size;
            removed.blocks += 1;
            removed.bytes += size;
        }
        Ok(Collected {
            removed,
            kept: contents.usage(),
        })
    }
}
