//! The gateway of remote functions: a broker whose tokens and owners of node ids are kept in the home.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use r3mes_functions::{
    broker::{Broker, Limits},
    federation::{Federation, FederationConfig, Owners},
    serve::{Hub, Owned},
    tls::ServerTls,
    tokens::{Token, Tokens},
};
use r3mes_functions_http::{Functions, HttpLimits, Origins, WebhookHosts};
use r3mes_gateway::billing::Billing;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    agents,
    config::{Config, Nats, Tls},
    home::Home,
    process,
    services::billing,
};

/// Ids that are claimed at a time.
const CLAIMS: usize = 64;
/// Time between two looks at the file of tokens.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the gateway until `shutdown`.
///
/// # Errors
/// When its address is taken, what it keeps cannot be read, or NATS is not reached.
pub async fn run(home: &Home, config: &Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let settings = config.services.functions.clone().unwrap_or_default();
    let tls = settings.tls.as_ref().map(shown).transpose()?;
    let listener = agents::listen(settings.listen, "services.functions.listen").await?;
    let address = listener.local_addr()?;
    let kept = Kept::open(home)?;
    let limits = Limits {
        token_required: settings.token_required,
        ..Limits::default()
    };
    let (owned, taken) = mpsc::unbounded_channel();
    let tokens = Tokens::new(kept.tokens()?);
    let known = kept.owners()?;
    let mut broker = Broker::new(limits, tokens, known.clone(), seed()?);
    let billing = settings.billing.as_ref();
    let billing = billing.map(|settings| billing::open(home, config, settings));
    let billing = match billing.transpose()? {
        Some((book, billing)) => {
            broker = broker.with_purse(Box::new(book));
            Some(billing)
        }
        None => None,
    };
    let hub = Arc::new(Hub::new(broker, owned));
    let http = HttpLimits {
        body_bytes: settings.max_body_bytes,
        calls_per_minute: settings.calls_per_minute,
        webhooks: match &settings.webhook_hosts {
            Some(hosts) => WebhookHosts::Only(hosts.clone()),
            None => WebhookHosts::Public,
        },
        origins: Origins::listed(&settings.cors_origins)
            .map_err(|error| anyhow::anyhow!("services.functions.cors_origins: {error}"))?,
        connection: config.http.limits(),
        ..HttpLimits::default()
    };
    let following = follow_certificate(settings.tls.as_ref(), tls.clone());
    let federation = match &settings.nats {
        Some(nats) => Some(Federation::connect(federated(config, nats)).await?),
        None => None,
    };
    let joined = federation.as_ref();
    let owners = joined.map(|federation| federation.owners().clone());
    let calls = joined.map(|federation| Arc::clone(federation.calls()));
    let api = Functions::new(Arc::clone(&hub), http, calls);
    let meeting = async {
        match &federation {
            Some(federation) => Ok(federation.run(Arc::clone(&hub), shutdown.clone()).await?),
            None => Ok(()),
        }
    };
    let serving = async {
        api.serve(listener, tls, shutdown.clone()).await;
        anyhow::Ok(())
    };
    tracing::info!(%address, "the gateway of remote functions is ready");
    process::announce_ready();
    let ended = tokio::select! {
        result = async { tokio::try_join!(serving, meeting) } => result.map(|_| ()),
        result = remember(&kept, owners, &hub, known, taken) => result,
        result = follow_tokens(&kept, &hub) => result,
        () = follow_ledger(billing.as_ref()) => Ok(()),
        () = following => Ok(()),
    };
    if let Some(billing) = &billing {
        billing::settle_last(billing).await;
    }
    ended
}

/// Settles what calls cost, for ever; there is nothing to settle without billing.
async fn follow_ledger(billing: Option<&Billing>) {
    match billing {
        Some(billing) => billing.follow().await,
        None => std::future::pending().await,
    }
}

