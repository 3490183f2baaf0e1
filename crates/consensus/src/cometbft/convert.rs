//! Between ABCI's messages and what the application speaks of.

use prost::Message;
use r3mes_state::CommitmentProof;
use r3mes_types::{ConsensusAddress, Time};
use tendermint_proto::google::protobuf::Timestamp;
use tendermint_proto::v0_38::abci::{
    CommitInfo, Misbehavior, RequestFinalizeBlock, RequestProcessProposal, RequestQuery,
    ResponseCheckTx, ResponseQuery, Validator,
};
use tendermint_proto::v0_38::crypto::{ProofOp, ProofOps};
use tendermint_proto::v0_38::types::BlockIdFlag;

use crate::application::{BlockInput, CommitVote, Misbehaviour, Query, QueryResult, TxResult};
use crate::block::gas;
use crate::cometbft::PROOF_TYPE;

/// CometBFT sent what it never sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CometBFT sent {0}: run the version that tools/programs builds")]
pub struct Malformed(pub(super) &'static str);

/// A decided block.
pub(super) fn decided(request: RequestFinalizeBlock) -> Result<BlockInput, Malformed> {
    block(
        request.height,
        request.time,
        &request.proposer_address,
        request.decided_last_commit,
        &request.misbehavior,
        request.txs,
    )
}

/// A block that somebody proposed.
pub(super) fn proposed(request: RequestProcessProposal) -> Result<BlockInput, Malformed> {
    block(
        request.height,
        request.time,
        &request.proposer_address,
        request.proposed_last_commit,
        &request.misbehavior,
        request.txs,
    )
}

fn block(
    at: i64,
    when: Option<Timestamp>,
    proposer: &[u8],
    last_commit: Option<CommitInfo>,
    misbehaviour: &[Misbehavior],
    txs: Vec<prost::bytes::Bytes>,
) -> Result<BlockInput, Malformed> {
    let votes = last_commit.unwrap_or_default().votes;
    let vote = |vote: &tendermint_proto::v0_38::abci::VoteInfo| {
        let (validator, power) = signer(vote.validator.as_ref())?;
        let signed = vote.block_id_flag == BlockIdFlag::Commit as i32;
        Ok(CommitVote {
            validator,
            power,
            signed,
        })
    };
    Ok(BlockInput {
        height: height(at)?,
        time: time(when)?,
        proposer: address(proposer)?,
        last_commit: votes.iter().map(vote).collect::<Result<_, _>>()?,
        misbehaviour: misbehaviour.iter().map(offence).collect::<Result<_, _>>()?,
        txs: txs.into_iter().map(Vec::from).collect(),
    })
}

fn offence(offence: &Misbehavior) -> Result<Misbehaviour, Malformed> {
    let (validator, power) = signer(offence.validator.as_ref())?;
    Ok(Misbehaviour {
        validator,
        power,
        height: height(offence.height)?,
        time: time(offence.time)?,
    })
}

fn signer(validator: Option<&Validator>) -> Result<(ConsensusAddress, u64), Malformed> {
    let validator = validator.ok_or(Malformed("a vote of nobody"))?;
    let power = u64::try_from(validator.power).map_err(|_| Malformed("a negative power"))?;
    Ok((address(&validator.address)?, power))
}

/// How CometBFT names a validator.
pub(super) fn address(bytes: &[u8]) -> Result<ConsensusAddress, Malformed> {
    let bytes: [u8; 20] = bytes
        .try_into()
        .map_err(|_| Malformed("an address that has not 20 bytes"))?;
    Ok(bytes.into())
}

/// The height of a block.
pub(super) fn height(height: i64) -> Result<u64, Malformed> {
    u64::try_from(height).map_err(|_| Malformed("a negative height"))
}

/// A block's time.
pub(super) fn time(time: Option<Timestamp>) -> Result<Time, Malformed> {
    let time = time.ok_or(Malformed("a block without a time"))?;
    let nanos = u64::try_from(time.seconds)
        .ok()
        .zip(u64::try_from(time.nanos).ok())
        .and_then(|(seconds, nanos)| seconds.checked_mul(1_000_000_000)?.checked_add(nanos));
    nanos
        .map(Time::from_nanos)
        .ok_or(Malformed("a time before 1970 or after 2554"))
}

/// A read of committed state; height 0 stands for the newest. `None` if it is below zero.
pub(super) fn query(request: RequestQuery) -> Option<Query> {
    let at = height(request.height).ok()?;
    Some(Query {
        path: request.path,
        data: request.data.into(),
        height: (at > 0).then_some(at),
        prove: request.prove,
    })
}

/// What was read.
pub(super) fn answer(result: QueryResult) -> ResponseQuery {
    let operation = |(key, proof): (Vec<u8>, CommitmentProof)| ProofOp {
        r#type: PROOF_TYPE.into(),
        key,
        data: proof.encode_to_vec(),
    };
    let ops: Vec<ProofOp> = result.proofs.into_iter().map(operation).collect();
    let proof_ops = (!ops.is_empty()).then_some(ProofOps { ops });
    ResponseQuery {
        code: result.code,
        log: result.log,
        key: result.key.into(),
        value: result.value.into(),
        proof_ops,
        height: gas(result.height),
        codespace: result.codespace,
        ..ResponseQuery::default()
    }
}

/// Whether a transaction may wait.
pub(super) fn checked(result: TxResult) -> ResponseCheckTx {
    ResponseCheckTx {
        code: result.code,
        data: result.data.into(),
        log: result.log,
        gas_wanted: gas(result.gas_wanted),
        gas_used: gas(result.gas_used),
        codespace: result.codespace,
        ..ResponseCheckTx::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RequestFinalizeBlock {
        let validator = |number: u8, power| {
            Some(Validator {
                address: vec![number; 20].into(),
                power,
            })
        };
        let vote = |number, power, flag| tendermint_proto::v0_38::abci::VoteInfo {
            validator: validator(number, power),
            block_id_flag: flag,
        };
        let at = Some(Timestamp {
            seconds: 2,
            nanos: 3,
        });
        RequestFinalizeBlock {
            txs: vec![vec![1].into(), vec![].into()],
            decided_last_commit: Some(CommitInfo {
                round: 1,
                votes: vec![vote(1, 10, 1), vote(2, 20, 2), vote(3, 30, 3)],
            }),
            misbehavior: vec![Misbehavior {
                r#type: 1,
                validator: validator(2, 20),
                height: 5,
                time: at,
                total_voting_power: 60,
            }],
            height: 7,
            time: at,
            proposer_address: vec![3; 20].into(),
            ..RequestFinalizeBlock::default()
        }
    }

    #[test]
    fn a_block_becomes_an_input_with_votes_and_misbehaviour() {
        let vote = |number, power, signed| CommitVote {
            validator: [number; 20].into(),
            power,
            signed,
        };
        let time = Time::from_nanos(2_000_000_003);
        let expected = BlockInput {
            height: 7,
            time,
            proposer: [3; 20].into(),
            last_commit: vec![vote(1, 10, false), vote(2, 20, true), vote(3, 30, false)],
            misbehaviour: vec![Misbehaviour {
                validator: [2; 20].into(),
                power: 20,
                height: 5,
                time,
            }],
            txs: vec![vec![1], vec![]],
        };
        assert_eq!(decided(request()), Ok(expected));
    }

    #[test]
    fn what_cometbft_never_sends_is_refused() {
        let broken: [fn(&mut RequestFinalizeBlock); 6] = [
            |request| request.height = -1,
            |request| request.time = None,
            |request| {
                request.time = Some(Timestamp {
                    seconds: -1,
                    nanos: 0,
                })
            },
            |request| request.proposer_address = vec![0; 19].into(),
            |request| request.misbehavior[0].validator = None,
            |request| request.misbehavior[0].height = -1,
        ];
        for (i, break_it) in broken.into_iter().enumerate() {
            let mut request = request();
            break_it(&mut request);
            assert!(decided(request).is_err(), "{i}");
        }
    }
}
