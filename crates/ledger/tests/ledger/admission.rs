use std::sync::Arc;

use r3mes_ledger::{Ledger, Waiting, auth, bank};
use r3mes_types::auth::{MsgGrant, MsgGrantFees, MsgRevoke, MsgRevokeFees, QueryGrants};
use r3mes_types::bank::{MsgFaucet, MsgSend};
use r3mes_types::tx::{Fee, Signer, Tx, Unsigned};
use r3mes_types::wire::{Blob, List, Text};
use r3mes_types::{Amount, Message, Millis, PageRequest};

use crate::chain::{CHAIN_ID, Chain, FEE, GAS, START, address, key};

const SEND: &str = "/cosmos.bank.v1beta1.MsgSend";

fn send(from: u8, to: u8, uremes: u64) -> Message {
    MsgSend::new(address(from), address(to), Amount::new(uremes)).into()
}

fn grant(chain: &Chain, type_urls: &[&str], span: Millis) -> MsgGrant {
    let type_urls = type_urls
        .iter()
        .map(|url| Text::new(*url).unwrap())
        .collect();
    MsgGrant {
        granter: address(1),
        grantee: address(9),
        type_urls: List::new(type_urls).unwrap(),
        expires_at: chain.time.after(span),
    }
}

#[test]
fn coins_move_and_the_fee_goes_to_the_treasury() {
    let mut chain = Chain::new();
    chain.must(1, send(1, 2, 500));
    assert_eq!(
        chain.balance(&address(1)).uremes(),
        START.uremes() - 500 - FEE.uremes()
    );
    assert_eq!(chain.balance(&address(2)).uremes(), START.uremes() + 500);
    assert_eq!(chain.balance(&bank::Module::Treasury.address()), FEE);
}

#[test]
fn a_failed_transaction_pays_its_fee_and_uses_its_sequence_but_moves_nothing() {
    let mut chain = Chain::new();
    let messages = vec![send(1, 2, 500), send(1, 2, START.uremes())];
    let tx = chain.sign_with(1, messages, Fee::of(FEE, GAS));
    let result = chain.block(vec![tx]).remove(0);
    assert_eq!((result.codespace.as_str(), result.code), ("bank", 1));
    assert!(result.events.is_empty());
    assert_eq!(
        chain.balance(&address(1)).uremes(),
        START.uremes() - FEE.uremes()
    );
    assert_eq!(chain.balance(&address(2)), START);
    let account = auth::ACCOUNTS
        .get(&chain.view(), &address(1))
        .unwrap()
        .unwrap();
    assert_eq!(account.sequence, 1);
}

#[test]
fn a_transaction_is_good_once_on_one_chain_for_one_sequence() {
    let mut chain = Chain::new();
    let tx = chain.sign(1, send(1, 2, 1));
    let results = chain.block(vec![tx.clone(), tx.clone()]);
    assert_eq!([results[0].code, results[1].code], [0, 32]);
    assert_eq!(
        results[1].log,
        "account sequence mismatch, expected 1, got 0: incorrect account sequence"
    );
    let number = auth::ACCOUNTS
        .get(&chain.view(), &address(1))
        .unwrap()
        .unwrap()
        .number;
    for (chain_id, account_number) in [("r3mes-other", number), (CHAIN_ID, number + 1)] {
        let signer = Signer {
            chain_id,
            account_number,
            sequence: 1,
        };
        let tx = Unsigned::new(vec![send(1, 2, 1)]).with_fee(Fee::of(FEE, GAS));
        let tx = tx.sign(&key(1), &signer).unwrap();
        assert_eq!(chain.block(vec![tx]).remove(0).code, 15);
    }
}

#[test]
fn nobody_spends_from_another_account() {
    let mut chain = Chain::new();
    let result = chain.send(2, send(1, 2, 1));
    assert_eq!((result.codespace.as_str(), result.code), ("sdk", 4));
    assert_eq!(chain.balance(&address(2)), START);
}

#[test]
fn every_altered_byte_of_a_transaction_is_noticed() {
    let mut chain = Chain::new();
    let tx = chain.sign(1, send(1, 2, 1));
    for index in 0..tx.len() {
        let mut altered = tx.clone();
        altered[index] ^= 1;
        let block = chain.next_block();
        let result = Ledger::check_tx(&chain.state, block, &Waiting::default(), &altered, &|_| {
            None
        })
        .unwrap();
        assert_ne!(result.result.code, 0, "byte {index}");
        assert_eq!(result.admitted, None);
    }
    chain.block(vec![tx]);
}