fn federated(config: &Config, nats: &Nats) -> FederationConfig {
    let name = match config.node.moniker.as_str() {
        "" => "gateway",
        moniker => moniker,
    };
    FederationConfig {
        servers: nats.servers.clone(),
        ca: nats.ca_file.clone(),
        credentials: nats.credentials_file.clone(),
        name: name.into(),
        prefix: nats.prefix.clone(),
        replicas: nats.replicas,
    }
}

/// What decides among equal nodes.
fn seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("the operating system gives no random bytes")?;
    Ok(u64::from_le_bytes(bytes))
}

/// Keeps every id that is taken, and claims it at all gateways, and so those that were taken before this
/// gateway met others.
async fn remember(
    kept: &Kept,
    owners: Option<Owners>,
    hub: &Hub,
    known: BTreeMap<String, [u8; 32]>,
    mut taken: mpsc::UnboundedReceiver<Owned>,
) -> anyhow::Result<()> {
    let (to_claim, mut unclaimed) = mpsc::unbounded_channel();
    // The file is written at once, however long the other gateways' record may not answer.
    let keeping = async {
        while let Some((id, key)) = taken.recv().await {
            kept.add_owner(&id, key)?;
            if owners.is_some() {
                to_claim.send((id, key))?;
            }
        }
        anyhow::Ok(())
    };
    let claiming = async {
        let Some(owners) = &owners else {
            return Ok(());
        };
        let new = stream::poll_fn(|context| unclaimed.poll_recv(context));
        let all = stream::iter(known).chain(new).map(anyhow::Ok);
        all.try_for_each_concurrent(CLAIMS, async |(id, key)| {
            let owner = owners.claim(&id, key).await;
            if owner != key {
                hub.with(|broker, now| broker.set_owner(&id, owner, now));
                kept.add_owner(&id, owner)?;
            }
            Ok(())
        })
        .await
    };
    tokio::try_join!(keeping, claiming).map(|_| ())
}

/// Tells the broker whenever the file of tokens has changed.
async fn follow_tokens(kept: &Kept, hub: &Hub) -> anyhow::Result<()> {
    let mut seen = changed(&kept.tokens);
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let now = changed(&kept.tokens);
        if now == seen {
            continue;
        }
        seen = now;
        match kept.tokens() {
            Ok(tokens) => hub.set_tokens(Tokens::new(tokens)),
            Err(error) => tracing::error!("the tokens stay as they were: {error:#}"),
        }
    }
}

/// The certificate that is to be shown.
fn shown(files: &Tls) -> anyhow::Result<ServerTls> {
    ServerTls::from_files(&files.certificate, &files.key).context("services.functions.tls")
}

/// Shows the certificate anew whenever its files have changed.
async fn follow_certificate(files: Option<&Tls>, tls: Option<ServerTls>) {
    let (Some(files), Some(tls)) = (files, tls) else {
        return std::future::pending().await;
    };
    let look = || (changed(&files.certificate), changed(&files.key));
    let mut seen = look();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if look() == seen {
            continue;
        }
        seen = look();
        match shown(files) {
            Ok(new) => tls.replace(&new),
            Err(error) => tracing::error!("the certificate stays as it was: {error:#}"),
        }
    }
}

/// What tells a file that was changed.
fn changed(path: &Path) -> Option<(SystemTime, u64)> {
    let known = fs::metadata(path).ok()?;
    Some((known.modified().ok()?, known.len()))
}

/// What a gateway of remote functions keeps in its home.
#[derive(Debug)]
pub struct Kept {
    tokens: PathBuf,
    owners: PathBuf,
}

/// A line of the file of owners.
#[derive(Serialize, Deserialize)]
struct Owner {
    id: String,
    key: String,
}

