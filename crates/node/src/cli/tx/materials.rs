//! `r3mes tx model` and `r3mes tx dataset`: materials become blobs first, and are told to the ledger then.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context;
use r3mes_blobs::{BlobStore, MemoryStore};
use r3mes_exact::Bytes;
use r3mes_gateway::rpc::SendError;
use r3mes_model::{MAX_TEXT_BYTES, MAX_TOKENIZER_BYTES, PackedModel, Tokenizer};
use r3mes_types::{
    Message,
    data::MsgProposeDataset,
    governance::Change,
    models::MsgRegisterModel,
    wire::{Shown, Wire},
};

use super::{Account, Decision};
use crate::{
    agents,
    cli::args::{DatasetPropose, ModelRegister, Submit},
    materials::{Cut, DatasetLabels, ModelLabels, Shelf, store_model, store_texts},
};

/// Memory that serving takes besides the weights, in MiB.
const SERVING_MIB: u64 = 64;
/// Pin of what was fetched for one command.
const PIN: &str = "materials";

impl Account<'_> {
    pub(super) async fn register_model(&self, typed: &ModelRegister) -> anyhow::Result<Shown> {
        let unread = || format!("cannot read {}", typed.file.display());
        let file =
            Bytes::map(&fs::File::open(&typed.file).with_context(unread)?).with_context(unread)?;
        let packed = PackedModel::from_bytes(&file).with_context(|| {
            format!(
                "{} is no packed model; `r3mes pack` makes one of a checkpoint",
                typed.file.display()
            )
        })?;
        let beside = || typed.file.with_file_name("tokenizer.json");
        let tokenizer = typed.tokenizer.clone().unwrap_or_else(beside);
        let tokenizer = read(&tokenizer, MAX_TOKENIZER_BYTES)
            .context("name the model's tokenizer with --tokenizer")?;
        let usual = u32::try_from(((2 * file.len() as u64) >> 20) + SERVING_MIB)?;
        let labels = ModelLabels {
            name: &typed.name,
            licence: &typed.licence,
            memory_mib: typed.memory_mib.unwrap_or(usual),
            price: typed.price,
        };
        let way = self.way().await?;
        let shelf = self.shelf("model", &typed.submit).await?;
        let spec = store_model(&shelf, (&packed, &file), &tokenizer, &labels)?;
        let content = vec![("spec", spec.shown())];
        let alone = MsgRegisterModel {
            authority: self.address,
            spec: spec.clone(),
        };
        let title = format!("register the model {}", spec.name);
        let decision = Decision {
            alone: alone.into(),
            change: Change::Model(spec),
            title,
        };
        let message = self.message(way, decision, &typed.submit)?;
        self.submit_stored(&shelf, message, &typed.submit, content)
            .await
    }

    pub(super) async fn propose_dataset(&self, typed: &DatasetPropose) -> anyhow::Result<Shown> {
        // The same accounts may propose a dataset; its vote is one of its own.
        self.way().await?;
        let model = self.model(&typed.model).await?.spec;
        let (depot, _folder) = self.depot()?;
        let tokenizer = depot.get(model.tokenizer, MAX_TOKENIZER_BYTES, None, PIN);
        let tokenizer = Tokenizer::from_bytes(&tokenizer.await?)?;
        let texts = typed.texts.iter().map(|path| {
            let text = String::from_utf8(read(path, MAX_TEXT_BYTES as u64)?);
            text.with_context(|| format!("{} is no text in UTF-8", path.display()))
        });
        let texts: Vec<String> = texts.collect::<anyhow::Result<_>>()?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let cut = Cut {
            shards: usize::from(typed.shards),
            sequence: typed.sequence as usize,
        };
        let labels = DatasetLabels {
            name: &typed.name,
            licence: &typed.licence,
            source: &typed.source,
        };
        let shelf = self.shelf("dataset", &typed.submit).await?;
        let (spec, held_out) = store_texts(&shelf, &tokenizer, &texts, cut, &labels)?;
        let windows = held_out.iter().map(|text| text.windows(cut.sequence).len());
        let content = vec![
            ("spec", spec.shown()),
            (
                "held_out_windows",
                Shown::Number(windows.sum::<usize>() as i128),
            ),
        ];
        let message = MsgProposeDataset {
            proposer: self.address,
            spec,
        };
        self.submit_stored(&shelf, message.into(), &typed.submit, content)
            .await
    }

    /// Where materials are put: in memory only with `--dry-run`.
    async fn shelf(&self, pin: &str, submit: &Submit) -> anyhow::Result<Shelf> {
        let stores = match submit.dry_run {
            true => vec![Arc::new(MemoryStore::new()) as Arc<dyn BlobStore>],
            false => agents::public_stores(self.home, self.config).await?,
        };
        Shelf::new(stores, pin)
    }

    /// As [`Account::submit`]; what the ledger refuses is not kept.
    async fn submit_stored(
        &self,
        shelf: &Shelf,
        message: Message,
        submit: &Submit,
        content: Vec<(&'static str, Shown)>,
    ) -> anyhow::Result<Shown> {
        let sent = self.submit(message, submit, content).await;
        if let Err(SendError::Refused { .. }) = &sent {
            shelf.take_back()?;
        }
        Ok(sent?)
    }
}

/// A file of bounded length.
fn read(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let unread = || format!("cannot read {}", path.display());
    let bytes = fs::metadata(path).with_context(unread)?.len();
    anyhow::ensure!(
        bytes <= most,
        "{} has {bytes} bytes, more than the {most} that are taken: split it",
        path.display()
    );
    fs::read(path).with_context(unread)
}
