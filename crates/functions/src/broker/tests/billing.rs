//! Prices: agreed to, set aside while a call runs, then owed or given back.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{
    billing::{Bill, Price, Purse, Unpaid},
    wire::messages::Caller,
};

const PRICE: u64 = 40;

/// Pays for everybody until its coins are gone.
#[derive(Clone, Debug)]
struct Wallet(Arc<Mutex<Coins>>);

#[derive(Debug)]
struct Coins {
    free: u64,
    reserved: u64,
    paid: u64,
    /// By when the newest price that was set aside is settled.
    end: Moment,
}

impl Wallet {
    fn of(free: u64) -> Self {
        Self(Arc::new(Mutex::new(Coins {
            free,
            reserved: 0,
            paid: 0,
            end: Moment::default(),
        })))
    }

    /// What is free, set aside, and paid.
    fn coins(&self) -> (u64, u64, u64) {
        let coins = self.0.lock().unwrap();
        (coins.free, coins.reserved, coins.paid)
    }
}

impl Purse for Wallet {
    fn check(&self, price: &Price) -> Result<(), String> {
        match price.payee.as_str() {
            "nobody" => Err("nobody is no account".into()),
            _ => Ok(()),
        }
    }

    fn reserve(&mut self, user: &str, price: &Price, end: Moment) -> Result<Bill, String> {
        let mut coins = self.0.lock().unwrap();
        let Some(left) = coins.free.checked_sub(price.uremes) else {
            return Err(format!("{user} has {} left", coins.free));
        };
        coins.free = left;
        coins.end = end;
        coins.reserved += price.uremes;
        Ok(Bill {
            escrow: 1,
            ends_ns: u64::MAX,
            price: price.clone(),
        })
    }

    fn settle(&mut self, bill: &Bill, owed: bool) {
        let mut coins = self.0.lock().unwrap();
        coins.reserved -= bill.price.uremes;
        match owed {
            true => coins.paid += bill.price.uremes,
            false => coins.free += bill.price.uremes,
        }
    }

    fn unpaid(&self) -> Unpaid {
        Unpaid {
            uremes: self.0.lock().unwrap().paid,
            ..Unpaid::default()
        }
    }
}

fn priced(name: &str) -> FunctionInfo {
    FunctionInfo {
        price: Some(Price {
            uremes: PRICE,
            payee: "provider".into(),
        }),
        ..function(name)
    }
}

/// A broker that bills, and the token of a user of it.
fn billing(wallet: &Wallet) -> (Bench, String) {
    let secret = Secret::new().unwrap();
    let tokens = Tokens::new([secret.kept("alice", Vec::new(), None)]);
    let bench = Bench::with(Limits::default(), tokens);
    let broker = bench.broker.with_purse(Box::new(wallet.clone()));
    let now = bench.now;
    (Bench { broker, now }, secret.expose().to_owned())
}

fn agreeing(function: &str, max_price: u64) -> CallHead {
    CallHead {
        max_price: Some(max_price),
        ..CallHead::new(function)
    }
}

impl Bench {
    fn user(&mut self, token: &str) -> PeerId {
        let peer = self.hello(Some(token), None);
        assert_eq!(kinds(&self.sent(peer)), [Kind::Welcome]);
        peer
    }

    fn refused(&mut self, client: PeerId) -> String {
        let failure = self.failure(client);
        assert_eq!(failure.reason, Reason::PaymentRequired, "{failure}");
        failure.message
    }

    /// What a node is told that registers this.
    fn registering(&mut self, info: FunctionInfo) -> Frame {
        let peer = self.hello(None, Some(("odd", 9)));
        let functions = vec![info];
        let body = rmp_serde::to_vec_named(&Register { functions }).unwrap();
        let frame = Frame {
            body: body.into(),
            ..Frame::bare(Kind::Register, 0)
        };
        self.receive(peer, frame);
        self.sent(peer).remove(1)
    }
}

#[test]
fn a_price_is_set_aside_while_a_call_runs_and_paid_when_it_succeeds() {
    let wallet = Wallet::of(100);
    let (mut bench, token) = billing(&wallet);
    let node = bench.node("a", vec![priced("train")]);
    let alice = bench.user(&token);
    bench.receive(alice, call(1, &agreeing("train", PRICE)));
    let given = bench.given(node);
    assert_eq!(wallet.coins(), (60, 40, 0));
    bench.receive(node, data(given.call, 3, Flags::LAST));
    assert_eq!(wallet.coins(), (60, 0, 40));
    assert_eq!(bench.sent(alice), [data(1, 3, Flags::LAST)]);
    let seen = &bench.broker.node_views()[0];
    assert_eq!((seen.earned_uremes, seen.moved_bytes), (Some(PRICE), 9 + 3));
    assert_eq!(bench.broker.unpaid().unwrap().uremes, PRICE);
}

