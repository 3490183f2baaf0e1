//! Follows a chain by its headers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use r3mes_consensus::block::to_tendermint_time;
use r3mes_ledger::Genesis;
use r3mes_ledger::genesis::GenesisValidator;
use r3mes_types::auth::QueryAccount;
use r3mes_types::query::Query;
use tendermint::{Hash, PublicKey, Time, chain, validator};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::ask::{fetch, proved_answer};
use super::block::{self, LightBlock, Trusted, verify, verify_link};
use super::error::LightError;
use super::proved::{self, Answered, ProvedAnswer};
use super::settings::{Kept, Root, Settings};
use crate::rpc::client::Client;

/// Verified app hashes that are remembered.
const REMEMBERED: usize = 512;
/// Most blocks that are walked back from a trusted one to an older one.
const MAX_WALK: u64 = 2000;
/// How long the node is asked to wait at a time.
const LONG_POLL: Duration = Duration::from_secs(5);
/// How often what was verified is written down at most.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// Follows a chain from what is trusted, and checks answers against it. Share it by `Arc`.
#[derive(Debug)]
pub struct LightClient {
    chain_id: chain::Id,
    genesis: Genesis,
    genesis_state: BTreeMap<Vec<u8>, Vec<u8>>,
    settings: Settings,
    verified: Mutex<Verified>,
    /// State that this process has seen its own transaction in: answers are not older.
    seen: AtomicU64,
    /// Whether the first answer was waited for.
    waited: AtomicBool,
}

/// What was verified so far.
#[derive(Debug, Default)]
struct Verified {
    newest: Option<Trusted>,
    block: Option<LightBlock>,
    app_hashes: BTreeMap<u64, [u8; 32]>,
    saved: Option<Instant>,
}

impl LightClient {
    /// A light client of the network that begins with `genesis`.
    ///
    /// # Errors
    /// [`LightError::Genesis`] if that is none.
    pub fn new(genesis: Genesis, settings: Settings) -> Result<Self, LightError> {
        let refused = |why: String| LightError::Genesis { why };
        let chain_id = chain::Id::try_from(genesis.chain_id.to_string());
        let chain_id = chain_id.map_err(|error| refused(error.to_string()))?;
        let (changes, _) = r3mes_ledger::Ledger::init_chain(&genesis)
            .map_err(|fault| refused(fault.to_string()))?;
        let there = changes.into_iter();
        let genesis_state = there
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        let first_wait = settings.first_wait;
        let kept = settings.kept(&genesis);
        let verified = Verified {
            newest: kept.as_ref().map(LightBlock::trusted),
            block: kept,
            ..Verified::default()
        };
        Ok(Self {
            chain_id,
            genesis,
            genesis_state,
            settings,
            verified: Mutex::new(verified),
            seen: AtomicU64::new(0),
            waited: AtomicBool::new(first_wait.is_zero()),
        })
    }

    /// The chain.
    pub fn chain_id(&self) -> &str {
        self.chain_id.as_str()
    }

    /// Whether answers to a question are checked. The sequence of an account is not: it has to be the
    /// newest, and a false one only makes the network refuse a transaction.
    pub fn checks(path: &str) -> bool {
        path != QueryAccount::PATH
    }

    /// Takes note of a block that this process has a transaction in: what is asked from now on is about
    /// its state or a later one.
    pub(in crate::rpc) fn has_seen(&self, height: u64) {
        self.seen.fetch_max(height, Ordering::Relaxed);
    }

    /// Asks about the newest state that can be proved, or the state after the block at `height`.
    ///
    /// # Errors
    /// [`LightError`] names what is false, or that the node does not answer.
    pub async fn ask(
        &self,
        client: &Client,
        path: &str,
        question: &[u8],
        height: Option<u64>,
    ) -> Result<Answered, LightError> {
        let height = match height {
            Some(height) => height,
            None => self.newest_state(client).await?,
        };
        if height < self.first() {
            return match self.settings.root {
                Root::Genesis => proved::ask(&self.genesis_state, path, question),
                // No signature says that this genesis is that of the trusted header.
                Root::Header { .. } => Err(LightError::NoHeader {
                    height: self.first(),
                }),
            };
        }
        let (app_hash, answer) = tokio::try_join!(
            self.app_hash_after(client, height),
            proved_answer(client, path, question, height),
        )?;
        answer.verify(&app_hash)
    }

    /// As [`LightClient::ask`], with what the answer was checked by.
    ///
    /// # Errors
    /// As [`LightClient::ask`]; also when the network has too few blocks for a proof.
    pub async fn ask_with_proof(
        &self,
        client: &Client,
        path: &str,
        question: &[u8],
        height: Option<u64>,
    ) -> Result<(LightBlock, ProvedAnswer, Answered), LightError> {
        let height = match height {
            Some(height) => height,
            None => self.newest_state(client).await?,
        };
        if height < self.first() {
            return Err(LightError::NoHeader { height: height + 2 });
        }
        let block = self.header(client, height + 1).await?;
        let answer = proved_answer(client, path, question, height).await?;
        let app_hash = block.app_hash().ok_or_else(|| no_app_hash(&block))?;
        let found = answer.verify(&app_hash)?;
        Ok((block, answer, found))
    }

