//! Results of blocks in ABCI's protobuf form, as the block store keeps them.

use prost::Message;
use tendermint_proto::v0_38::abci;
use tendermint_proto::v0_38::crypto::{PublicKey, public_key::Sum};

use crate::application::{BlockOutput, Event, TxResult, ValidatorUpdate};
use crate::block::gas;

/// The bytes of `FinalizeBlock`'s response with what `output` says.
pub(crate) fn encode(output: &BlockOutput) -> Vec<u8> {
    to_abci(output).encode_to_vec()
}

/// `FinalizeBlock`'s response with what `output` says.
pub(crate) fn to_abci(output: &BlockOutput) -> abci::ResponseFinalizeBlock {
    abci::ResponseFinalizeBlock {
        events: output.events.iter().map(to_abci_event).collect(),
        tx_results: output.tx_results.iter().map(to_abci_result).collect(),
        validator_updates: output
            .validator_updates
            .iter()
            .map(to_abci_update)
            .collect(),
        consensus_param_updates: None,
        app_hash: output.app_hash.to_vec().into(),
    }
}

/// What [`encode`] wrote, or `None` if these bytes are not from it.
pub(crate) fn decode(bytes: &[u8]) -> Option<BlockOutput> {
    let raw = abci::ResponseFinalizeBlock::decode(bytes).ok()?;
    let updates = raw.validator_updates.into_iter().map(from_abci_update);
    Some(BlockOutput {
        app_hash: raw.app_hash.as_ref().try_into().ok()?,
        tx_results: raw.tx_results.into_iter().map(from_abci_result).collect(),
        events: raw.events.into_iter().map(from_abci_event).collect(),
        validator_updates: updates.collect::<Option<_>>()?,
    })
}

fn to_abci_event(event: &Event) -> abci::Event {
    let attribute = |(key, value): &(String, String)| abci::EventAttribute {
        key: key.clone(),
        value: value.clone(),
        index: true,
    };
    abci::Event {
        r#type: event.kind.clone(),
        attributes: event.attributes.iter().map(attribute).collect(),
    }
}

fn from_abci_event(event: abci::Event) -> Event {
    let attributes = event.attributes.into_iter();
    Event {
        kind: event.r#type,
        attributes: attributes.map(|a| (a.key, a.value)).collect(),
    }
}

fn to_abci_result(result: &TxResult) -> abci::ExecTxResult {
    abci::ExecTxResult {
        code: result.code,
        data: result.data.clone().into(),
        log: result.log.clone(),
        info: String::new(),
        gas_wanted: gas(result.gas_wanted),
        gas_used: gas(result.gas_used),
        events: result.events.iter().map(to_abci_event).collect(),
        codespace: result.codespace.clone(),
    }
}

fn from_abci_result(result: abci::ExecTxResult) -> TxResult {
    TxResult {
        code: result.code,
        codespace: result.codespace,
        log: result.log,
        data: result.data.to_vec(),
        gas_wanted: u64::try_from(result.gas_wanted).unwrap_or_default(),
        gas_used: u64::try_from(result.gas_used).unwrap_or_default(),
        events: result.events.into_iter().map(from_abci_event).collect(),
    }
}

pub(crate) fn to_abci_update(update: &ValidatorUpdate) -> abci::ValidatorUpdate {
    abci::ValidatorUpdate {
        pub_key: Some(PublicKey {
            sum: Some(Sum::Ed25519(update.key.as_bytes().to_vec())),
        }),
        power: gas(update.power),
    }
}

pub(crate) fn from_abci_update(update: abci::ValidatorUpdate) -> Option<ValidatorUpdate> {
    let Sum::Ed25519(key) = update.pub_key?.sum? else {
        return None;
    };
    let key: [u8; 32] = key.try_into().ok()?;
    Some(ValidatorUpdate {
        key: key.into(),
        power: u64::try_from(update.power).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back_as_they_were() {
        let output = BlockOutput {
            app_hash: [7; 32],
            tx_results: vec![TxResult {
                code: 5,
                codespace: "bank".into(),
                log: "too little".into(),
                data: vec![1, 2],
                gas_wanted: 10,
                gas_used: 9,
                events: vec![Event {
                    kind: "transfer".into(),
                    attributes: vec![("to".into(), "a".into()), ("to".into(), "b".into())],
                }],
            }],
            events: vec![Event::default()],
            validator_updates: vec![ValidatorUpdate {
                key: [3; 32].into(),
                power: 4,
            }],
        };
        assert_eq!(decode(&encode(&output)), Some(output));
    }
}