#[test]
fn a_call_is_refused_whose_caller_has_not_agreed_to_the_price_cannot_pay_it_or_is_nobody() {
    let wallet = Wallet::of(PRICE - 1);
    let (mut bench, token) = billing(&wallet);
    let node = bench.node("a", vec![priced("train")]);
    let alice = bench.user(&token);
    bench.call(alice, 1, "train");
    let words = bench.refused(alice);
    assert!(
        words.contains("costs 40 uremes") && words.contains("max_price"),
        "{words}"
    );
    bench.receive(alice, call(2, &agreeing("train", PRICE - 1)));
    assert!(bench.refused(alice).contains("costs 40 uremes"));
    bench.receive(alice, call(3, &agreeing("train", PRICE)));
    assert_eq!(bench.refused(alice), "alice has 39 left");
    let nobody = bench.client();
    bench.receive(nobody, call(1, &agreeing("train", PRICE)));
    assert!(bench.refused(nobody).contains("token"));
    assert_eq!(kinds(&bench.sent(node)), []);
    assert_eq!(wallet.coins(), (PRICE - 1, 0, 0));
    assert_eq!(bench.broker.open_calls(), 0);
}

#[test]
fn a_cheaper_node_takes_the_call_where_the_price_of_another_is_too_high() {
    let wallet = Wallet::of(100);
    let (mut bench, token) = billing(&wallet);
    bench.node("dear", vec![priced("train")]);
    let free = bench.node("free", vec![function("train")]);
    let alice = bench.user(&token);
    for number in 1..=2 {
        bench.call(alice, number, "train");
        bench.given(free);
    }
    assert_eq!(wallet.coins(), (100, 0, 0));
}

#[test]
fn what_fails_costs_nothing() {
    let wallet = Wallet::of(100);
    let (mut bench, token) = billing(&wallet);
    let node = bench.node("a", vec![priced("train")]);
    let alice = bench.user(&token);
    bench.receive(alice, call(1, &agreeing("train", PRICE)));
    let given = bench.given(node);
    // Some of the answer came before.
    bench.receive(node, data(given.call, 3, Flags::ITEM));
    let raised = Failure::new(Reason::Raised, "no");
    bench.receive(node, with_head(Kind::Failed, given.call, &raised));
    assert_eq!(wallet.coins(), (100, 0, 0));
    bench.receive(alice, call(2, &agreeing("train", PRICE)));
    bench.given(node);
    bench.broker.disconnect(node, bench.now);
    assert_eq!(wallet.coins(), (100, 0, 0));
}

#[test]
fn a_call_given_up_costs_its_price_if_its_answer_had_begun() {
    let wallet = Wallet::of(100);
    let (mut bench, token) = billing(&wallet);
    let node = bench.node("a", vec![priced("train")]);
    let alice = bench.user(&token);
    let cancelled = Failure::new(Reason::Cancelled, "nobody waits");
    for (number, begun, expected) in [(1, false, (100, 0, 0)), (2, true, (60, 0, 40))] {
        bench.receive(alice, call(number, &agreeing("train", PRICE)));
        let given = bench.given(node);
        if begun {
            bench.receive(node, data(given.call, 3, Flags::ITEM));
        }
        bench.receive(alice, Frame::bare(Kind::Cancel, number));
        assert_eq!(kinds(&bench.sent(node)), [Kind::Cancel]);
        // Whether or not the node ever says that it has stopped.
        assert_eq!(wallet.coins(), expected);
        bench.receive(node, with_head(Kind::Failed, given.call, &cancelled));
        assert_eq!(wallet.coins(), expected);
    }
    // A node that answers too late is not paid either.
    bench.receive(alice, call(3, &agreeing("train", PRICE)));
    let given = bench.given(node);
    bench.receive(alice, Frame::bare(Kind::Cancel, 3));
    bench.sent(node);
    bench.receive(node, data(given.call, 3, Flags::LAST));
    assert_eq!(wallet.coins(), (60, 0, 40));
}