    /// A verified block of a height, or the newest.
    ///
    /// # Errors
    /// As [`LightClient::ask`].
    pub async fn block(
        &self,
        client: &Client,
        height: Option<u64>,
    ) -> Result<LightBlock, LightError> {
        let height = match height {
            Some(height) => height,
            None => self.newest_height(client).await?,
        };
        self.header(client, height).await
    }

    fn first(&self) -> u64 {
        self.genesis.initial_height()
    }

    /// The newest state whose root is in a header, but none from before a transaction of this process.
    async fn newest_state(&self, client: &Client) -> Result<u64, LightError> {
        if !self.waited.swap(true, Ordering::Relaxed) {
            let newest = self.newest_height(client).await?;
            if newest >= self.first() {
                client
                    .wait_height_for(newest, self.settings.first_wait)
                    .await?;
            }
        }
        let until = Instant::now() + self.settings.patience;
        let seen = self.seen.load(Ordering::Relaxed);
        loop {
            let newest = self.newest_height(client).await?;
            if newest > seen || seen == 0 {
                return Ok(newest.saturating_sub(1));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Nothing shows that there is such a block. One false word must not last.
                let forget = (Ordering::Relaxed, Ordering::Relaxed);
                // A later transaction stays.
                let _ = self.seen.compare_exchange(seen, 0, forget.0, forget.1);
                let height = seen.saturating_add(1);
                return Err(LightError::NoHeader { height });
            }
            client.wait_height_for(newest, left.min(LONG_POLL)).await?;
        }
    }

    /// The newest height that the node shows, which is none before what was verified.
    async fn newest_height(&self, client: &Client) -> Result<u64, LightError> {
        let newest = client.status().await?.height;
        let verified = {
            let verified = self.verified.lock().await;
            let newest = verified.newest.as_ref().map(|trusted| trusted.height);
            newest.unwrap_or(self.settings.root.height())
        };
        match newest {
            // A node that was started again may be a block behind for a moment, and says so.
            _ if newest < verified => Err(LightError::Behind { newest, verified }),
            _ if newest < self.first() => Ok(newest),
            _ => {
                if let Some(allowed) = self.settings.max_age {
                    let block = self.header(client, newest).await?;
                    let age = Time::now().duration_since(block.signed.header.time);
                    let age = age.unwrap_or_default();
                    if age > allowed {
                        return Err(LightError::Stale {
                            height: newest,
                            age,
                            allowed,
                        });
                    }
                }
                Ok(newest)
            }
        }
    }

    async fn app_hash_after(&self, client: &Client, height: u64) -> Result<[u8; 32], LightError> {
        // No chain is so long that its last block has none after it.
        let height = height.saturating_add(1);
        if let Some(known) = self.verified.lock().await.app_hashes.get(&height) {
            return Ok(*known);
        }
        let block = self.header(client, height).await?;
        block.app_hash().ok_or_else(|| no_app_hash(&block))
    }

    /// The block at `height`, verified.
    async fn header(&self, client: &Client, height: u64) -> Result<LightBlock, LightError> {
        let first = self.first();
        if height < first {
            return Err(LightError::BeforeFirst { height, first });
        }
        let mut verified = self.verified.lock().await;
        let trusted = match &verified.newest {
            Some(trusted) => trusted.clone(),
            None => self.begin(client, &mut verified).await?,
        };
        let block = match height.cmp(&trusted.height) {
            std::cmp::Ordering::Greater => {
                self.forward(client, &mut verified, trusted, height).await?
            }
            std::cmp::Ordering::Equal => {
                let block = fetch(client, height).await?;
                block.check()?;
                expect(&block, trusted.hash)?;
                block
            }
            std::cmp::Ordering::Less => self.back(client, &verified, &trusted, height).await?,
        };
        verified.remember(&block);
        Ok(block)
    }

    /// What trust begins with.
    async fn begin(&self, client: &Client, verified: &mut Verified) -> Result<Trusted, LightError> {
        match self.settings.root {
            Root::Genesis => self.before_first(),
            Root::Header { height, hash } => {
                let block = fetch(client, height).await?;
                block.check()?;
                expect(&block, Some(Hash::Sha256(hash)))?;
                self.ours(&block)?;
                let trusted = block.trusted();
                verified.newest = Some(trusted.clone());
                verified.block = Some(block);
                Ok(trusted)
            }
        }
    }

