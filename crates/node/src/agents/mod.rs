//! Agents play the roles: each reads what its node owes, does it, and answers on the ledger.
//!
//! An agent keeps nothing in memory that matters. Killed at any point and started again, it asks the
//! ledger what is owed and goes on from the files it left.

mod aggregation;
pub mod bench;
pub mod chain;
pub mod context;
pub mod depot;
mod grants;
mod judging;
mod machine;
mod method;
mod mining;
pub mod models;
mod registration;
mod rounds;
pub mod serving;
mod turns;
mod workfiles;
mod workshop;

use std::sync::Arc;

use anyhow::Context as _;
use r3mes_blobs::{BlobStore, DiskOptions, DiskStore};
use r3mes_exact::{Cpu, CpuOptions};
use r3mes_gateway::ipfs;
use r3mes_http::server::{Limits, serve};
use r3mes_types::Role;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use method::Method;
use models::ModelFiles;
use r3mes_training::agent::Facts;
use workshop::Workshop;

pub use registration::{register, register_roles, spec};

use crate::{
    config::{BlobBackEnd, Config, RoleConfig},
    flight, genesis,
    golden::{self, Hashes},
    home::Home,
    keyring::Keyring,
    process,
};

/// One role of a node, played by this process.
pub struct Agent<'a> {
    /// The node's home.
    pub home: &'a Home,
    /// Its configuration.
    pub config: &'a Config,
    /// What it plays.
    pub role: Role,
    /// How a miner of a demonstration cheats.
    pub lie: Option<&'a str>,
    /// What the kernels must give before anything is computed with them.
    pub golden: &'a Hashes,
}

impl Agent<'_> {
    /// Works until `shutdown`.
    ///
    /// # Errors
    /// [`Unfit`](crate::golden::Unfit) when this machine computes something else than the network;
    /// else when the role cannot be started, or its work cannot go on.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self {
            home, config, role, ..
        } = self;
        let device = self.proved_device().await?;
        let isa = device.isa();
        let settings = config
            .role(role)
            .cloned()
            .unwrap_or_else(|| RoleConfig::for_role(role));
        let data = home.data(&role.to_string());
        let store = open_role_store(home, config, role, &settings).await?;
        let mut listening = JoinSet::new();
        if let Some(address) = settings.blobs_listen {
            let listener = listen(address, &format!("roles.{role}.blobs_listen")).await?;
            let public = settings.public_blobs_url();
            listening.spawn(serve_blobs(
                listener,
                public,
                Arc::clone(&store),
                config.http.limits(),
                shutdown.clone(),
            ));
        }
        if let Some(address) = settings.flight_listen {
            let key = format!("roles.{role}.flight_listen");
            let service = flight::open(home, config, (address, &key), Arc::clone(&store)).await?;
            listening.spawn(service.serve(shutdown.clone()));
        }

        let keyring = Keyring::new(home);
        let key = keyring.role(role)?;
        let client = chain::connect(home, config)?;
        client.status().await?;
        chain::refuse_long_trust(&client, config).await?;
        let node = keyring.account_address()?;
        registration::require(&client, node, role, key.address()).await?;
        let agent = context::Context {
            node,
            depot: depot::Depot::new(home, config, store, client.clone())?,
            chain: client.clone(),
            http: config.http.limits(),
            shutdown: shutdown.clone(),
        };
        let files = ModelFiles::of_role(home, role);
        tracing::info!(%role, %node, %isa, "ready");

        let sender = chain::sender(&client, key.clone());
        let outcome = if role == Role::Serving {
            serving::run(agent, device, &settings, key, &files).await
        } else {
            let secret = keyring.salt_seed(role)?;
            let facts = Facts::new(node, *secret);
            let workshop = Workshop {
                agent,
                bench: bench::Bench::new(device, settings.memory_mb, files),
                root: data,
                durable: settings.durable,
                secret,
                method: self.lie.map_or(Ok(Method::Honest), str::parse)?,
                isa,
                sender,
                released: None,
            };
            rounds::follow(workshop, facts, role).await;
            Ok(())
        };
        shutdown.cancel();
        while listening.join_next().await.is_some() {}
        outcome
    }

    /// The kernels that the configuration asks for, once they have given the golden hashes.
    async fn proved_device(&self) -> anyhow::Result<Cpu> {
        let device = device(self.config)?;
        let (role, golden) = (self.role, self.golden.clone());
        let proof = move || golden::require(&device, role, &golden).map(|()| device);
        Ok(tokio::task::spawn_blocking(proof).await??)
    }
}

/// The kernels that the configuration asks for.
///
/// # Errors
/// When this machine does not have the back end.
pub fn device(config: &Config) -> anyhow::Result<Cpu> {
    let isa = match config.compute.kernels.as_str() {
        "auto" => None,
        name => Some(name.parse()?),
    };
    Ok(Cpu::new(CpuOptions {
        isa,
        threads: config.compute.threads,
    })?)
}

