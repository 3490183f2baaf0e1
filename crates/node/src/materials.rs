//! What training is made of: a packed model with its tokenizer, and texts cut into shards. Both are kept
//! as blobs, and described as the ledger takes them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use r3mes_blobs::{BlobStore, Pin, PinName};
use r3mes_model::{PackedModel, Tokenizer};
use r3mes_training::{
    dataset::{Shard, split},
    job::EXACT_VERSION,
    text::normalize,
};
use r3mes_types::{
    Amount, Cid,
    data::{DataShard, DatasetSpec},
    models::ModelSpec,
    wire::{List, Text},
};

/// Where materials are put: in each of some stores, under a pin.
pub struct Shelf {
    stores: Vec<Arc<dyn BlobStore>>,
    pin: PinName,
    /// What this shelf has pinned and nobody before, with the store's place.
    put: Mutex<Vec<(usize, Cid)>>,
}

impl Shelf {
    /// A shelf over stores; what is put there is kept until the pin is taken away.
    ///
    /// # Errors
    /// When the pin is no name for one.
    pub fn new(stores: Vec<Arc<dyn BlobStore>>, pin: &str) -> anyhow::Result<Self> {
        Ok(Self {
            stores,
            pin: PinName::new(pin)?,
            put: Mutex::default(),
        })
    }

    fn put(&self, bytes: &[u8]) -> anyhow::Result<Cid> {
        let mut put = None;
        for (place, store) in self.stores.iter().enumerate() {
            let root = store.put(bytes)?;
            let name = self.pin.clone();
            if !store.pins()?.contains(&Pin { root, name }) {
                store.pin(&root, &self.pin)?;
                self.pinned().push((place, root));
            }
            put = Some(root);
        }
        put.context("there is no store to put blobs in")
    }

    /// Lets go of what this shelf was the first to pin: the ledger has refused it. What others pinned
    /// under the same name, before or since, stays.
    ///
    /// # Errors
    /// When a store cannot be used.
    pub fn take_back(&self) -> anyhow::Result<()> {
        for (place, root) in self.pinned().drain(..) {
            self.stores[place].unpin(&root, &self.pin)?;
        }
        Ok(())
    }

    fn pinned(&self) -> MutexGuard<'_, Vec<(usize, Cid)>> {
        self.put.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What people say of a model.
pub struct ModelLabels<'a> {
    /// Its name, unique on the network.
    pub name: &'a str,
    /// Licence of the weights.
    pub licence: &'a str,
    /// Memory a node needs to serve it, in MiB.
    pub memory_mib: u32,
    /// Price of a million tokens.
    pub price: Amount,
}

/// Puts a packed model, whose file is `file`, and its tokenizer on the shelf.
///
/// # Errors
/// When the tokenizer does not fit the model, its chat template cannot be used, or a store is full or cannot be used.
pub fn store_model(
    shelf: &Shelf,
    (packed, file): (&PackedModel, &[u8]),
    tokenizer_file: &[u8],
    labels: &ModelLabels<'_>,
) -> anyhow::Result<ModelSpec> {
    let tokenizer = Tokenizer::from_bytes(tokenizer_file)?;
    let (tokens, rows) = (tokenizer.vocabulary(), packed.config().vocab);
    anyhow::ensure!(
        tokens <= rows,
        "the tokenizer has {tokens} tokens, the model embeds {rows}: it is another model's"
    );
    packed
        .chat_template()
        .context("nobody could converse with the model")?;
    Ok(ModelSpec {
        id: packed.id(),
        name: Text::new(labels.name)?,
        base: shelf.put(file)?,
        base_bytes: file.len() as u64,
        tokenizer: shelf.put(tokenizer_file)?,
        tokenizer_hash: tokenizer.hash(),
        exact_version: EXACT_VERSION,
        memory_mib: labels.memory_mib,
        price_per_million_tokens: labels.price,
        licence: Text::new(labels.licence)?,
    })
}

/// What people say of a dataset.
pub struct DatasetLabels<'a> {
    /// Its name.
    pub name: &'a str,
    /// Licence of the texts.
    pub licence: &'a str,
    /// Where they come from.
    pub source: &'a str,
}

/// How texts are cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Shards that they are dealt over; at least one.
    pub shards: usize,
    /// Tokens of a training sequence: held-out windows have one more.
    pub sequence: usize,
}

