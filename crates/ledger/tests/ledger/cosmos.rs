use cosmos_sdk_proto::cosmos::auth::v1beta1::{
    BaseAccount, ModuleAccount, QueryAccountRequest, QueryAccountResponse,
    QueryModuleAccountsResponse,
};
use cosmos_sdk_proto::cosmos::bank::v1beta1::{
    QueryAllBalancesRequest, QueryAllBalancesResponse, QueryBalanceRequest, QueryBalanceResponse,
    QueryDenomMetadataRequest, QueryDenomMetadataResponse, QueryTotalSupplyRequest,
    QueryTotalSupplyResponse,
};
use cosmos_sdk_proto::cosmos::base::query::v1beta1::PageRequest;
use cosmos_sdk_proto::cosmos::tx::v1beta1::mode_info::{Single, Sum};
use cosmos_sdk_proto::cosmos::tx::v1beta1::{
    AuthInfo, Fee, ModeInfo, SignerInfo, SimulateRequest, SimulateResponse, Tx, TxBody, TxRaw,
};
use prost::Message as _;
use r3mes_ledger::block::QueryResult;
use r3mes_ledger::{Ledger, bank};
use r3mes_types::bank::MsgSend;
use r3mes_types::nodes::MsgRegister;
use r3mes_types::wire::Wire;
use r3mes_types::{Amount, Message, Role};

use crate::chain::{Chain, GAS, START, address, key, spec};

fn ask(chain: &Chain, path: &str, question: &impl prost::Message) -> QueryResult {
    Ledger::query(&chain.state, path, &question.encode_to_vec()).unwrap()
}

fn answer<A: prost::Message + Default>(
    chain: &Chain,
    path: &str,
    question: &impl prost::Message,
) -> A {
    let result = ask(chain, path, question);
    assert_eq!((result.code, result.log.as_str()), (0, ""));
    A::decode(result.value.as_slice()).unwrap()
}

fn send() -> Message {
    MsgSend::new(address(1), address(2), Amount::new(5)).into()
}

/// What a wallet sends that wants to know the gas: no signature, no fee, no mode of signing.
fn unsigned(chain: &Chain, index: u8, message: &Message, mode: i32) -> Tx {
    let body = TxBody {
        messages: vec![cosmos_sdk_proto::Any {
            type_url: message.type_url().into(),
            value: message.encode(),
        }],
        ..TxBody::default()
    };
    let account = r3mes_ledger::auth::ACCOUNTS
        .get(&chain.view(), &address(index))
        .unwrap();
    let public_key = cosmos_sdk_proto::cosmos::crypto::secp256k1::PubKey {
        key: key(index).public_key().to_bytes().to_vec(),
    };
    let info = SignerInfo {
        public_key: Some(cosmos_sdk_proto::Any {
            type_url: "/cosmos.crypto.secp256k1.PubKey".into(),
            value: public_key.encode_to_vec(),
        }),
        mode_info: Some(ModeInfo {
            sum: Some(Sum::Single(Single { mode })),
        }),
        sequence: account.map_or(0, |account| account.sequence),
    };
    #[expect(
        deprecated,
        reason = "the tip is part of the type, and must stay absent"
    )]
    let auth = AuthInfo {
        signer_infos: vec![info],
        fee: Some(Fee::default()),
        tip: None,
    };
    Tx {
        body: Some(body),
        auth_info: Some(auth),
        signatures: vec![Vec::new()],
    }
}

#[expect(deprecated, reason = "cosmpy still sends the field `tx`")]
fn simulate(chain: &Chain, tx: Tx, in_old_field: bool) -> QueryResult {
    let request = match in_old_field {
        true => SimulateRequest {
            tx: Some(tx),
            tx_bytes: Vec::new(),
        },
        false => SimulateRequest {
            tx: None,
            tx_bytes: tx.encode_to_vec(),
        },
    };
    ask(chain, "/cosmos.tx.v1beta1.Service/Simulate", &request)
}

fn gas_of(result: &QueryResult) -> u64 {
    assert_eq!((result.code, result.log.as_str()), (0, ""));
    let answer = SimulateResponse::decode(result.value.as_slice()).unwrap();
    assert!(!answer.result.unwrap().events.is_empty());
    answer.gas_info.unwrap().gas_used
}

#[test]
fn simulated_gas_is_what_the_signed_transaction_takes() {
    let register = || -> Message {
        MsgRegister {
            address: address(1),
            spec: spec(&[Role::Miner], Amount::remes(1)),
        }
        .into()
    };
    for message in [send(), register()] {
        let mut chain = Chain::new();
        let tx = unsigned(&chain, 1, &message, 0);
        let simulated = gas_of(&simulate(&chain, tx.clone(), false));
        assert_eq!(simulated, gas_of(&simulate(&chain, tx, true)));
        let signed_mode = unsigned(&chain, 1, &message, 1);
        assert_eq!(simulated, gas_of(&simulate(&chain, signed_mode, false)));
        let used = chain.must(1, message).gas_used;
        assert!(
            simulated >= used && simulated - used < 500,
            "{simulated} simulated, {used} used"
        );
    }
}