/// Opens a process's own blob store. What need not outlive a power failure does without `durable`.
///
/// # Errors
/// When the folder cannot be used.
pub fn open_store(
    folder: &std::path::Path,
    storage_mb: u64,
    durable: bool,
) -> anyhow::Result<Arc<dyn BlobStore>> {
    let options = DiskOptions {
        max_bytes: storage_mb << 20,
        durable,
        ..DiskOptions::default()
    };
    Ok(Arc::new(DiskStore::open(folder, options)?))
}

/// The stores of this home that others fetch from: the ledger's, and that of the first role, which the
/// ledger names to everybody.
///
/// # Errors
/// When there is none, or one cannot be used.
pub async fn public_stores(
    home: &Home,
    config: &Config,
) -> anyhow::Result<Vec<Arc<dyn BlobStore>>> {
    let mut stores = Vec::new();
    if config.services.ledger.is_some() {
        stores.push(open_store(
            &genesis::bootstrap_folder(home),
            genesis::BOOTSTRAP_STORAGE_MB,
            true,
        )?);
    }
    if let Some((role, settings)) = config.enabled_roles().first() {
        stores.push(open_role_store(home, config, *role, settings).await?);
    }
    anyhow::ensure!(
        !stores.is_empty(),
        "this home runs neither a ledger nor a role, so nobody could fetch what it stores: use the home of a node that does"
    );
    Ok(stores)
}

/// Opens the store that the configuration names for a role.
async fn open_role_store(
    home: &Home,
    config: &Config,
    role: Role,
    settings: &RoleConfig,
) -> anyhow::Result<Arc<dyn BlobStore>> {
    let folder = match config.blobs.store {
        BlobBackEnd::Own => home.data(&role.to_string()).join("blobs"),
        // Shared by the roles, as Kubo itself is.
        BlobBackEnd::Kubo => home.data("kubo"),
    };
    let blobs = config.blobs.clone();
    let (storage_mb, durable) = (settings.storage_mb, settings.durable);
    let opened = tokio::task::spawn_blocking(move || match blobs.store {
        BlobBackEnd::Own => open_store(&folder, storage_mb, durable),
        BlobBackEnd::Kubo => {
            let store = ipfs::KuboStore::open(&blobs.kubo_rpc, &folder).context(
                "blobs.store is kubo in the configuration: start Kubo there, or choose own",
            )?;
            Ok(Arc::new(store) as Arc<dyn BlobStore>)
        }
    });
    opened.await?
}

/// Runs the blob gateway of a role. Delegated routing names it to IPFS programs, where it is reached over HTTP.
async fn serve_blobs(
    listener: TcpListener,
    public: String,
    store: Arc<dyn BlobStore>,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let mut router = ipfs::router(Arc::clone(&store), ipfs::GatewayLimits::default());
    if !public.starts_with("flight://") {
        match ipfs::routing(store, &public) {
            Ok(routing) => router = router.merge(routing),
            Err(error) => tracing::warn!("no delegated routing: {error}"),
        }
    }
    serve(listener, router, limits, shutdown).await;
}

/// Listens on an address of the configuration.
///
/// # Errors
/// Names the key to change when the address is taken.
pub async fn listen(address: std::net::SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; another program may use it: change {key} in the configuration"))
}

/// Tells the supervisor that this role can do its work.
fn ready() {
    process::announce_ready();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Unfit;

    #[tokio::test]
    async fn no_role_works_on_a_machine_that_computes_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let (home, config) = (Home::new(folder.path()), Config::default());
        let run = async |role, golden: &Hashes| {
            let agent = Agent {
                home: &home,
                config: &config,
                role,
                lie: None,
                golden,
            };
            agent.run(CancellationToken::new()).await.unwrap_err()
        };
        let pinned = golden::pinned();
        for role in Role::ALL.iter().copied() {
            let of_its_own = match role {
                Role::Serving => "generation",
                _ => "training step",
            };
            for name in ["ternary products", of_its_own] {
                let mut forged = pinned.clone();
                forged.insert(name.to_owned(), "another".to_owned());
                let refusal = run(role, &forged).await;
                let unfit = refusal.downcast_ref::<Unfit>();
                assert!(unfit.is_some(), "{role}: {refusal:#}");
                assert!(refusal.to_string().contains(name), "{role}: {refusal}");
            }
            assert_eq!(folder.path().read_dir().unwrap().count(), 0, "{role}");
            // With what is pinned it comes to what this home lacks.
            let refusal = run(role, &pinned).await;
            assert!(!refusal.is::<Unfit>(), "{role}: {refusal:#}");
            std::fs::remove_dir_all(folder.path().join("data")).unwrap();
        }
    }
}
