//! A chain that goes on from another's state.

use r3mes_ledger::export::{ExportError, OpenRounds, Plan, export};
use r3mes_ledger::genesis::{Genesis, GenesisValidator};
use r3mes_ledger::{Ledger, bank, invariants, nodes, training};
use r3mes_types::bank::MsgSend;
use r3mes_types::beacon::HashChain;
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::{List, Wire};
use r3mes_types::{Amount, ConsensusKey};

use super::chain::{Chain, FEE, GAS, address, key};
use super::play::{founding, params};

const NEW: &str = "r3mes-next";
const NEW_SECRET: [u8; 32] = [8; 32];

pub(crate) fn plan(chain: &Chain, open_rounds: OpenRounds) -> Plan {
    let beacon = HashChain::new(&NEW_SECRET, 64);
    Plan {
        chain_id: NEW.to_owned(),
        time: chain.time,
        validators: vec![GenesisValidator {
            operator: address(0),
            key: ConsensusKey::from([1; 32]),
            power: 3,
            chain_end: beacon.end(),
            chain_length: beacon.len(),
        }],
        open_rounds,
    }
}

/// The new chain, after its genesis went over the wire.
pub(crate) fn begin(genesis: &Genesis) -> Chain {
    let genesis = Genesis::decode(&genesis.encode()).unwrap();
    Chain {
        beacon: HashChain::new(&NEW_SECRET, 64),
        ..Chain::from(&genesis)
    }
}

fn transfer(chain: &Chain, chain_id: &str) -> Vec<u8> {
    let account = r3mes_ledger::auth::ACCOUNTS;
    let account = account.get(&chain.view(), &address(0)).unwrap().unwrap();
    let signer = Signer {
        chain_id,
        account_number: account.number,
        sequence: account.sequence,
    };
    let message = MsgSend::new(address(0), address(1), Amount::remes(1));
    Unsigned::new(vec![message.into()])
        .with_fee(Fee::of(FEE, GAS))
        .sign(&key(0), &signer)
        .unwrap()
}

#[test]
fn everything_goes_on_but_the_open_round_whose_stake_is_free_again() {
    let mut old = Chain::from(&founding(params()));
    let tx = transfer(&old, super::chain::CHAIN_ID);
    assert_eq!(old.block(vec![tx])[0].log, "");
    old.block(Vec::new());
    let run = training::RUNS.get(&old.view(), &1).unwrap().unwrap();
    assert!(run.open, "a round is open");
    assert!(old.node(1).locked > Amount::ZERO);

    let refused = export(&old.state, &plan(&old, OpenRounds::Refuse)).unwrap_err();
    assert!(
        matches!(refused, ExportError::OpenRound { run: 1, round: 0 }),
        "{refused}"
    );
    let genesis = export(&old.state, &plan(&old, OpenRounds::Abort)).unwrap();
    assert_eq!(genesis.initial_height(), old.height + 1);
    let mut new = begin(&genesis);
    assert_eq!(new.height, old.height);
    let supply = |chain: &Chain| bank::SUPPLY.get(&chain.view()).unwrap();
    assert_eq!(supply(&new), supply(&old));
    for index in 0..8 {
        let address = address(index);
        assert_eq!(new.balance(&address), old.balance(&address));
        let before = nodes::get(&old.view(), &address).unwrap();
        let after = nodes::get(&new.view(), &address).unwrap();
        let freed = before.map(|mut node| {
            node.locked = Amount::ZERO;
            node.locks = 0;
            node
        });
        assert_eq!(after, freed);
    }
    let after = training::RUNS.get(&new.view(), &1).unwrap().unwrap();
    assert!(!after.open);
    assert_eq!((after.round, &after.adapter), (run.round, &run.adapter));

    // Signatures of the old chain are none here; the sequences go on.
    let foreign = transfer(&new, super::chain::CHAIN_ID);
    let ours = transfer(&new, NEW);
    let results = new.block(vec![foreign]);
    assert_ne!(results[0].code, 0, "{results:?}");
    let results = new.block(vec![ours]);
    assert_eq!(results[0].log, "");
    // The run opens its round anew.
    let again = training::RUNS.get(&new.view(), &1).unwrap().unwrap();
    assert!(again.open);
    assert_eq!(again.round, run.round);
    invariants::check(&new.state).unwrap();

    // And so on, from one chain to the next.
    let mut third = plan(&new, OpenRounds::Abort);
    third.chain_id = "r3mes-third".to_owned();
    let third = export(&new.state, &third).unwrap();
    begin(&third).block(Vec::new());
}

#[test]
fn a_chain_does_not_go_on_under_its_own_name() {
    let old = Chain::new();
    let mut plan = plan(&old, OpenRounds::Refuse);
    plan.chain_id = super::chain::CHAIN_ID.to_owned();
    let refused = export(&old.state, &plan).unwrap_err();
    assert!(
        matches!(refused, ExportError::SameChain { .. }),
        "{refused}"
    );
}

#[test]
fn a_genesis_that_was_changed_after_the_export_is_refused() {
    let mut old = Chain::new();
    old.block(Vec::new());
    let genesis = export(&old.state, &plan(&old, OpenRounds::Refuse)).unwrap();
    // More money than there is.
    let mut richer = genesis.clone();
    let mut continued = richer.continued.take().unwrap();
    let mut entries = continued.state.to_vec();
    let mine = bank::BALANCES.key(&address(0));
    let entry = entries
        .iter_mut()
        .find(|entry| *entry.key == *mine)
        .unwrap();
    entry.value = entries_value(Amount::remes(5_000));
    continued.state = List::new(entries).unwrap();
    richer.continued = Some(continued);
    let error = Ledger::init_chain(&richer).unwrap_err().to_string();
    assert!(error.contains("supply"), "{error}");
    // Other parameters than the state's.
    let mut others = genesis;
    others.params.auth.max_block_gas += 1;
    let error = Ledger::init_chain(&others).unwrap_err().to_string();
    assert!(error.contains("parameters"), "{error}");
}

fn entries_value<const MAX: usize>(amount: Amount) -> r3mes_types::wire::Blob<MAX> {
    use r3mes_types::wire::Value;
    let mut bytes = Vec::new();
    amount.put(&mut bytes);
    r3mes_types::wire::Blob::new(bytes).unwrap()
}
