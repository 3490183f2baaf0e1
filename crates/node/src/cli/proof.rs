//! `r3mes verify block`, `balance` and `participants`: what the network's validators signed, checked
//! here against a header that is trusted, from a node or from a file.

mod told;

use std::{path::Path, sync::Arc};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use r3mes_consensus::block;
use r3mes_gateway::rpc::{
    self,
    light::{Answered, LightBlock, LightClient, ProvedAnswer, Settings, verify_now},
};
use r3mes_ledger::genesis::Genesis;
use r3mes_types::{
    Address,
    bank::{Balance, QueryBalance},
    nodes::{Node, Nodes, QueryNodes},
    query::{MAX_PAGE_KEY, PageRequest, Query},
    wire::{Blob, Wire},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::told::{Participant, Validator, Verified, What, text};
use super::{args::FromNode, output::Output};
use crate::{
    config::{Config, Light, TrustedHeader},
    genesis,
    home::Home,
};

/// What a proof file says it is.
const FORMAT: &str = "r3mes-proof-2";
/// Most bytes of a proof file.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// A proof as a file has it: everything in it is covered by a hash or a signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofFile {
    format: String,
    /// The header that was trusted when the file was written, if one was named and it came before.
    #[serde(skip_serializing_if = "Option::is_none")]
    trusted: Option<LightBlock>,
    /// The header that everything else hangs on, with commit and validators.
    block: LightBlock,
    claim: Claim,
}

/// What a file proves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Claim {
    /// The transactions of the block, in base64.
    Block { transactions: Vec<String> },
    /// What an account has.
    Balance(ProvedAnswer),
    /// Who takes part: pages of one state, each of as many nodes but the last.
    Participants {
        page_size: u32,
        pages: Vec<ProvedAnswer>,
    },
}

/// What is asked for.
pub(super) enum Asked {
    Block(Option<u64>),
    Balance(Address),
    /// With so many nodes asked for at a time.
    Participants(u32),
}

/// Verifies, from a node or from a file.
pub(super) fn run(
    home: &Home,
    config: &Config,
    asked: &Asked,
    typed: &FromNode,
    out: &Output,
) -> anyhow::Result<()> {
    let trust = trust(home, config, typed)?;
    let file = match &typed.file {
        Some(path) => read(path)?,
        None => super::runtime()?.block_on(fetch(config, typed, &trust, asked))?,
    };
    let verified = match &typed.file {
        Some(path) => check_header(&file, &trust)
            .and_then(|()| check(&file, asked))
            .with_context(|| format!("{} does not prove what it says", path.display())),
        // The light client checked the header.
        None => check(&file, asked).context("the node's answer does not hold"),
    }?;
    if let Some(path) = &typed.save {
        std::fs::write(path, serde_json::to_vec_pretty(&file)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    out.show(&verified, || text(&verified))
}

/// What is trusted: as typed, else as configured; and the genesis that goes with it.
struct Trust {
    settings: Settings,
    header: Option<TrustedHeader>,
    genesis: Option<Genesis>,
    /// A header that this home verified before.
    saved: Option<LightBlock>,
}

fn trust(home: &Home, config: &Config, typed: &FromNode) -> anyhow::Result<Trust> {
    let genesis = match home.genesis_file().is_file() {
        true => Some(genesis::read(home)?),
        false => None,
    };
    let params = genesis.as_ref().map(|genesis| &genesis.params);
    let configured = match (&config.network.light, params) {
        (Some(light), _) => light.clone(),
        (None, Some(params)) => Light {
            trusting_hours: Light::hours_for(params),
            ..Light::default()
        },
        (None, None) => Light::default(),
    };
    if let Some(params) = params {
        configured.refuse_long_trust(params)?;
    }
    let header = typed.trust.clone().or_else(|| configured.trust.clone());
    let light = Light {
        trust: header.clone(),
        max_header_age_s: None,
        ..configured
    };
    // What this home verified before is not for a header that is named now.
    let kept = typed.trust.is_none().then(|| home.light());
    let settings = light.settings(kept)?;
    anyhow::ensure!(
        header.is_some() || genesis.is_some(),
        "there is nothing to trust here: give a header that you trust with --trust HEIGHT:HASH, or use a home of the network with --home"
    );
    Ok(Trust {
        saved: genesis.as_ref().and_then(|genesis| settings.kept(genesis)),
        settings,
        header,
        genesis,
    })
}

/// Takes from a node what is asked for, with its proofs.
async fn fetch(
    config: &Config,
    typed: &FromNode,
    trust: &Trust,
    asked: &Asked,
) -> anyhow::Result<ProofFile> {
    let url = typed.chain.as_ref().unwrap_or(&config.network.rpc);
    let client = rpc::Client::new(url)?;
    let genesis = match &trust.genesis {
        Some(genesis) => genesis.clone(),
        // Only its name is used: trust begins with a header.
        None => Genesis::decode(&client.genesis().await?)
            .with_context(|| format!("{url} did not send a genesis"))?,
    };
    let light = Arc::new(LightClient::new(genesis, trust.settings.clone())?);
    let (block, claim) = match asked {
        Asked::Block(height) => {
            let block = light.block(&client, *height).await?;
            let at = json!({"height": block.height().to_string()});
            let sent = client.raw("block", at).await?;
            let transactions = sent["block"]["data"]["txs"].as_array();
            let text = |tx: &Value| tx.as_str().unwrap_or_default().to_owned();
            let transactions = transactions.map(|txs| txs.iter().map(text).collect());
            let claim = Claim::Block {
                transactions: transactions.unwrap_or_default(),
            };
            (block, claim)
        }
        Asked::Balance(address) => {
            let question = QueryBalance { address: *address };
            let (block, answer) = proved(&light, &client, &question, None).await?;
            (block, Claim::Balance(answer))
        }
        Asked::Participants(page_size) => participants(&light, &client, *page_size).await?,
    };
    let before = trust.header.as_ref().map(|header| header.height);
    let trusted = match before.filter(|height| *height < block.height()) {
        Some(height) => Some(light.block(&client, Some(height)).await?),
        None => None,
    };
    Ok(ProofFile {
        format: FORMAT.to_owned(),
        trusted,
        block,
        claim,
    })
}

/// All pages of the nodes, of the newest state that can be proved.
async fn participants(
    light: &LightClient,
    client: &rpc::Client,
    page_size: u32,
) -> anyhow::Result<(LightBlock, Claim)> {
    let (block, first) =
        proved(light, client, &page_after(Blob::default(), page_size), None).await?;
    let height = first.height;
    let mut next = answered::<QueryNodes>(&block, &first)?.next;
    let mut pages = vec![first];
    while !next.is_empty() {
        let question = page_after(next, page_size);
        let (block, page) = proved(light, client, &question, Some(height)).await?;
        // A page goes on after the one before, so they come to an end.
        next = answered::<QueryNodes>(&block, &page)?.next;
        pages.push(page);
    }
    Ok((block, Claim::Participants { page_size, pages }))
}

/// The question for the page of nodes that goes on where another ended.
fn page_after(after: Blob<MAX_PAGE_KEY>, limit: u32) -> QueryNodes {
    QueryNodes {
        role: None,
        page: Some(PageRequest { after, limit }),
    }
}

async fn proved<Q: Query>(
    light: &LightClient,
    client: &rpc::Client,
    question: &Q,
    height: Option<u64>,
) -> anyhow::Result<(LightBlock, ProvedAnswer)> {
    let question = question.encode();
    let asked = light.ask_with_proof(client, Q::PATH, &question, height);
    let (block, answer, _) = asked.await?;
    Ok((block, answer))
}

fn read(path: &Path) -> anyhow::Result<ProofFile> {
    use std::io::Read;
    let shown = path.display();
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .with_context(|| format!("cannot read {shown}"))?
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {shown}"))?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{shown} is no proof written by `r3mes verify --save`"))
}

