//! Blocks in CometBFT's shape: hashes, headers, and the commit that signs them.

use prost::Message;
use r3mes_types::Time;
use sha2::{Digest, Sha256};
use tendermint::block::{self, Block, Commit, CommitSig, Header, Height, Id, Round, parts};
use tendermint::merkle::simple_hash_from_byte_vectors;
use tendermint::{AppHash, Hash, account, validator, vote};
use tendermint_proto::v0_38 as pb;

use crate::application::{TxHash, TxResult};
use crate::genesis::Genesis;
use crate::key::ValidatorKey;

/// Version of CometBFT's block format.
const BLOCK_VERSION: u64 = 11;
/// Version of the application, in headers and in `abci_info`.
pub(crate) const APP_VERSION: u64 = 1;
/// CometBFT gossips a block in parts of this many bytes; their Merkle root is part of a block's id.
const PART_BYTES: usize = 65_536;
/// Everything in a block that is not transactions: header, a commit of one signature, lengths.
pub(crate) const BLOCK_OVERHEAD_BYTES: usize = 2_048;

/// What the next block stands on.
#[derive(Clone, Debug)]
pub(crate) struct Tip {
    /// Height of the newest block; one below the initial height before the first.
    pub(crate) height: u64,
    /// Its time; the genesis time before the first.
    pub(crate) time: Time,
    /// Its id and the commit that signs it.
    pub(crate) signed: Option<(Id, Commit)>,
    /// The state's root after it.
    pub(crate) app_hash: [u8; 32],
    /// Root of its results.
    pub(crate) results_hash: [u8; 32],
}

/// A block with the signatures on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBlock {
    /// The block.
    pub block: Block,
    /// Its hash and that of its parts.
    pub id: Id,
    /// Size of the encoded block in bytes.
    pub size: usize,
    /// Signatures of more than two thirds of the power over `id`.
    pub commit: Commit,
}

impl SignedBlock {
    /// Height of the block.
    pub fn height(&self) -> u64 {
        self.block.header.height.value()
    }
}

/// Makes the block after `tip` of `txs`, and signs it.
pub(crate) fn build(
    genesis: &Genesis,
    tip: &Tip,
    key: &ValidatorKey,
    time: Time,
    txs: Vec<Vec<u8>>,
) -> SignedBlock {
    let validators = validators(genesis, key);
    let last_commit = tip.signed.as_ref().map(|(_, commit)| commit.clone());
    let header = Header {
        version: block::header::Version {
            block: BLOCK_VERSION,
            app: APP_VERSION,
        },
        chain_id: genesis.chain_id.clone(),
        height: height(tip.height + 1),
        time: to_tendermint_time(time),
        last_block_id: tip.signed.as_ref().map(|(id, _)| *id),
        last_commit_hash: Some(commit_hash(last_commit.as_ref())),
        data_hash: Some(data_hash(&txs)),
        validators_hash: validators.hash(),
        next_validators_hash: validators.hash(),
        consensus_hash: consensus_hash(genesis),
        app_hash: AppHash::try_from(tip.app_hash.to_vec()).expect("any bytes are an app hash"),
        last_results_hash: Some(Hash::Sha256(tip.results_hash)),
        evidence_hash: Some(Hash::Sha256(merkle::<&[u8]>(&[]))),
        proposer_address: account::Id::new(*key.address().as_bytes()),
    };
    let block = Block::new(header, txs, Default::default(), last_commit);
    let bytes = encode(&block);
    let id = block_id(&block, &bytes);
    let commit = sign(genesis, key, &block, id);
    SignedBlock {
        block,
        id,
        size: bytes.len(),
        commit,
    }
}

/// The validators under engine `local`: the one that holds the key.
pub(crate) fn validators(genesis: &Genesis, key: &ValidatorKey) -> validator::Set {
    let power = vote::Power::from(genesis.local_power);
    let info = validator::Info::new(key.tendermint_key(), power);
    validator::Set::new(vec![info.clone()], Some(info))
}

/// The block's bytes as CometBFT writes them. Its first block carries an empty commit.
pub(crate) fn encode(block: &Block) -> Vec<u8> {
    let mut raw = pb::types::Block::from(block.clone());
    raw.last_commit.get_or_insert_with(|| pb::types::Commit {
        block_id: Some(pb::types::BlockId {
            part_set_header: Some(Default::default()),
            ..Default::default()
        }),
        ..Default::default()
    });
    raw.encode_to_vec()
}

/// The id of a block whose bytes are `bytes`.
pub(crate) fn block_id(block: &Block, bytes: &[u8]) -> Id {
    let parts: Vec<&[u8]> = bytes.chunks(PART_BYTES).collect();
    let total = u32::try_from(parts.len()).expect("a block has fewer than 2^32 parts");
    Id {
        hash: block.header.hash(),
        part_set_header: parts::Header::new(total, Hash::Sha256(merkle(&parts)))
            .expect("a block has at least one part"),
    }
}

/// The hash by which CometBFT names a transaction.
pub fn tx_hash(tx: &[u8]) -> TxHash {
    Sha256::digest(tx).into()
}

/// A path from a transaction to a header's data hash, in CometBFT's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxProof {
    /// Hash of the leaf, which holds the transaction's hash.
    pub leaf: [u8; 32],
    /// Hashes beside the path, from the leaf up.
    pub aunts: Vec<[u8; 32]>,
}