#[test]
fn an_operations_key_acts_within_its_grant_until_it_expires() {
    let mut chain = Chain::new();
    chain.must(1, grant(&chain, &[SEND], Millis::seconds(60)));
    let fees = MsgGrantFees {
        granter: address(1),
        grantee: address(9),
        limit: Amount::new(3 * FEE.uremes()),
        expires_at: chain.time.after(Millis::seconds(60)),
    };
    chain.must(1, fees);
    let paid_by_granter = Fee {
        granter: Some(address(1)),
        ..Fee::of(FEE, GAS)
    };
    let by_key = |chain: &mut Chain, message: Message| {
        let tx = chain.sign_with(9, vec![message], paid_by_granter.clone());
        chain.block(vec![tx]).remove(0)
    };
    assert_eq!(by_key(&mut chain, send(1, 2, 7)).code, 0);
    let faucet = MsgFaucet {
        to: address(1),
        amount: Amount::new(1),
    };
    assert_eq!(
        by_key(&mut chain, faucet.into()).code,
        4,
        "not a granted type"
    );
    assert_eq!(
        by_key(&mut chain, send(2, 1, 7)).code,
        4,
        "not the granter's account"
    );
    chain.wait(Millis::seconds(60));
    let late = chain.send(9, send(1, 2, 7));
    assert_eq!(late.code, 4, "the grant has expired");
    assert_eq!(
        by_key(&mut chain, send(1, 2, 7)).code,
        4,
        "the grant has expired"
    );
}

#[test]
fn fee_grants_are_used_up_and_expire() {
    let mut chain = Chain::new();
    chain.must(1, grant(&chain, &[SEND], Millis::seconds(600)));
    let fees = MsgGrantFees {
        granter: address(1),
        grantee: address(9),
        limit: FEE,
        expires_at: chain.time.after(Millis::seconds(60)),
    };
    chain.must(1, fees.clone());
    let paid_by_granter = Fee {
        granter: Some(address(1)),
        ..Fee::of(FEE, GAS)
    };
    let by_key = |chain: &mut Chain| {
        let tx = chain.sign_with(9, vec![send(1, 2, 7)], paid_by_granter.clone());
        chain.block(vec![tx]).remove(0)
    };
    assert_eq!(by_key(&mut chain).code, 0);
    assert!(by_key(&mut chain).log.contains("the fee grant is used up"));
    chain.must(1, fees);
    let entry = &chain
        .query(&QueryGrants {
            granter: address(1),
            page: None,
        })
        .grants[0];
    assert_eq!(entry.grantee, address(9));
    assert_eq!(entry.fees.unwrap().remaining, FEE);
    assert!(entry.grant.is_some());
    chain.wait(Millis::seconds(60));
    assert!(by_key(&mut chain).log.contains("or the grant has expired"));
    chain.must(
        1,
        MsgRevokeFees {
            granter: address(1),
            grantee: address(9),
        },
    );
    chain.must(
        1,
        MsgRevoke {
            granter: address(1),
            grantee: address(9),
        },
    );
    assert!(
        chain
            .query(&QueryGrants {
                granter: address(1),
                page: None,
            })
            .grants
            .is_empty()
    );
    assert_eq!(
        chain
            .send(
                1,
                MsgRevoke {
                    granter: address(1),
                    grantee: address(9)
                }
            )
            .code,
        4
    );
}

#[test]
fn grants_come_in_pages_whether_they_are_of_messages_or_of_fees() {
    let mut chain = Chain::new();
    let expires_at = chain.time.after(Millis::seconds(60));
    // To some both, to some only one of them; and another's, which are never among them.
    for grantee in 2..=9 {
        if grantee % 3 != 0 {
            let message = MsgGrant {
                grantee: address(grantee),
                ..grant(&chain, &[SEND], Millis::seconds(60))
            };
            chain.must(1, message);
        }
        if grantee % 2 != 0 {
            for granter in [1, 3] {
                let fees = MsgGrantFees {
                    granter: address(granter),
                    grantee: address(grantee + 20),
                    limit: FEE,
                    expires_at,
                };
                chain.must(granter, fees);
            }
            let fees = MsgGrantFees {
                granter: address(1),
                grantee: address(grantee),
                limit: FEE,
                expires_at,
            };
            chain.must(1, fees);
        }
    }
    let granter = address(1);
    let whole = chain.query(&QueryGrants {
        granter,
        page: None,
    });
    assert!(whole.next.is_empty());
    assert_eq!(whole.grants.len(), 11);
    let [grants, fees] = [
        whole
            .grants
            .iter()
            .filter(|one| one.grant.is_some())
            .count(),
        whole.grants.iter().filter(|one| one.fees.is_some()).count(),
    ];
    assert_eq!((grants, fees), (5, 8));
    for limit in 1..=11 {
        let (mut listed, mut after) = (Vec::new(), Blob::default());
        loop {
            let page = Some(PageRequest { after, limit });
            let found = chain.query(&QueryGrants { granter, page });
            listed.extend(found.grants.to_vec());
            after = found.next;
            if after.is_empty() {
                break;
            }
            assert_eq!(listed.len() % limit as usize, 0, "a full page");
        }
        assert_eq!(listed, whole.grants.to_vec(), "{limit} a page");
    }
}