    /// The moment before the first block, of which the genesis names the validators.
    ///
    /// # Errors
    /// [`LightError::Genesis`] if it names none that can sign.
    pub fn before_first(&self) -> Result<Trusted, LightError> {
        let info = |ours: &GenesisValidator| {
            let refused = || LightError::Genesis {
                why: format!(
                    "the validator {} has no usable key or power",
                    ours.key.address()
                ),
            };
            let key = PublicKey::from_raw_ed25519(ours.key.as_bytes()).ok_or_else(refused)?;
            let power = ours.power.try_into().map_err(|_| refused())?;
            Ok(validator::Info::new(key, power))
        };
        let infos: Result<Vec<_>, LightError> = self.genesis.validators.iter().map(info).collect();
        let validators = block::validators(infos?).map_err(|error| LightError::Genesis {
            why: error.to_string(),
        })?;
        Ok(Trusted {
            chain_id: self.chain_id.clone(),
            height: self.first() - 1,
            // CometBFT's first block has the time of the genesis itself.
            time: to_tendermint_time(r3mes_types::Time::from_nanos(
                self.genesis.time.nanos().saturating_sub(1),
            )),
            hash: None,
            next_validators: validators,
        })
    }

    /// Skips ahead from what is trusted to `height`, by as many blocks as signatures allow.
    async fn forward(
        &self,
        client: &Client,
        verified: &mut Verified,
        mut trusted: Trusted,
        height: u64,
    ) -> Result<LightBlock, LightError> {
        let mut wanted = vec![fetch(client, height).await?];
        loop {
            let next = wanted.last().expect("the block wanted is taken out last");
            let now = Time::now();
            if verify(&trusted, next, &self.settings.options, now)? {
                let block = wanted.pop().expect("it was there");
                trusted = block.trusted();
                verified.newest = Some(trusted.clone());
                verified.remember(&block);
                verified.block = Some(block.clone());
                if wanted.is_empty() {
                    self.save(verified);
                    return Ok(block);
                }
            } else {
                let middle = trusted.height + (next.height() - trusted.height) / 2;
                wanted.push(fetch(client, middle).await?);
            }
        }
    }

    /// Walks back from the nearest trusted block, from each to the one before that it names.
    async fn back(
        &self,
        client: &Client,
        verified: &Verified,
        trusted: &Trusted,
        height: u64,
    ) -> Result<LightBlock, LightError> {
        // From the beginning of trust, if that is nearer and has not expired.
        if let Root::Genesis = self.settings.root
            && height <= self.first() + MAX_WALK
        {
            let block = fetch(client, height).await?;
            let genesis = self.before_first()?;
            match verify(&genesis, &block, &self.settings.options, Time::now()) {
                Ok(true) => return Ok(block),
                Ok(false) | Err(LightError::Expired { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let distance = trusted.height - height;
        if distance > MAX_WALK {
            return Err(LightError::TooFar {
                height,
                distance,
                most: MAX_WALK,
            });
        }
        let mut after = match &verified.block {
            Some(block) => block.clone(),
            None => fetch(client, trusted.height).await?,
        };
        expect(&after, trusted.hash)?;
        while after.height() > height {
            let before = fetch(client, after.height() - 1).await?;
            verify_link(&before, &after)?;
            after = before;
        }
        Ok(after)
    }

    fn ours(&self, block: &LightBlock) -> Result<(), LightError> {
        let got = &block.signed.header.chain_id;
        if *got != self.chain_id {
            return Err(LightError::Chain {
                height: block.height(),
                got: got.to_string(),
                expected: self.chain_id.to_string(),
            });
        }
        Ok(())
    }

    /// Writes the newest verified block down, now and then. A failure costs only verifying it again.
    fn save(&self, verified: &mut Verified) {
        let recently = verified
            .saved
            .is_some_and(|saved| saved.elapsed() < SAVE_EVERY);
        let (Some(file), Some(block), false) = (&self.settings.file, &verified.block, recently)
        else {
            return;
        };
        verified.saved = Some(Instant::now());
        let new = file.with_extension(format!("{}.new", std::process::id()));
        let kept = Kept {
            root: self.settings.root.name(&self.genesis),
            block: block.clone(),
        };
        let written = serde_json::to_vec(&kept)
            .map_err(std::io::Error::from)
            .and_then(|bytes| std::fs::write(&new, bytes))
            .and_then(|()| std::fs::rename(&new, file));
        if let Err(error) = written {
            tracing::warn!(
                "cannot keep the newest verified header in {}: {error}",
                file.display()
            );
        }
    }
}

impl Verified {
    fn remember(&mut self, block: &LightBlock) {
        if let Some(app_hash) = block.app_hash() {
            self.app_hashes.insert(block.height(), app_hash);
        }
        while self.app_hashes.len() > REMEMBERED {
            self.app_hashes.pop_first();
        }
    }
}

/// Whether a block is the one that is trusted at its height. The moment before the first block has no
/// hash, so that no block is.
fn expect(block: &LightBlock, trusted: Option<Hash>) -> Result<(), LightError> {
    let found = block.hash();
    match trusted {
        Some(trusted) if trusted == found => Ok(()),
        Some(trusted) => Err(LightError::Fork {
            height: block.height(),
            found: found.to_string(),
            trusted: trusted.to_string(),
        }),
        None => Err(LightError::BeforeFirst {
            height: block.height(),
            first: block.height() + 1,
        }),
    }
}

fn no_app_hash(block: &LightBlock) -> LightError {
    LightError::Commit {
        height: block.height(),
        why: "the header has no app hash".to_owned(),
    }
}