/// The proof that `txs[index]` is one of `txs`.
///
/// # Panics
/// When there is no such transaction.
pub fn tx_proof(txs: &[Vec<u8>], index: usize) -> TxProof {
    let leaves: Vec<TxHash> = txs.iter().map(|tx| tx_hash(tx)).collect();
    let mut aunts = Vec::new();
    collect_aunts(&leaves, index, &mut aunts);
    TxProof {
        leaf: merkle(&leaves[index..=index]),
        aunts,
    }
}

fn collect_aunts(leaves: &[TxHash], index: usize, aunts: &mut Vec<[u8; 32]>) {
    if leaves.len() < 2 {
        return;
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    if index < split {
        collect_aunts(left, index, aunts);
        aunts.push(merkle(right));
    } else {
        collect_aunts(right, index - split, aunts);
        aunts.push(merkle(left));
    }
}

/// Root of a block's results, which the next header carries: code, data and gas of each transaction.
pub fn results_hash(results: &[TxResult]) -> [u8; 32] {
    let leaves: Vec<Vec<u8>> = results
        .iter()
        .map(|result| {
            let deterministic = pb::abci::ExecTxResult {
                code: result.code,
                data: result.data.clone().into(),
                gas_wanted: gas(result.gas_wanted),
                gas_used: gas(result.gas_used),
                ..Default::default()
            };
            deterministic.encode_to_vec()
        })
        .collect();
    merkle(&leaves)
}

/// A height, as CometBFT's types have it.
pub(crate) fn height(height: u64) -> Height {
    Height::try_from(height).expect("a chain does not reach 2^63 blocks")
}

/// Gas as protobuf has it.
pub(crate) fn gas(gas: u64) -> i64 {
    i64::try_from(gas).unwrap_or(i64::MAX)
}

/// A time as CometBFT's types have it.
pub fn to_tendermint_time(time: Time) -> tendermint::Time {
    const NANOS: u64 = 1_000_000_000;
    let seconds = i64::try_from(time.nanos() / NANOS).expect("2^64 ns are fewer than 2^63 s");
    let nanos = u32::try_from(time.nanos() % NANOS).expect("below 10^9");
    tendermint::Time::from_unix_timestamp(seconds, nanos).expect("the year is at most 2554")
}

/// A time of a header as ours.
pub(crate) fn from_tendermint_time(time: tendermint::Time) -> Time {
    let nanos = u64::try_from(time.unix_timestamp_nanos()).unwrap_or_default();
    Time::from_nanos(nanos)
}

fn sign(genesis: &Genesis, key: &ValidatorKey, block: &Block, id: Id) -> Commit {
    let address = account::Id::new(*key.address().as_bytes());
    let vote = vote::Vote {
        vote_type: vote::Type::Precommit,
        height: block.header.height,
        round: Round::default(),
        block_id: Some(id),
        timestamp: Some(block.header.time),
        validator_address: address,
        validator_index: 0u32.try_into().expect("zero is an index"),
        signature: None,
        extension: Vec::new(),
        extension_signature: None,
    };
    let signature = key.sign(&vote.into_signable_vec(genesis.chain_id.clone()));
    Commit {
        height: block.header.height,
        round: Round::default(),
        block_id: id,
        signatures: vec![CommitSig::BlockIdFlagCommit {
            validator_address: address,
            timestamp: block.header.time,
            signature: Some(signature),
        }],
    }
}

/// What a header calls its transactions by.
pub fn data_hash(txs: &[Vec<u8>]) -> Hash {
    let hashes: Vec<TxHash> = txs.iter().map(|tx| tx_hash(tx)).collect();
    Hash::Sha256(merkle(&hashes))
}

fn commit_hash(commit: Option<&Commit>) -> Hash {
    let signatures: Vec<Vec<u8>> = commit
        .into_iter()
        .flat_map(|commit| &commit.signatures)
        .map(|signature| pb::types::CommitSig::from(signature.clone()).encode_to_vec())
        .collect();
    Hash::Sha256(merkle(&signatures))
}

fn consensus_hash(genesis: &Genesis) -> Hash {
    let params = pb::types::HashedParams {
        block_max_bytes: i64::try_from(genesis.max_block_bytes).unwrap_or(i64::MAX),
        block_max_gas: genesis.max_block_gas.map_or(-1, gas),
    };
    Hash::Sha256(Sha256::digest(params.encode_to_vec()).into())
}

fn merkle<T: AsRef<[u8]>>(leaves: &[T]) -> [u8; 32] {
    simple_hash_from_byte_vectors::<tendermint::crypto::default::Sha256>(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CometBFT's inner node: `sha256(1 || left || right)`.
    fn inner(left: &[u8], right: &[u8]) -> [u8; 32] {
        Sha256::digest([&[1], left, right].concat()).into()
    }

    #[test]
    fn a_transaction_s_proof_leads_to_the_data_hash() {
        for count in 1..20usize {
            let txs: Vec<Vec<u8>> = (0..count).map(|i| vec![i as u8]).collect();
            for index in 0..count {
                let proof = tx_proof(&txs, index);
                // Walks up as a verifier does, who knows only index and count.
                fn up(proof: &TxProof, index: usize, count: usize, depth: usize) -> [u8; 32] {
                    if count == 1 {
                        return proof.leaf;
                    }
                    let split = count.next_power_of_two() / 2;
                    let aunt = &proof.aunts[depth - 1];
                    if index < split {
                        inner(&up(proof, index, split, depth - 1), aunt)
                    } else {
                        inner(aunt, &up(proof, index - split, count - split, depth - 1))
                    }
                }
                let root = up(&proof, index, count, proof.aunts.len());
                assert_eq!(Hash::Sha256(root), data_hash(&txs));
            }
        }
    }
}