#[test]
fn the_right_to_grant_cannot_be_granted() {
    let mut chain = Chain::new();
    let message = grant(&chain, &["/r3mes.auth.v1.MsgGrant"], Millis::seconds(1));
    let result = chain.send(1, message);
    assert_eq!((result.codespace.as_str(), result.code), ("auth", 5));
    let unknown = grant(&chain, &["/r3mes.none.v1.MsgNone"], Millis::seconds(1));
    assert_eq!(chain.send(1, unknown).code, 2);
}

#[test]
fn fees_below_the_price_and_limits_above_the_maximum_are_refused() {
    let mut chain = Chain::new();
    let codes = [
        Fee::none(GAS),
        Fee::of(Amount::new(FEE.uremes() - 1), GAS),
        Fee::of(Amount::remes(1), u64::MAX),
        Fee::of(START, GAS),
        Fee::of(Amount::remes(2_000), GAS),
        Fee::of(FEE, 1_000),
    ]
    .map(|fee| {
        let tx = chain.sign_with(1, vec![send(1, 2, 1)], fee);
        let block = chain.next_block();
        let check = Ledger::check_tx(&chain.state, block, &Waiting::default(), &tx, &|_| None);
        check.unwrap().result.code
    });
    assert_eq!(codes, [13, 13, 41, 0, 5, 11]);
    assert_eq!(chain.balance(&address(1)), START, "checks change nothing");
    chain.block(Vec::new());
}

#[test]
fn gas_is_the_same_on_every_run_and_runs_out_where_it_says() {
    let mut first = Chain::new();
    let used = first.must(1, send(1, 2, 1)).gas_used;
    let mut second = Chain::new();
    assert_eq!(second.must(1, send(1, 2, 1)).gas_used, used);
    for (limit, code) in [(used, 0), (used - 1, 11)] {
        let mut chain = Chain::new();
        let tx = chain.sign_with(1, vec![send(1, 2, 1)], Fee::of(FEE, limit));
        let result = chain.block(vec![tx]).remove(0);
        assert_eq!((result.code, result.gas_used), (code, limit));
    }
}

#[test]
fn a_timeout_height_is_the_last_good_one() {
    let mut chain = Chain::new();
    for (timeout, code) in [(1, 0), (1, 30)] {
        let account = auth::ACCOUNTS
            .get(&chain.view(), &address(1))
            .unwrap()
            .unwrap();
        let signer = Signer {
            chain_id: CHAIN_ID,
            account_number: account.number,
            sequence: account.sequence,
        };
        let mut tx = Unsigned::new(vec![send(1, 2, 1)]).with_fee(Fee::of(FEE, GAS));
        tx.timeout_height = timeout;
        let tx = tx.sign(&key(1), &signer).unwrap();
        assert_eq!(chain.block(vec![tx]).remove(0).code, code);
    }
}

#[test]
fn sequences_of_waiting_transactions_are_followed() {
    let chain = Chain::new();
    let mut waiting = Waiting::default();
    let account = auth::ACCOUNTS
        .get(&chain.view(), &address(1))
        .unwrap()
        .unwrap();
    for (sequence, code) in [(0, 0), (1, 0), (1, 32), (3, 32), (2, 0)] {
        let signer = Signer {
            chain_id: CHAIN_ID,
            account_number: account.number,
            sequence,
        };
        let tx = Unsigned::new(vec![send(1, 2, 1)]).with_fee(Fee::of(FEE, GAS));
        let tx = tx.sign(&key(1), &signer).unwrap();
        let check =
            Ledger::check_tx(&chain.state, chain.next_block(), &waiting, &tx, &|_| None).unwrap();
        assert_eq!(check.result.code, code, "sequence {sequence}");
        if let Some(admitted) = check.admitted {
            waiting.admit(&admitted);
        }
    }
}

