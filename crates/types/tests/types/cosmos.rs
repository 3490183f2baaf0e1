//! The same bytes as the Cosmos SDK's own types write, field by field.

use cosmos_sdk_proto::Any;
use cosmos_sdk_proto::cosmos::bank::v1beta1::MsgSend;
use cosmos_sdk_proto::cosmos::base::v1beta1::Coin;
use cosmos_sdk_proto::cosmos::crypto::secp256k1::PubKey;
use cosmos_sdk_proto::cosmos::tx::v1beta1::mode_info::{Single, Sum};
use cosmos_sdk_proto::cosmos::tx::v1beta1::{
    AuthInfo, Fee, ModeInfo, SignDoc, SignerInfo, TxBody, TxRaw,
};
use prost::Message as _;
use r3mes_types::tx::{Tx, tx_hash};
use r3mes_types::{Amount, Message, Signature};

use crate::samples::{key, messages, transaction};

/// A transfer built with nothing of ours but the key.
fn foreign(chain_id: &str, account_number: u64, sequence: u64) -> Vec<u8> {
    let me = key().address().to_string();
    let coin = |amount: &str| Coin {
        denom: "uremes".into(),
        amount: amount.into(),
    };
    let send = MsgSend {
        from_address: me.clone(),
        to_address: me,
        amount: vec![coin("1234567")],
    };
    let body = TxBody {
        messages: vec![Any {
            type_url: "/cosmos.bank.v1beta1.MsgSend".into(),
            value: send.encode_to_vec(),
        }],
        memo: "from another library".into(),
        ..TxBody::default()
    };
    let public_key = PubKey {
        key: key().public_key().to_bytes().to_vec(),
    };
    let info = SignerInfo {
        public_key: Some(Any {
            type_url: "/cosmos.crypto.secp256k1.PubKey".into(),
            value: public_key.encode_to_vec(),
        }),
        mode_info: Some(ModeInfo {
            sum: Some(Sum::Single(Single { mode: 1 })),
        }),
        sequence,
    };
    let fee = Fee {
        amount: vec![coin("2000")],
        gas_limit: 200_000,
        ..Fee::default()
    };
    #[expect(
        deprecated,
        reason = "the tip is part of the type, and must stay absent"
    )]
    let auth = AuthInfo {
        signer_infos: vec![info],
        fee: Some(fee),
        tip: None,
    };
    let document = SignDoc {
        body_bytes: body.encode_to_vec(),
        auth_info_bytes: auth.encode_to_vec(),
        chain_id: chain_id.into(),
        account_number,
    };
    let signature: Signature = key().sign(&document.encode_to_vec());
    TxRaw {
        body_bytes: document.body_bytes,
        auth_info_bytes: document.auth_info_bytes,
        signatures: vec![signature.as_bytes().to_vec()],
    }
    .encode_to_vec()
}

#[test]
fn a_transaction_of_another_library_parses_and_verifies() {
    for (account_number, sequence) in [(0, 0), (7, 300)] {
        let tx = Tx::parse(&foreign("r3mes-1", account_number, sequence)).unwrap();
        assert!(tx.verify("r3mes-1", account_number));
        assert!(!tx.verify("r3mes-1", account_number + 1));
        assert_eq!(tx.sequence, sequence);
        assert_eq!(tx.fee.paid(), Amount::new(2_000));
        let Message::Bank(r3mes_types::bank::BankMessage::Send(send)) = &tx.messages[0] else {
            panic!("not a transfer: {:?}", tx.messages)
        };
        assert_eq!(send.amount[0].0, Amount::new(1_234_567));
    }
}

