//! Packed models of the ledger as files, which are mapped into memory and never read into it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use r3mes_gateway::rpc;
use r3mes_model::PackedModel;
use r3mes_types::{
    Hash, Role,
    models::{Model, ModelSpec, QueryModel, QueryModels},
};
use tempfile::TempDir;

use super::depot::Depot;
use crate::home::Home;

/// Pin of a model's blob, which all rounds share.
const PIN: &str = "shared";
/// Mode of a model's file: whoever changed it would change the model under those who have it mapped.
const READ_ONLY: u32 = 0o444;

/// Every model of the ledger, in the order of their ids.
///
/// # Errors
/// When the ledger does not answer.
pub async fn registered(client: &rpc::Client) -> anyhow::Result<Vec<Model>> {
    Ok(client.list(QueryModels::default()).await?)
}

/// Where a process finds packed models as files, and puts them.
///
/// Roles of one home share the files, and with them the memory that they are mapped into. A file is
/// written beside its place, moved there when it is whole, and not touched any more. Each opening checks
/// all of it against the model's id: what a crash or a full disk left is written anew. A file that is
/// cut short while it is mapped ends the processes that read it; the supervisor starts them again, and
/// they write it anew.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    folder: PathBuf,
    /// Tells apart those who may write at the same time.
    writer: &'static str,
}

impl ModelFiles {
    /// Those of a home, for one of its roles.
    pub fn of_role(home: &Home, role: Role) -> Self {
        Self {
            folder: home.models(),
            writer: role.name(),
        }
    }

    /// Those of one command, in its temporary folder. What is mapped outlasts the folder.
    pub fn of_command(folder: &TempDir) -> Self {
        Self {
            folder: folder.path().join("models"),
            writer: "command",
        }
    }

    /// Maps a registered model, whose blob is fetched and pinned.
    ///
    /// # Errors
    /// When it is not registered, cannot be had or stored, or has another hash than the ledger says.
    pub async fn open(
        &self,
        depot: &Depot,
        chain: &rpc::Client,
        id: Hash,
    ) -> anyhow::Result<PackedModel> {
        let answer = chain.query(&QueryModel { id }).await?;
        let spec = answer
            .model
            .with_context(|| format!("model {id} is not registered"))?
            .spec;
        depot
            .fetch_pinned(spec.base, spec.base_bytes, None, PIN)
            .await?;
        let (files, depot) = (self.clone(), depot.clone());
        tokio::task::spawn_blocking(move || files.map(&depot, &spec)).await?
    }

    fn map(&self, depot: &Depot, spec: &ModelSpec) -> anyhow::Result<PackedModel> {
        let path = self.folder.join(format!("{}.r3mes", spec.id));
        match PackedModel::open(&path) {
            Ok(packed) if packed.id() == spec.id => return Ok(packed),
            found => {
                if path.exists() {
                    let error = found.err().map(anyhow::Error::from);
                    tracing::warn!(path = %path.display(), ?error, "a model's file is damaged and is written anew");
                }
            }
        }
        let unwritten = || {
            format!(
                "cannot write {}: see that the disk is not full and the folder is yours",
                path.display()
            )
        };
        self.write(depot, spec, &path).with_context(unwritten)?;
        let packed = PackedModel::open(&path)?;
        anyhow::ensure!(
            packed.id() == spec.id,
            "the file of model {} has hash {}",
            spec.id,
            packed.id()
        );
        Ok(packed)
    }

    fn write(&self, depot: &Depot, spec: &ModelSpec, path: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let partial = path.with_extension(format!("{}.partial", self.writer));
        let written = create(&partial).map_err(Into::into).and_then(|mut file| {
            depot.copy(spec.base, spec.base_bytes, &mut file)?;
            Ok(fs::rename(&partial, path)?)
        });
        if written.is_err() {
            // It is of no use, and the first error is the one to report.
            let _ = fs::remove_file(&partial);
        }
        written
    }
}

/// An empty file that can be written through this handle alone; what a killed process left goes.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(READ_ONLY)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::Arc};

    use r3mes_blobs::{BlobStore, MemoryStore};
    use r3mes_types::{Amount, Cid, wire::Text};

    use super::*;
    use crate::{assets, config::Config};

    fn spec(base: Cid) -> ModelSpec {
        let name = |text| Text::new(text).unwrap();
        ModelSpec {
            id: Hash::of(assets::BASE_MODEL),
            name: name("base"),
            base,
            base_bytes: assets::BASE_MODEL.len() as u64,
            tokenizer: base,
            tokenizer_hash: Hash::ZERO,
            exact_version: 1,
            memory_mib: 1,
            price_per_million_tokens: Amount::ZERO,
            licence: Text::new("MIT").unwrap(),
        }
    }

    #[test]
    fn a_model_is_written_once_and_anew_when_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let base = store.put(assets::BASE_MODEL).unwrap();
        let chain = rpc::Client::new("http://127.0.0.1:1").unwrap();
        let home = Home::new(folder.path());
        let depot = |store: Arc<MemoryStore>| {
            let mut config = Config::default();
            config.network.bootstrap_blobs.clear();
            Depot::new(&home, &config, store, chain.clone()).unwrap()
        };
        let files = ModelFiles::of_role(&home, Role::Miner);
        let path = home.models().join(format!("{}.r3mes", spec(base).id));

        // Whoever was killed while it wrote left a part.
        fs::create_dir_all(home.models()).unwrap();
        fs::write(path.with_extension("miner.partial"), "part").unwrap();
        let first = files.map(&depot(Arc::clone(&store)), &spec(base)).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o444
        );
        assert_eq!(home.models().read_dir().unwrap().count(), 1);
        // The blocks are not needed while the file is whole.
        let none = depot(Arc::new(MemoryStore::new()));
        let other = ModelFiles::of_role(&home, Role::Validator);
        assert_eq!(other.map(&none, &spec(base)).unwrap().id(), first.id());

        for damaged in [&assets::BASE_MODEL[..1000], b"", &[7; 4096]] {
            fs::remove_file(&path).unwrap();
            fs::write(&path, damaged).unwrap();
            assert!(files.map(&none, &spec(base)).is_err());
            let mapped = files.map(&depot(Arc::clone(&store)), &spec(base)).unwrap();
            assert_eq!(mapped.id(), first.id());
        }
        assert_eq!(home.models().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_blob_that_is_another_model_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let base = store.put(assets::BASE_MODEL).unwrap();
        let chain = rpc::Client::new("http://127.0.0.1:1").unwrap();
        let home = Home::new(folder.path());
        let depot = Depot::new(&home, &Config::default(), store, chain).unwrap();
        let other = ModelSpec {
            id: Hash::of(b"another"),
            ..spec(base)
        };
        let refusal = ModelFiles::of_command(&folder).map(&depot, &other);
        let refusal = refusal.unwrap_err().to_string();
        assert!(refusal.contains("has hash 5ac97d1d"), "{refusal}");
    }
}