impl Kept {
    /// The files of a home; their folder is made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(home: &Home) -> anyhow::Result<Self> {
        let folder = home.data("functions");
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let kept = Self {
            tokens: folder.join("tokens.json"),
            owners: folder.join("owners.jsonl"),
        };
        kept.drop_cut_line()
            .with_context(|| format!("cannot mend {}", kept.owners.display()))?;
        Ok(kept)
    }

    /// Drops a line that was being written when the machine lost its power.
    fn drop_cut_line(&self) -> io::Result<()> {
        let bytes = match fs::read(&self.owners) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        match whole < bytes.len() {
            true => fs::OpenOptions::new()
                .write(true)
                .open(&self.owners)?
                .set_len(whole as u64),
            false => Ok(()),
        }
    }

    /// All tokens, as their hashes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tokens(&self) -> anyhow::Result<Vec<Token>> {
        let Some(text) = read(&self.tokens)? else {
            return Ok(Vec::new());
        };
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not a list of tokens", self.tokens.display()))
    }

    /// Keeps these tokens in place of those before.
    ///
    /// # Errors
    /// When the file cannot be written; nothing has changed then.
    pub fn set_tokens(&self, tokens: &[Token]) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(tokens)?;
        replace(&self.tokens, &text)
            .with_context(|| format!("cannot write {}", self.tokens.display()))
    }

    fn owners(&self) -> anyhow::Result<BTreeMap<String, [u8; 32]>> {
        let text = read(&self.owners)?.unwrap_or_default();
        let mut owners = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let entry = serde_json::from_str::<Owner>(line).ok();
            let key = |owner: &Owner| {
                let mut key = [0; 32];
                hex::decode_to_slice(&owner.key, &mut key)
                    .ok()
                    .map(|()| key)
            };
            let entry = entry
                .as_ref()
                .and_then(|owner| Some((owner.id.clone(), key(owner)?)));
            let (id, key) = entry.with_context(|| {
                let path = self.owners.display();
                format!(
                    "line {} of {path} does not say whose a node's id is",
                    number + 1
                )
            })?;
            owners.insert(id, key);
        }
        Ok(owners)
    }

    fn add_owner(&self, id: &str, key: [u8; 32]) -> anyhow::Result<()> {
        let owner = Owner {
            id: id.to_owned(),
            key: hex::encode(key),
        };
        let write = || -> io::Result<()> {
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.owners)?;
            writeln!(file, "{}", serde_json::to_string(&owner)?)?;
            file.sync_data()
        };
        write().with_context(|| format!("cannot write {}", self.owners.display()))
    }
}

/// Writes a file anew, as a whole or not at all.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use r3mes_functions::tokens::Secret;

    use super::*;

    #[test]
    fn tokens_and_owners_outlast_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let kept = Kept::open(&home).unwrap();
        assert!(kept.tokens().unwrap().is_empty() && kept.owners().unwrap().is_empty());
        let token = Secret::new().unwrap().kept("alice", Vec::new(), None);
        kept.set_tokens(std::slice::from_ref(&token)).unwrap();
        kept.add_owner("a", [1; 32]).unwrap();
        kept.add_owner("b", [2; 32]).unwrap();
        let again = Kept::open(&home).unwrap();
        assert_eq!(again.tokens().unwrap(), [token]);
        assert_eq!(again.owners().unwrap()["b"], [2; 32]);
    }

    #[test]
    fn a_line_cut_short_is_left_out_and_a_wrong_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(&Home::new(folder.path())).unwrap();
        kept.add_owner("a", [1; 32]).unwrap();
        let whole = fs::read_to_string(&kept.owners).unwrap();
        fs::write(&kept.owners, format!("{whole}{{\"id\":")).unwrap();
        let kept = Kept::open(&Home::new(folder.path())).unwrap();
        kept.add_owner("b", [2; 32]).unwrap();
        assert_eq!(kept.owners().unwrap().len(), 2);
        fs::write(&kept.owners, format!("nonsense\n{whole}")).unwrap();
        let refusal = kept.owners().unwrap_err().to_string();
        assert!(refusal.contains("line 1"), "{refusal}");
    }
}