#[test]
fn a_transaction_of_ours_is_the_same_in_another_library() {
    let bytes = transaction();
    let raw = TxRaw::decode(bytes.as_slice()).unwrap();
    assert_eq!(raw.encode_to_vec(), bytes);
    let body = TxBody::decode(raw.body_bytes.as_slice()).unwrap();
    assert_eq!(body.encode_to_vec(), raw.body_bytes);
    assert_eq!(body.memo, "memo");
    assert_eq!(body.timeout_height, 500);
    assert_eq!(body.messages.len(), messages().len());
    let auth = AuthInfo::decode(raw.auth_info_bytes.as_slice()).unwrap();
    assert_eq!(auth.encode_to_vec(), raw.auth_info_bytes);
    assert_eq!(auth.signer_infos[0].sequence, 12);
    let fee = auth.fee.unwrap();
    assert_eq!(
        (fee.gas_limit, fee.amount[0].amount.as_str()),
        (300_000, "3000000")
    );
    let send = MsgSend::decode(body.messages[0].value.as_slice()).unwrap();
    assert_eq!(send.from_address, key().address().to_string());
}

#[test]
fn a_transfer_signed_as_amino_json_verifies_and_nothing_else_is_taken_so() {
    let tx = Tx::parse(&foreign("r3mes-1", 7, 3)).unwrap();
    let me = key().address().to_string();
    // What a hardware wallet shows and signs, as written down by the Cosmos SDK.
    let shown = format!(
        r#"{{"account_number":"7","chain_id":"r3mes-1","fee":{{"amount":[{{"amount":"2000","denom":"uremes"}}],"gas":"200000"}},"memo":"from another library","msgs":[{{"type":"cosmos-sdk/MsgSend","value":{{"amount":[{{"amount":"1234567","denom":"uremes"}}],"from_address":"{me}","to_address":"{me}"}}}}],"sequence":"3"}}"#
    );
    let amino = |bytes: &[u8], signature: Signature| {
        let mut raw = TxRaw::decode(bytes).unwrap();
        let mut auth = AuthInfo::decode(raw.auth_info_bytes.as_slice()).unwrap();
        auth.signer_infos[0].mode_info = Some(ModeInfo {
            sum: Some(Sum::Single(Single { mode: 127 })),
        });
        raw.auth_info_bytes = auth.encode_to_vec();
        raw.signatures = vec![signature.as_bytes().to_vec()];
        raw.encode_to_vec()
    };
    let signed = Tx::parse(&amino(
        &foreign("r3mes-1", 7, 3),
        key().sign(shown.as_bytes()),
    ))
    .unwrap();
    assert!(signed.verify("r3mes-1", 7));
    assert!(!signed.verify("r3mes-1", 8));
    assert!(!signed.verify("r3mes-2", 7));
    let direct = Tx::parse(&amino(&foreign("r3mes-1", 7, 3), tx.signature)).unwrap();
    assert!(
        !direct.verify("r3mes-1", 7),
        "a direct signature is another"
    );
    let refused = Tx::parse(&amino(&transaction(), tx.signature)).unwrap_err();
    assert!(
        refused.to_string().contains("only transfers can"),
        "{refused}"
    );
}

#[test]
fn a_block_explorer_can_read_the_reveal() {
    let reveal = r3mes_types::beacon::MsgReveal {
        validator: [6; 20].into(),
        preimage: r3mes_types::Hash::of(b"preimage"),
        next: None,
    };
    let bytes = r3mes_types::tx::reveal_tx(&reveal);
    let raw = TxRaw::decode(bytes.as_slice()).unwrap();
    let body = TxBody::decode(raw.body_bytes.as_slice()).unwrap();
    assert_eq!(body.messages[0].type_url, "/r3mes.beacon.v1.MsgReveal");
    assert_eq!(r3mes_types::tx::parse_reveal(&bytes), Some(reveal));
    assert_eq!(
        r3mes_types::tx::parse_reveal(&foreign("r3mes-1", 0, 0)),
        None
    );
}

#[test]
fn the_transaction_hash_is_cosmos_sha256_in_upper_case() {
    assert_eq!(
        tx_hash(b""),
        "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"
    );
}
