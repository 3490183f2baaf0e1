//! CometBFT's record of what a validator signed last.

use prost::Message;
use serde_json::Value;
use tendermint::block::{Height, Id, Round, parts};
use tendermint::consensus::State;
use tendermint::hash::{Algorithm, Hash};
use tendermint_proto::v0_38::types::{CanonicalBlockId, CanonicalProposal, CanonicalVote};

/// CometBFT's number of the step in which a proposal is signed; those of the two votes follow.
const PROPOSE: i64 = 1;

/// Reads `priv_validator_state.json`: height, round, step (0 a proposal, 1 and 2 the votes) and block
/// of what was signed last. `None` when nothing was signed yet, or the file is none of CometBFT's.
pub(super) fn read(file: &[u8]) -> Option<State> {
    let record: Value = serde_json::from_slice(file).ok()?;
    let height: u64 = record["height"].as_str()?.parse().ok()?;
    let step = record["step"].as_i64()?;
    if height == 0 {
        return Some(nothing());
    }
    let signed = hex::decode(record["signbytes"].as_str()?).ok()?;
    let block = match step {
        PROPOSE => {
            CanonicalProposal::decode_length_delimited(&*signed)
                .ok()?
                .block_id
        }
        _ => {
            CanonicalVote::decode_length_delimited(&*signed)
                .ok()?
                .block_id
        }
    };
    Some(State {
        height: Height::try_from(height).ok()?,
        round: Round::try_from(u32::try_from(record["round"].as_u64()?).ok()?).ok()?,
        step: i8::try_from(step - PROPOSE)
            .ok()
            .filter(|step| *step >= 0)?,
        block_id: match block {
            Some(block) => Some(id(block)?),
            None => None,
        },
    })
}

/// What a validator that never signed starts from.
pub(super) fn nothing() -> State {
    State {
        height: Height::from(0u32),
        ..State::default()
    }
}

fn id(block: CanonicalBlockId) -> Option<Id> {
    let parts = block.part_set_header?;
    let hash = |bytes: &[u8]| Hash::from_bytes(Algorithm::Sha256, bytes).ok();
    Some(Id {
        hash: hash(&block.hash)?,
        part_set_header: parts::Header::new(parts.total, hash(&parts.hash)?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tendermint_proto::v0_38::types::{CanonicalPartSetHeader, SignedMsgType};

    fn block() -> CanonicalBlockId {
        CanonicalBlockId {
            hash: vec![7; 32],
            part_set_header: Some(CanonicalPartSetHeader {
                total: 2,
                hash: vec![9; 32],
            }),
        }
    }

    fn record(step: u8, signed: &[u8]) -> Vec<u8> {
        let signed = hex::encode_upper(signed);
        format!(r#"{{"height": "12", "round": 3, "step": {step}, "signature": "AA==", "signbytes": "{signed}"}}"#)
            .into_bytes()
    }

    #[test]
    fn the_block_of_the_last_vote_or_proposal_is_read() {
        let vote = |block_id| CanonicalVote {
            r#type: SignedMsgType::Prevote.into(),
            height: 12,
            round: 3,
            block_id,
            chain_id: "a".into(),
            ..CanonicalVote::default()
        };
        let proposal = CanonicalProposal {
            r#type: SignedMsgType::Proposal.into(),
            height: 12,
            round: 3,
            block_id: Some(block()),
            ..CanonicalProposal::default()
        };
        let proposed = read(&record(1, &proposal.encode_length_delimited_to_vec())).unwrap();
        let voted = vote(Some(block())).encode_length_delimited_to_vec();
        let voted = read(&record(2, &voted)).unwrap();
        let nil = read(&record(3, &vote(None).encode_length_delimited_to_vec())).unwrap();
        assert_eq!(proposed.block_id, id(block()));
        assert_eq!(voted.block_id, id(block()));
        assert_eq!(nil.block_id, None);
        assert_eq!([proposed.step, voted.step, nil.step], [0, 1, 2]);
        assert_eq!((nil.height.value(), nil.round.value()), (12, 3));
    }

    #[test]
    fn what_is_no_record_is_not_taken_for_nothing_signed() {
        let empty = br#"{"height": "0", "round": 0, "step": 0}"#;
        assert_eq!(read(empty), Some(nothing()));
        assert_eq!(read(b"signed up to 7"), None);
        assert_eq!(read(&record(2, b"no vote")), None);
        assert_eq!(read(&record(0, b"")), None);
    }
}
