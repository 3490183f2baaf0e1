//! A ledger with three rich accounts, and their transfers.

use r3mes_consensus::key::ValidatorKey;
use r3mes_ledger::genesis::development;
use r3mes_types::bank::{Balance, MsgSend};
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::List;
use r3mes_types::{Amount, Coin, SecretKey};

pub(crate) const CHAIN: &str = "r3mes-test";

pub(crate) fn validator() -> ValidatorKey {
    ValidatorKey::from_seed(&[5; 32])
}

pub(crate) fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32]).unwrap()
}

pub(crate) fn ledger_genesis() -> r3mes_ledger::Genesis {
    let balances: Vec<Balance> = (1..=3)
        .map(|number| Balance {
            address: key(number).address(),
            amount: Amount::remes(1_000),
        })
        .collect();
    let mut sorted = balances;
    sorted.sort_by_key(|balance| balance.address);
    let mut genesis = development(CHAIN, key(1).address(), &sorted);
    let mut validators = genesis.validators.to_vec();
    validators[0].key = validator().public_key();
    genesis.validators = List::new(validators).unwrap();
    genesis
}

pub(crate) fn send(from: &SecretKey, to: &SecretKey, signer: &Signer<'_>) -> Vec<u8> {
    let message = MsgSend {
        from_address: from.address(),
        to_address: to.address(),
        amount: List::new(vec![Coin(Amount::remes(1))]).unwrap(),
    };
    Unsigned::new(vec![message.into()])
        .with_fee(Fee::of(Amount::remes(1), 1_000_000))
        .sign(from, signer)
        .unwrap()
}