/// Checks what a verified header proves.
fn check(file: &ProofFile, asked: &Asked) -> anyhow::Result<Verified> {
    let what = match (&file.claim, asked) {
        (Claim::Block { transactions }, Asked::Block(height)) => {
            if let Some(height) = height {
                let found = file.block.height();
                anyhow::ensure!(
                    found == *height,
                    "it is about block {found}, not block {height}"
                );
            }
            check_block(&file.block, transactions)?
        }
        (Claim::Balance(answer), Asked::Balance(address)) => {
            check_balance(&file.block, answer, address)?
        }
        (Claim::Participants { page_size, pages }, Asked::Participants(_)) => {
            check_participants(&file.block, *page_size, pages)?
        }
        (claim, _) => anyhow::bail!(
            "it is about {}: use the command for that",
            match claim {
                Claim::Block { .. } => "a block",
                Claim::Balance(_) => "a balance",
                Claim::Participants { .. } => "the participants",
            }
        ),
    };
    let header = &file.block.signed.header;
    let (signed_power, total_power) = file.block.power();
    let validators = file.block.validators.validators().iter();
    Ok(Verified {
        chain_id: header.chain_id.to_string(),
        height: file.block.height(),
        hash: file.block.hash().to_string(),
        time: header.time.to_rfc3339(),
        app_hash: hex::encode_upper(header.app_hash.as_bytes()),
        signed_power,
        total_power,
        validators: validators
            .map(|info| Validator {
                address: info.address.to_string(),
                power: info.power(),
            })
            .collect(),
        what,
    })
}

