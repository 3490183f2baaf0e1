//! Results that are kept: for whom, how long, and which are not.

use super::*;
use crate::{billing::Price, registry::Access, wire::messages::Cached};

fn cacheable(name: &str) -> FunctionInfo {
    FunctionInfo {
        cacheable: true,
        ..function(name)
    }
}

/// A call of `f` with these arguments that takes results of at most 10 s.
fn asking(number: u32, arguments: &'static [u8]) -> Frame {
    let head = CallHead {
        max_age_ms: Some(10_000),
        ..CallHead::new("f")
    };
    Frame {
        body: arguments.into(),
        ..call(number, &head)
    }
}

/// What comes back to the client, after a node has answered this if it was asked.
fn answered(bench: &mut Bench, node: PeerId, client: PeerId, result: &'static [u8]) -> Vec<Frame> {
    if let Some(given) = bench.sent(node).first() {
        let answer = Frame {
            flags: Flags::LAST,
            body: result.into(),
            ..Frame::bare(Kind::Data, given.call)
        };
        bench.receive(node, answer);
    }
    bench.sent(client)
}

#[test]
fn a_kept_result_is_given_to_who_takes_one_that_old() {
    let mut bench = Bench::new();
    let node = bench.node("n", vec![cacheable("f")]);
    let client = bench.client();
    let ask = |bench: &mut Bench, number, arguments, result| {
        bench.receive(client, asking(number, arguments));
        answered(bench, node, client, result)
    };
    assert_eq!(kinds(&ask(&mut bench, 1, b"x", b"one")), [Kind::Data]);
    bench.now = bench.now.after(7_000_000);
    let kept = ask(&mut bench, 2, b"x", b"two");
    assert_eq!(kinds(&kept), [Kind::Cached, Kind::Data]);
    assert_eq!(Cached::decode(&kept[0].head).unwrap().age_us, 7_000_000);
    assert_eq!(
        (&kept[1].body[..], kept[1].flags),
        (&b"one"[..], Flags::LAST)
    );
    assert_eq!(bench.broker.cache_hits(), 1);
    // Other arguments, a caller who wants a new one, and one for whom it is too old.
    assert_eq!(ask(&mut bench, 3, b"y", b"three")[0].body, "three");
    bench.receive(client, call(4, &CallHead::new("f")));
    assert_eq!(answered(&mut bench, node, client, b"four")[0].body, "four");
    bench.now = bench.now.after(3_000_001);
    assert_eq!(ask(&mut bench, 5, b"x", b"five")[0].body, "five");
    assert_eq!(ask(&mut bench, 6, b"x", b"six")[1].body, "five");
    assert_eq!(bench.broker.open_calls(), 0);
    // A node that says anew what it offers may have changed it.
    bench.receive(node, registering_again());
    assert_eq!(kinds(&bench.sent(node)), [Kind::Registered]);
    assert_eq!(ask(&mut bench, 7, b"x", b"seven")[0].body, "seven");
}

fn registering_again() -> Frame {
    let functions = vec![cacheable("f")];
    let body = rmp_serde::to_vec_named(&Register { functions }).unwrap();
    Frame {
        body: body.into(),
        ..Frame::bare(Kind::Register, 0)
    }
}

#[test]
fn a_result_that_was_begun_before_its_node_registered_anew_is_not_kept() {
    let mut bench = Bench::new();
    let node = bench.node("n", vec![cacheable("f")]);
    let client = bench.client();
    bench.receive(client, asking(1, b"x"));
    let given = bench.given(node);
    bench.receive(node, registering_again());
    assert_eq!(kinds(&bench.sent(node)), [Kind::Registered]);
    let old = Frame {
        flags: Flags::LAST,
        body: (&b"old"[..]).into(),
        ..Frame::bare(Kind::Data, given.call)
    };
    bench.receive(node, old);
    assert_eq!(bench.sent(client)[0].body, "old");
    bench.receive(client, asking(2, b"x"));
    let answer = answered(&mut bench, node, client, b"new");
    assert_eq!(kinds(&answer), [Kind::Data]);
    // That one is.
    bench.receive(client, asking(3, b"x"));
    let kept = answered(&mut bench, node, client, b"newer");
    assert_eq!(kinds(&kept), [Kind::Cached, Kind::Data]);
    assert_eq!(kept[1].body, "new");
}

#[test]
fn what_is_not_declared_so_fails_or_is_long_is_not_kept() {
    let mut bench = Bench::new();
    let node = bench.node("n", vec![function("f")]);
    let client = bench.client();
    for number in 1..3 {
        bench.receive(client, asking(number, b"x"));
        assert_eq!(
            kinds(&answered(&mut bench, node, client, b"r")),
            [Kind::Data]
        );
    }
    let mut bench = Bench::new();
    let node = bench.node("n", vec![cacheable("f")]);
    let client = bench.client();
    bench.receive(client, asking(1, b"x"));
    let given = bench.given(node);
    let failure = Failure::new(Reason::Raised, "no");
    bench.receive(node, with_head(Kind::Failed, given.call, &failure));
    assert_eq!(kinds(&bench.sent(client)), [Kind::Failed]);
    // Two items are no single result.
    bench.receive(client, asking(2, b"x"));
    let given = bench.given(node);
    bench.receive(node, data(given.call, 1, Flags::ITEM));
    bench.receive(node, data(given.call, 1, Flags::LAST));
    assert_eq!(bench.sent(client).len(), 2);
    bench.receive(client, asking(3, b"x"));
    bench.given(node);
    assert_eq!(bench.broker.cache_bytes(), 0);
    for odd in [
        FunctionInfo {
            streams: true,
            ..cacheable("f")
        },
        FunctionInfo {
            price: Some(Price {
                uremes: 1,
                payee: "p".into(),
            }),
            ..cacheable("f")
        },
    ] {
        assert!(odd.check().unwrap_err().contains("cannot be cacheable"));
    }
}

#[test]
fn nobody_gets_a_result_of_what_he_may_not_call() {
    let secret = Secret::new().unwrap();
    let tokens = Tokens::new([secret.kept("alice", vec!["team".into()], None)]);
    let mut bench = Bench::with(Limits::default(), tokens);
    let guarded = FunctionInfo {
        access: Access::Group("team".into()),
        ..cacheable("f")
    };
    let node = bench.node("n", vec![guarded]);
    let alice = bench.hello(Some(secret.expose()), None);
    bench.sent(alice);
    bench.receive(alice, asking(1, b"x"));
    assert_eq!(
        kinds(&answered(&mut bench, node, alice, b"r")),
        [Kind::Data]
    );
    bench.receive(alice, asking(2, b"x"));
    assert_eq!(bench.sent(alice).len(), 2);
    let stranger = bench.client();
    bench.receive(stranger, asking(1, b"x"));
    assert_eq!(bench.failure(stranger).reason, Reason::Denied);

    assert_eq!(bench.broker.cache_hits(), 1);
}