/// Tokenizes texts, holds the last tenth of each out, deals the rest over shards, and puts all of it on
/// the shelf. Also gives the held-out windows of each text.
///
/// # Errors
/// When there is too little text for the cut, or a store is full or cannot be used.
pub fn store_texts(
    shelf: &Shelf,
    tokenizer: &Tokenizer,
    texts: &[&str],
    cut: Cut,
    labels: &DatasetLabels<'_>,
) -> anyhow::Result<(DatasetSpec, Vec<Shard>)> {
    let tokens: Vec<Vec<u32>> = texts
        .iter()
        .map(|text| tokenizer.encode(&normalize(text)))
        .collect::<Result<_, _>>()?;
    let split = split(&tokens, cut.shards, cut.sequence);
    let window = cut.sequence + 1;
    if let Some(short) = split.shards.iter().position(|shard| shard.len() < window) {
        anyhow::bail!(
            "shard {short} of {} would have {} tokens, and a window takes {window}: give more text, fewer shards or a shorter sequence",
            cut.shards,
            split.shards[short].len()
        );
    }
    let vocabulary = u32::try_from(tokenizer.vocabulary())?;
    let shard = |tokens| Shard::new(tokenizer.hash(), vocabulary, tokens);
    let all_held_out = shard(split.held_out.concat())?;
    anyhow::ensure!(
        !all_held_out.tokens().is_empty(),
        "no text is long enough that its last tenth holds a window of {window} tokens to measure by: give longer texts or a shorter sequence"
    );
    let mut stored = Vec::new();
    for tokens in split.shards {
        stored.push(store_shard(shelf, &shard(tokens)?)?);
    }
    let spec = DatasetSpec {
        name: Text::new(labels.name)?,
        licence: Text::new(labels.licence)?,
        source: Text::new(labels.source)?,
        tokenizer_hash: tokenizer.hash(),
        shards: List::new(stored)?,
        held_out: Some(store_shard(shelf, &all_held_out)?),
    };
    let held_out = split.held_out.into_iter().map(shard);
    Ok((spec, held_out.collect::<Result<_, _>>()?))
}

fn store_shard(shelf: &Shelf, shard: &Shard) -> anyhow::Result<DataShard> {
    Ok(DataShard {
        cid: shelf.put(&shard.encode())?,
        tokens: shard.tokens().len() as u64,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use r3mes_blobs::MemoryStore;

    use super::*;
    use crate::assets;

    const LABELS: DatasetLabels<'static> = DatasetLabels {
        name: "texts",
        licence: "public domain",
        source: "a test",
    };

    #[test]
    fn what_is_held_out_is_in_no_shard_and_everything_is_kept_in_every_store() {
        let stores = [MemoryStore::new(), MemoryStore::new()].map(Arc::new);
        let shelves = stores.iter().map(|store| Arc::clone(store) as _).collect();
        let shelf = Shelf::new(shelves, "dataset").unwrap();
        let tokenizer = Tokenizer::from_bytes(assets::BASE_TOKENIZER).unwrap();
        let text = assets::TEXTS[0].1;
        let cut = Cut {
            shards: 3,
            sequence: 128,
        };
        let (spec, held_out) = store_texts(&shelf, &tokenizer, &[text], cut, &LABELS).unwrap();
        let all = tokenizer.encode(&normalize(text)).unwrap();
        let trained: u64 = spec.shards.iter().map(|shard| shard.tokens).sum();
        assert_eq!(trained as usize, all.len() - all.len().div_ceil(10));
        let last = &all[trained as usize..];
        assert_eq!(held_out[0].windows(128).next().unwrap(), &last[..129]);
        for store in &stores {
            for shard in spec.shards.iter().chain(&spec.held_out) {
                let kept = store.get(&shard.cid, 1 << 24).unwrap();
                let kept = Shard::decode(&kept).unwrap();
                assert_eq!(kept.tokens().len() as u64, shard.tokens);
            }
            assert_eq!(store.pins().unwrap().len(), 4);
        }
        shelf.take_back().unwrap();
        assert!(stores.iter().all(|store| store.pins().unwrap().is_empty()));
    }

    #[test]
    fn what_was_kept_before_stays_when_the_rest_is_taken_back() {
        let store = Arc::new(MemoryStore::new());
        let shelf = || Shelf::new(vec![Arc::clone(&store) as _], "model").unwrap();
        let earlier = shelf().put(b"earlier").unwrap();
        let again = shelf();
        again.put(b"earlier").unwrap();
        again.put(b"refused").unwrap();
        // Another command, at the same time and under the same name.
        let other = shelf().put(b"another's").unwrap();
        again.take_back().unwrap();
        let pins = store.pins().unwrap();
        let kept: BTreeSet<Cid> = pins.iter().map(|pin| pin.root).collect();
        assert_eq!(kept, BTreeSet::from([earlier, other]));
    }

    #[test]
    fn too_little_text_is_refused_with_what_would_do() {
        let shelf = Shelf::new(vec![Arc::new(MemoryStore::new())], "dataset").unwrap();
        let tokenizer = Tokenizer::from_bytes(assets::BASE_TOKENIZER).unwrap();
        let text = "A bear sat by a tree and thought of honey. ".repeat(30);
        let refusal = |shards, sequence| {
            let cut = Cut { shards, sequence };
            let stored = store_texts(&shelf, &tokenizer, &[&text], cut, &LABELS);
            stored.unwrap_err().to_string()
        };
        assert!(refusal(4, 128).contains("fewer shards"));
        assert!(refusal(1, 128).contains("longer texts"));
    }
}