/// Checks the header against what is trusted, by nothing but the file.
fn check_header(file: &ProofFile, trust: &Trust) -> anyhow::Result<()> {
    anyhow::ensure!(
        file.format == FORMAT,
        "its format is {:?}, and this program reads {FORMAT:?}",
        file.format
    );
    let block = &file.block;
    block.check()?;
    if let Some(genesis) = &trust.genesis {
        let (got, ours) = (block.signed.header.chain_id.as_str(), &*genesis.chain_id);
        anyhow::ensure!(
            got == ours,
            "it is of chain {got:?}, and this home is of {ours:?}"
        );
    }
    if let Some(header) = &trust.header {
        let in_file = [Some(block), file.trusted.as_ref()].into_iter().flatten();
        let mut in_file = in_file.filter(|held| held.height() == header.height);
        if let Some(held) = in_file.next() {
            let found = held.hash().to_string();
            anyhow::ensure!(
                found.eq_ignore_ascii_case(&header.hash),
                "block {} has the hash {found}, and {} is trusted",
                header.height,
                header.hash
            );
            held.check()?;
            return match held.height() == block.height() {
                true => Ok(()),
                false => step(&held.trusted(), block, &trust.settings),
            };
        }
    }
    if let Some(saved) = &trust.saved {
        if saved.height() == block.height() {
            anyhow::ensure!(
                saved.hash() == block.hash(),
                "block {} has the hash {}, and {} was verified here before",
                block.height(),
                block.hash(),
                saved.hash()
            );
            return Ok(());
        }
        if saved.height() < block.height() {
            return step(&saved.trusted(), block, &trust.settings);
        }
    }
    let genesis = trust.genesis.as_ref().filter(|_| trust.header.is_none());
    let genesis = genesis.with_context(|| {
        format!(
            "the file has block {}, and the trusted header is another: give the hash of block {0} from a source that you trust, with --trust",
            block.height()
        )
    })?;
    let light = LightClient::new(genesis.clone(), trust.settings.clone())?;
    step(&light.before_first()?, block, &trust.settings)
}

fn step(
    trusted: &rpc::light::Trusted,
    block: &LightBlock,
    settings: &Settings,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        verify_now(trusted, block, &settings.options)?,
        "the validators have changed too much between block {} and block {}: give the hash of block {1} from a source that you trust, with --trust",
        trusted.height,
        block.height()
    );
    Ok(())
}

fn check_block(block: &LightBlock, transactions: &[String]) -> anyhow::Result<What> {
    let decoded: Result<Vec<_>, _> = transactions.iter().map(|tx| STANDARD.decode(tx)).collect();
    let decoded = decoded.context("a transaction is not base64")?;
    let found = block::data_hash(&decoded);
    let named = block.signed.header.data_hash.unwrap_or_default();
    anyhow::ensure!(
        found == named,
        "the transactions of block {} hash to {found}, and its header names {named}",
        block.height()
    );
    let hashes = decoded.iter().map(|tx| block::tx_hash(tx));
    Ok(What::Block {
        transactions: hashes.map(hex::encode_upper).collect(),
    })
}

fn check_balance(
    block: &LightBlock,
    answer: &ProvedAnswer,
    address: &Address,
) -> anyhow::Result<What> {
    let question = QueryBalance { address: *address };
    answers(answer, &question)?;
    let balance: Balance = answered::<QueryBalance>(block, answer)?;
    Ok(What::Balance {
        address: address.to_string(),
        uremes: balance.amount.uremes(),
        state_height: answer.height,
    })
}

/// Checks every page, and that they are all of one state, without a gap.
fn check_participants(
    block: &LightBlock,
    page_size: u32,
    pages: &[ProvedAnswer],
) -> anyhow::Result<What> {
    let mut nodes = Vec::new();
    let mut next = Blob::default();
    for (index, page) in pages.iter().enumerate() {
        anyhow::ensure!(
            index == 0 || !next.is_empty(),
            "page {index} is the last one, and another follows"
        );
        answers(page, &page_after(next, page_size))?;
        let found: Nodes = answered::<QueryNodes>(block, page)?;
        nodes.extend(found.nodes.iter().map(participant));
        next = found.next;
    }
    anyhow::ensure!(
        !pages.is_empty() && next.is_empty(),
        "the nodes break off after {} pages, and more follow",
        pages.len()
    );
    Ok(What::Participants {
        nodes,
        state_height: block.height().saturating_sub(1),
    })
}

fn participant(node: &Node) -> Participant {
    let roles = node.spec.roles.iter();
    Participant {
        address: node.address.to_string(),
        moniker: node.spec.moniker.to_string(),
        roles: roles.map(|role| role.to_string()).collect(),
        status: node.status.to_string(),
        bonded_uremes: node.bonded.uremes(),
    }
}

/// Refuses an answer to another question.
fn answers<Q: Query>(answer: &ProvedAnswer, question: &Q) -> anyhow::Result<()> {
    let asked = hex::encode(question.encode());
    anyhow::ensure!(
        answer.path == Q::PATH && answer.question == asked,
        "it answers another question ({} {}, asked is {} {asked})",
        answer.path,
        answer.question,
        Q::PATH
    );
    Ok(())
}

/// The answer, as the header's app hash proves it.
fn answered<Q: Query>(block: &LightBlock, answer: &ProvedAnswer) -> anyhow::Result<Q::Answer> {
    anyhow::ensure!(
        answer.height + 1 == block.height(),
        "the state of height {} is proved by header {}, and this is header {}",
        answer.height,
        answer.height + 1,
        block.height()
    );
    let app_hash = block.app_hash().context("the header has no app hash")?;
    match answer.verify(&app_hash)? {
        Answered::Value(value) => Ok(Q::Answer::decode(&value)?),
        Answered::Refused { log, .. } => anyhow::bail!("the ledger refuses the question: {log}"),
    }
}