#[test]
fn a_call_whose_time_is_over_is_settled_though_its_node_says_nothing() {
    let wallet = Wallet::of(100);
    let (mut bench, token) = billing(&wallet);
    let node = bench.node("a", vec![priced("train")]);
    let alice = bench.user(&token);
    for (number, begun, expected) in [(1, false, (100, 0, 0)), (2, true, (60, 0, 40))] {
        let head = CallHead {
            deadline_ms: Some(1_000),
            ..agreeing("train", PRICE)
        };
        bench.receive(alice, call(number, &head));
        let given = bench.given(node);
        if begun {
            bench.receive(node, data(given.call, 3, Flags::ITEM));
        }
        bench.now = bench.now.after(1_000_000);
        bench.broker.tick(bench.now);
        assert_eq!(bench.failure(alice).reason, Reason::DeadlineExceeded);
        assert_eq!(wallet.coins(), expected);
        bench.sent(node);
    }
}

#[test]
fn a_price_is_set_aside_until_the_call_must_have_ended() {
    let wallet = Wallet::of(1_000);
    let (mut bench, token) = billing(&wallet);
    let quick = FunctionInfo {
        timeout_ms: Some(5_000),
        ..priced("quick")
    };
    bench.node("a", vec![priced("train"), quick]);
    let alice = bench.user(&token);
    let day = Limits::default().deadline_us;
    let cases = [
        ("train", None, day),
        ("train", Some(2_000), 2_000_000),
        ("quick", None, 5_000_000),
        ("quick", Some(9_000), 9_000_000),
    ];
    for (number, (name, deadline_ms, micros)) in (1..).zip(cases) {
        let head = CallHead {
            deadline_ms,
            ..agreeing(name, PRICE)
        };
        bench.receive(alice, call(number, &head));
        let end = wallet.0.lock().unwrap().end;
        assert_eq!(end, bench.now.after(micros), "{name} {deadline_ms:?}");
        bench.receive(alice, Frame::bare(Kind::Cancel, number));
        let (node, _) = bench.broker.nodes["a"];
        let given = bench.sent(node).remove(0);
        let cancelled = Failure::new(Reason::Cancelled, "nobody waits");
        bench.receive(node, with_head(Kind::Failed, given.call, &cancelled));
    }
}

#[test]
fn a_call_that_goes_to_another_node_is_paid_once() {
    let wallet = Wallet::of(100);
    let (mut bench, token) = billing(&wallet);
    let again = FunctionInfo {
        idempotent: true,
        ..priced("train")
    };
    let first = bench.node("a", vec![again.clone()]);
    let alice = bench.user(&token);
    bench.receive(alice, call(1, &agreeing("train", PRICE)));
    bench.given(first);
    let second = bench.node("b", vec![again]);
    bench.broker.disconnect(first, bench.now);
    let given = bench.given(second);
    assert_eq!(wallet.coins(), (60, 40, 0));
    bench.receive(second, data(given.call, 1, Flags::LAST));
    assert_eq!(wallet.coins(), (60, 0, 40));
}

#[test]
fn a_call_from_another_gateway_is_paid_there() {
    let wallet = Wallet::of(100);
    let (mut bench, _) = billing(&wallet);
    let node = bench.node("a", vec![priced("train")]);
    let gateway = bench.broker.connect_gateway("other", bench.now);
    bench.sent(gateway);
    let head = CallHead {
        caller: Some(Caller {
            user: "alice".into(),
            ..Caller::default()
        }),
        ..agreeing("train", PRICE)
    };
    bench.receive(gateway, call(1, &head));
    let given = bench.given(node);
    bench.receive(node, data(given.call, 1, Flags::LAST));
    assert_eq!(wallet.coins(), (100, 0, 0));
}

#[test]
fn a_price_is_refused_where_nothing_pays_and_one_that_cannot_be_paid_anywhere() {
    let wallet = Wallet::of(100);
    let reason = |mut bench: Bench, info| {
        let told = bench.registering(info);
        assert_eq!(told.kind, Kind::Goodbye);
        Goodbye::decode(&told.head).unwrap().reason
    };
    let off = reason(Bench::new(), priced("train"));
    assert!(
        off.contains("train") && off.contains("billing is off"),
        "{off}"
    );
    let mut strange = priced("train");
    strange.price.as_mut().unwrap().payee = "nobody".into();
    let refused = reason(billing(&wallet).0, strange);
    assert_eq!(refused, "train: nobody is no account");
    let mut nothing = priced("train");
    nothing.price.as_mut().unwrap().uremes = 0;
    let refused = reason(billing(&wallet).0, nothing);
    assert!(refused.contains("above 0"), "{refused}");
}