#[test]
fn waiting_fees_count_against_the_balance() {
    let chain = Chain::new();
    let mut waiting = Waiting::default();
    let account = auth::ACCOUNTS
        .get(&chain.view(), &address(1))
        .unwrap()
        .unwrap();
    let codes = [0u64, 1].map(|sequence| {
        let signer = Signer {
            chain_id: CHAIN_ID,
            account_number: account.number,
            sequence,
        };
        let fee = Fee::of(Amount::remes(600), GAS);
        let tx = Unsigned::new(vec![send(1, 2, 1)])
            .with_fee(fee)
            .sign(&key(1), &signer)
            .unwrap();
        let check =
            Ledger::check_tx(&chain.state, chain.next_block(), &waiting, &tx, &|_| None).unwrap();
        if let Some(admitted) = check.admitted {
            waiting.admit(&admitted);
        }
        check.result.code
    });
    assert_eq!(codes, [0, 5]);
}

#[test]
fn the_faucet_gives_up_to_its_limit() {
    let mut chain = Chain::new();
    let limit = Amount::remes(1_000_000);
    chain.must(
        1,
        MsgFaucet {
            to: address(1),
            amount: limit,
        },
    );
    let again = chain.send(
        1,
        MsgFaucet {
            to: address(1),
            amount: Amount::new(1),
        },
    );
    assert_eq!((again.codespace.as_str(), again.code), ("bank", 5));
}

#[test]
fn known_transactions_give_the_same_block_results_and_forged_ones_are_never_known() {
    let chain = Chain::new();
    let mut forged = chain.sign(3, send(3, 2, 5));
    // The signature comes last.
    *forged.last_mut().unwrap() ^= 1;
    let input = chain.input(vec![
        chain.sign(1, send(1, 2, 5)),
        chain.sign(2, send(1, 2, 5)),
        forged.clone(),
    ]);
    let verify = |tx: &[u8]| {
        let mut verified = Ledger::verify_txs(&chain.state, &[tx]).unwrap();
        verified.swap_remove(0).map(Arc::new)
    };
    assert!(verify(&input.txs[1]).is_some());
    assert_eq!(verify(&forged), None);
    let slow = Ledger::finalize_block(&chain.state, &input, &|_| None).unwrap();
    let fast = Ledger::finalize_block(&chain.state, &input, &verify).unwrap();
    assert_eq!(slow, fast);
    let codes: Vec<u32> = fast.tx_results.iter().map(|result| result.code).collect();
    assert_eq!(codes, [0, 0, 4, 15]);
    let checked = |known| {
        let block = chain.next_block();
        Ledger::check_tx(&chain.state, block, &Waiting::default(), &forged, known).unwrap()
    };
    assert_eq!(checked(&|_| None), checked(&verify));
    assert_eq!(checked(&verify).result.code, 15);
}

#[test]
fn long_answers_come_in_pages() {
    let chain = Chain::new();
    let mut seen = Vec::new();
    let mut page = PageRequest {
        limit: 2,
        ..PageRequest::default()
    };
    loop {
        let query = r3mes_types::bank::QueryBalances {
            page: Some(page.clone()),
        };
        let answer = chain.query(&query);
        assert!(answer.balances.len() <= 2);
        seen.extend(answer.balances.iter().map(|entry| entry.address));
        if answer.next.is_empty() {
            break;
        }
        page.after = answer.next;
    }
    assert_eq!(seen.len(), 6);
    assert!(seen.is_sorted());
    let nonsense = Ledger::query(&chain.state, "/r3mes.bank.v1.Query/Balance", b"?").unwrap();
    assert_eq!((nonsense.codespace.as_str(), nonsense.code), ("query", 2));
    let unknown = Ledger::query(&chain.state, "/none", b"").unwrap();
    assert_eq!((unknown.codespace.as_str(), unknown.code), ("query", 1));
}

#[test]
fn transactions_are_read_the_same_way_everywhere() {
    let chain = Chain::new();
    let bytes = chain.sign(1, send(1, 2, 1));
    let tx = Tx::parse(&bytes).unwrap();
    assert_eq!(tx.signer(), address(1));
    assert_eq!(tx.messages[0].type_url(), SEND);
}
