//! What a call is expected to wait, and nodes that are chosen by it.

use super::*;
use crate::registry::Strategy;

#[test]
fn what_a_call_would_wait_is_foreseen_from_what_others_took() {
    let mut bench = Bench::new();
    let node = bench.node("n", vec![FunctionInfo::new("f")]);
    let client = bench.client();
    let foreseen = |bench: &Bench| {
        let views = bench.broker.all_function_views(bench.now);
        views[0].expected_wait_s
    };
    assert_eq!(foreseen(&bench), Some(0.0));
    bench.call(client, 1, "f");
    let given = bench.given(node);
    // Nothing has ended yet.
    assert_eq!(foreseen(&bench), None);
    bench.now = bench.now.after(3_000_000);
    bench.receive(node, data(given.call, 1, Flags::LAST));
    assert_eq!(foreseen(&bench), Some(0.0));
    for number in 2..5 {
        bench.call(client, number, "f");
    }
    // One runs, two wait, each of 3 s.
    assert_eq!(foreseen(&bench), Some(9.0));
}

#[test]
fn a_call_that_no_breaker_lets_through_waits_until_the_next_probe() {
    let mut bench = Bench::new();
    let node = bench.node("n", vec![FunctionInfo::new("f")]);
    let client = bench.client();
    let foreseen = |bench: &Bench| {
        let view = bench.broker.all_function_views(bench.now).remove(0);
        (view.healthy, view.expected_wait_s)
    };
    for number in 1..=5 {
        bench.call(client, number, "f");
        let given = bench.given(node);
        let lost = Failure::new(Reason::Internal, "out of memory");
        bench.receive(node, with_head(Kind::Failed, given.call, &lost));
    }
    assert_eq!(foreseen(&bench), (false, Some(1.0)));
    bench.now = bench.now.after(400_000);
    assert_eq!(foreseen(&bench), (false, Some(0.6)));
    bench.now = bench.now.after(600_000);
    assert_eq!(foreseen(&bench), (true, Some(0.0)));
    // One call sees; how long it takes nobody knows.
    bench.call(client, 6, "f");
    bench.given(node);
    assert_eq!(foreseen(&bench), (false, None));
}

/// A fast and a slow node, of 1 s and 10 s a call, and a client.
fn unequal() -> (Bench, PeerId, PeerId, PeerId) {
    let mut bench = Bench::new();
    let fast = bench.node("fast", vec![FunctionInfo::new("f")]);
    let slow = bench.node("slow", vec![FunctionInfo::new("f")]);
    let client = bench.client();
    for (number, node, id, seconds) in [(1, fast, "fast", 1), (2, slow, "slow", 10)] {
        let head = CallHead {
            node: Some(id.into()),
            ..CallHead::new("f")
        };
        bench.receive(client, call(number, &head));
        let given = bench.given(node);
        bench.now = bench.now.after(seconds * 1_000_000);
        bench.receive(node, data(given.call, 1, Flags::LAST));
    }
    bench.sent(client);
    (bench, fast, slow, client)
}

fn soonest(number: u32) -> Frame {
    let head = CallHead {
        strategy: Some(Strategy::Soonest),
        ..CallHead::new("f")
    };
    call(number, &head)
}

#[test]
fn a_call_waits_for_the_node_that_is_expected_to_end_it_sooner() {
    let (mut bench, fast, slow, client) = unequal();
    bench.receive(client, soonest(3));
    let first = bench.given(fast);
    // 1 s until that one has ended and 1 s for itself are less than 10 s.
    bench.receive(client, soonest(4));
    assert_eq!(kinds(&bench.sent(client)), [Kind::Queued]);
    // By score a free node is better than one that is busy.
    bench.call(client, 5, "f");
    let other = bench.given(slow);
    bench.receive(slow, data(other.call, 1, Flags::LAST));
    assert_eq!(kinds(&bench.sent(slow)), []);
    bench.receive(fast, data(first.call, 1, Flags::LAST));
    bench.given(fast);
}

#[test]
fn a_line_before_the_fast_node_sends_calls_to_the_slow_one() {
    let (mut bench, fast, slow, client) = unequal();
    bench.receive(client, soonest(3));
    bench.given(fast);
    // Each of those that wait puts it off by a second: the ninth call ends there in 10 s, as on the slow one.
    for number in 4..12 {
        bench.receive(client, soonest(number));
    }
    assert_eq!(kinds(&bench.sent(slow)), []);
    bench.receive(client, soonest(12));
    bench.given(slow);
}

#[test]
fn nobody_waits_longer_for_a_better_node_than_another_one_would_have_taken() {
    let (mut bench, fast, slow, client) = unequal();
    bench.receive(client, soonest(3));
    bench.given(fast);
    bench.receive(client, soonest(4));
    bench.now = bench.now.after(7_900_000);
    // They live.
    for peer in [fast, slow, client] {
        bench.receive(peer, Frame::bare(Kind::Ping, 0));
    }
    bench.broker.tick(bench.now);
    assert_eq!(kinds(&bench.sent(slow)), [Kind::Pong]);
    // What runs on the fast one takes far longer than was expected.
    bench.now = bench.now.after(100_000);
    bench.broker.tick(bench.now);
    bench.given(slow);
}