#[test]
fn simulating_needs_no_signature_but_everything_else() {
    let chain = Chain::new();
    let mut poor = unsigned(&chain, 1, &send(), 0);
    let body = poor.body.as_mut().unwrap();
    let too_much = MsgSend::new(address(1), address(2), START.saturating_add(Amount::new(1)));
    body.messages[0].value = too_much.encode();
    let refused = simulate(&chain, poor, false);
    assert_eq!((refused.codespace.as_str(), refused.code), ("bank", 1));
    let stranger = unsigned(&chain, 77, &send(), 0);
    let refused = simulate(&chain, stranger, false);
    assert_eq!((refused.codespace.as_str(), refused.code), ("sdk", 9));
    let mut chain = Chain::new();
    let late = unsigned(&chain, 1, &send(), 0);
    chain.must(1, send());
    let refused = simulate(&chain, late, false);
    assert_eq!((refused.codespace.as_str(), refused.code), ("sdk", 32));
    assert_eq!(
        refused.log,
        "account sequence mismatch, expected 1, got 0: incorrect account sequence"
    );
    let mut last = unsigned(&chain, 1, &send(), 0);
    last.auth_info.as_mut().unwrap().signer_infos[0].sequence = u64::MAX;
    let refused = simulate(&chain, last, false);
    assert_eq!((refused.codespace.as_str(), refused.code), ("sdk", 32));
}

#[test]
fn a_signed_transaction_can_be_simulated_too() {
    let mut chain = Chain::new();
    let bytes = chain.sign(1, send());
    let raw = TxRaw::decode(bytes.as_slice()).unwrap();
    let tx = Tx {
        body: Some(TxBody::decode(raw.body_bytes.as_slice()).unwrap()),
        auth_info: Some(AuthInfo::decode(raw.auth_info_bytes.as_slice()).unwrap()),
        signatures: raw.signatures,
    };
    let simulated = gas_of(&simulate(&chain, tx, false));
    assert!(simulated < GAS);
    let result = chain.block(vec![bytes]).remove(0);
    assert_eq!(simulated, result.gas_used);
}

#[test]
fn accounts_are_the_sdks() {
    let mut chain = Chain::new();
    let path = "/cosmos.auth.v1beta1.Query/Account";
    let question = |index| QueryAccountRequest {
        address: address(index).to_string(),
    };
    chain.must(1, send());
    let found: QueryAccountResponse = answer(&chain, path, &question(1));
    let account = BaseAccount::decode(found.account.unwrap().value.as_slice()).unwrap();
    assert_eq!(account.address, address(1).to_string());
    assert_eq!(account.sequence, 1);
    assert_eq!(
        account.pub_key.unwrap().type_url,
        "/cosmos.crypto.secp256k1.PubKey"
    );
    let missing = ask(&chain, path, &question(99));
    let stranger = address(99);
    assert_eq!(
        missing.log,
        format!("rpc error: code = NotFound desc = account {stranger} not found: key not found")
    );
    let modules: QueryModuleAccountsResponse =
        answer(&chain, "/cosmos.auth.v1beta1.Query/ModuleAccounts", &());
    let treasury = ModuleAccount::decode(modules.accounts[0].value.as_slice()).unwrap();
    assert_eq!(treasury.name, "treasury");
    let at = treasury.base_account.unwrap().address;
    assert_eq!(at, bank::Module::Treasury.address().to_string());
}

#[test]
fn balances_supply_and_coin_are_the_sdks() {
    let chain = Chain::new();
    let me = address(1).to_string();
    let balance = |denom: &str| -> QueryBalanceResponse {
        let question = QueryBalanceRequest {
            address: me.clone(),
            denom: denom.into(),
        };
        answer(&chain, "/cosmos.bank.v1beta1.Query/Balance", &question)
    };
    let start = START.uremes().to_string();
    assert_eq!(balance("uremes").balance.unwrap().amount, start);
    let other = balance("uatom").balance.unwrap();
    assert_eq!(
        (other.denom.as_str(), other.amount.as_str()),
        ("uatom", "0")
    );
    let all = QueryAllBalancesRequest {
        address: me.clone(),
        pagination: Some(PageRequest {
            limit: 10,
            count_total: true,
            ..PageRequest::default()
        }),
        resolve_denom: false,
    };
    let all: QueryAllBalancesResponse =
        answer(&chain, "/cosmos.bank.v1beta1.Query/AllBalances", &all);
    assert_eq!(all.balances[0].amount, start);
    assert_eq!(all.pagination.unwrap().total, 1);
    let supply: QueryTotalSupplyResponse = answer(
        &chain,
        "/cosmos.bank.v1beta1.Query/TotalSupply",
        &QueryTotalSupplyRequest::default(),
    );
    assert_eq!(supply.supply[0].denom, "uremes");
    let coin = QueryDenomMetadataRequest {
        denom: "uremes".into(),
    };
    let path = "/cosmos.bank.v1beta1.Query/DenomMetadata";
    let coin: QueryDenomMetadataResponse = answer(&chain, path, &coin);
    let coin = coin.metadata.unwrap();
    assert_eq!(coin.denom_units[1].exponent, 6);
    assert_eq!(coin.display, coin.denom_units[1].denom);
}
