//! Brokers that give each other calls, without anything between them but frames.

use proptest::prelude::*;

use super::*;

/// Two brokers, each of which calls the other.
struct Pair {
    sides: [Bench; 2],
    /// On each side: the link on which the other one calls, and the one on which it serves.
    links: [(PeerId, PeerId); 2],
}

impl Pair {
    fn new() -> Self {
        Self::of(Bench::new(), Bench::new())
    }

    fn of(one: Bench, other: Bench) -> Self {
        let mut pair = Self {
            sides: [one, other],
            links: [(0, 0); 2],
        };
        pair.link();
        pair
    }

    fn link(&mut self) {
        for side in 0..2 {
            let (name, now) = (["one", "other"][1 - side], self.sides[side].now);
            let broker = &mut self.sides[side].broker;
            self.links[side] = (
                broker.connect_gateway(name, now),
                broker.connect_remote(name, now),
            );
        }
        self.settle();
    }

    /// Both links are gone.
    fn part(&mut self) {
        for side in 0..2 {
            let (calling, serving) = self.links[side];
            let now = self.sides[side].now;
            self.sides[side].broker.disconnect(calling, now);
            self.sides[side].broker.disconnect(serving, now);
        }
    }

    /// Moves frames between the brokers until there are none.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for from in 0..2 {
                self.sides[from].broker.tell_states();
                let (calling, serving) = self.links[from];
                let (their_calling, their_serving) = self.links[1 - from];
                for (link, theirs) in [(calling, their_serving), (serving, their_calling)] {
                    for frame in self.sides[from].sent(link) {
                        moved = true;
                        self.sides[1 - from].receive(theirs, frame);
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }
}

fn with_quota() -> FunctionInfo {
    FunctionInfo {
        quota: Some("1_calls_daily".parse().unwrap()),
        ..function("train")
    }
}

#[test]
fn a_call_reaches_a_node_of_another_gateway_with_its_caller() {
    let secret = Secret::new().unwrap();
    let tokens = Tokens::new([secret.kept("alice", vec!["academic".into()], None)]);
    let mut pair = Pair::of(Bench::with(Limits::default(), tokens), Bench::new());
    let guarded = FunctionInfo {
        access: "academic".parse().unwrap(),
        ..function("simulate")
    };
    let node = pair.sides[1].node("hpc", vec![guarded]);
    pair.settle();
    let alice = pair.sides[0].hello(Some(secret.expose()), None);
    pair.sides[0].sent(alice);
    pair.sides[0].call(alice, 1, "simulate");
    pair.settle();
    let given = pair.sides[1].given(node);
    let head = CallHead::decode(&given.head).unwrap();
    assert_eq!(head.caller.unwrap().user, "alice");
    let view = &pair.sides[0].broker.node_views()[0];
    assert_eq!((view.gateway.as_deref(), view.running), (Some("other"), 1));
    pair.sides[1].receive(node, data(given.call, 3, Flags::LAST));
    pair.settle();
    assert_eq!(pair.sides[0].sent(alice), [data(1, 3, Flags::LAST)]);
    for side in &pair.sides {
        assert_eq!(side.broker.open_calls(), 0);
        assert_eq!(side.broker.nodes["hpc"].1.running, 0);
    }
}

#[test]
fn a_stranger_is_a_stranger_at_every_gateway() {
    let mut pair = Pair::new();
    let guarded = FunctionInfo {
        access: "academic".parse().unwrap(),
        ..function("simulate")
    };
    pair.sides[1].node("hpc", vec![guarded]);
    pair.settle();
    let stranger = pair.sides[0].client();
    pair.sides[0].call(stranger, 1, "simulate");
    assert_eq!(pair.sides[0].failure(stranger).reason, Reason::Denied);
}

#[test]
fn a_link_that_is_lost_fails_its_calls_at_once() {
    let mut pair = Pair::new();
    let node = pair.sides[1].node("a", vec![function("add")]);
    pair.settle();
    let client = pair.sides[0].client();
    pair.sides[0].call(client, 1, "add");
    pair.settle();
    let given = pair.sides[1].given(node);
    pair.part();
    let failure = pair.sides[0].failure(client);
    assert_eq!(failure.reason, Reason::NodeLost);
    assert!(failure.message.contains("\"a\""), "{failure}");
    assert_eq!(kinds(&pair.sides[1].sent(node)), [Kind::Cancel]);
    pair.sides[1].receive(node, data(given.call, 0, Flags::END));
    assert_eq!(pair.sides[0].broker.nodes.len(), 0);
    pair.link();
    pair.sides[0].call(client, 2, "add");
    pair.settle();
    pair.sides[1].given(node);
}

#[test]
fn an_idempotent_call_goes_from_a_lost_gateway_to_a_node_here() {
    let mut pair = Pair::new();
    let again = FunctionInfo {
        idempotent: true,
        ..function("hash")
    };
    let far = pair.sides[1].node("far", vec![again.clone()]);
    pair.settle();
    let client = pair.sides[0].client();
    pair.sides[0].call(client, 1, "hash");
    pair.settle();
    pair.sides[1].given(far);
    let near = pair.sides[0].node("near", vec![again]);
    pair.part();
    assert_eq!(&pair.sides[0].given(near).body[..], b"arguments");
}

#[test]
fn a_cancelled_call_is_over_at_both_gateways() {
    let mut pair = Pair::new();
    let node = pair.sides[1].node("a", vec![function("add")]);
    pair.settle();
    let client = pair.sides[0].client();
    pair.sides[0].call(client, 1, "add");
    pair.settle();
    let given = pair.sides[1].given(node);
    pair.sides[0].receive(client, Frame::bare(Kind::Cancel, 1));
    pair.settle();
    assert_eq!(kinds(&pair.sides[1].sent(node)), [Kind::Cancel]);
    assert_eq!(pair.sides[0].broker.open_calls(), 0);
    pair.sides[1].receive(node, data(given.call, 0, Flags::END));
    pair.settle();
    assert_eq!(pair.sides[1].broker.open_calls(), 0);
}

#[test]
fn a_call_that_waits_at_another_gateway_says_so() {
    let mut pair = Pair::new();
    let one_at_a_time = FunctionInfo::new("train");
    let node = pair.sides[1].node("a", vec![one_at_a_time]);
    pair.settle();
    let near = pair.sides[1].client();
    pair.sides[1].call(near, 1, "train");
    let given = pair.sides[1].given(node);
    let far = pair.sides[0].client();
    pair.sides[0].call(far, 1, "train");
    pair.settle();
    assert_eq!(kinds(&pair.sides[0].sent(far)), [Kind::Queued]);
    pair.sides[1].receive(node, data(given.call, 0, Flags::LAST));
    pair.settle();
    assert_eq!(kinds(&pair.sides[0].sent(far)), [Kind::Started]);
}

#[test]
fn a_quota_is_one_quota_at_all_gateways() {
    let mut pair = Pair::new();
    let far = pair.sides[1].node("far", vec![with_quota()]);
    pair.settle();
    let client = pair.sides[0].client();
    pair.sides[0].call(client, 1, "train");
    pair.settle();
    let given = pair.sides[1].given(far);
    pair.sides[1].receive(far, data(given.call, 0, Flags::LAST));
    pair.settle();
    pair.sides[0].node("near", vec![with_quota()]);
    pair.sides[0].sent(client);
    let mut near = CallHead::new("train");
    near.node = Some("near".into());
    pair.sides[0].receive(client, call(2, &near));
    assert_eq!(
        pair.sides[0].failure(client).reason,
        Reason::QuotaExceeded,
        "it was used at the other gateway"
    );
}

#[test]
fn a_node_that_went_is_called_no_more_and_one_that_moved_is_called_where_it_is() {
    let mut pair = Pair::new();
    let node = pair.sides[1].node("a", vec![function("add")]);
    pair.settle();
    let moved = pair.sides[0].node("a", vec![function("add")]);
    let now = pair.sides[1].now;
    pair.sides[1].broker.disconnect(node, now);
    pair.settle();
    let client = pair.sides[1].client();
    pair.sides[1].call(client, 1, "add");
    pair.settle();
    pair.sides[0].given(moved);
    pair.sides[0].broker.disconnect(moved, now);
    pair.settle();
    assert_eq!(pair.sides[1].failure(client).reason, Reason::NodeLost);
    pair.sides[1].call(client, 2, "add");
    assert_eq!(pair.sides[1].failure(client).reason, Reason::NotFound);
}

#[test]
fn the_key_that_another_gateway_saw_first_keeps_the_id() {
    let mut pair = Pair::new();
    let node = pair.sides[0].node("gpu", vec![function("f")]);
    let now = pair.sides[0].now;
    pair.sides[0].broker.set_owner("gpu", [9; 32], now);
    let goodbye = pair.sides[0].sent(node).pop().unwrap();
    assert_eq!(goodbye.kind, Kind::Goodbye);
    assert!(pair.sides[0].broker.nodes.is_empty());
}

#[test]
fn a_node_with_another_key_is_not_taken_for_the_one_that_is_known() {
    let mut pair = Pair::new();
    let now = pair.sides[0].now;
    pair.sides[0].broker.set_owner("gpu", [9; 32], now);
    pair.sides[1].node("gpu", vec![function("f")]);
    pair.settle();
    assert!(pair.sides[0].broker.nodes.is_empty());
    assert_eq!(pair.sides[0].broker.owners["gpu"], [9; 32]);
}

#[test]
fn numbers_of_calls_on_a_link_begin_anew_without_the_links_own() {
    let mut pair = Pair::new();
    let node = pair.sides[1].node("a", vec![function("add")]);
    pair.settle();
    let link = pair.links[0].1;
    let peer = pair.sides[0].broker.peers.get_mut(&link).unwrap();
    peer.next_call = u32::MAX >> 1;
    let client = pair.sides[0].client();
    for number in 1..=2 {
        pair.sides[0].call(client, number, "add");
    }
    pair.settle();
    assert_eq!(kinds(&pair.sides[1].sent(node)), [Kind::Call, Kind::Call]);
}

#[test]
fn who_is_no_gateway_tells_of_no_nodes() {
    let mut bench = Bench::new();
    let client = bench.client();
    bench.receive(client, Frame::bare(Kind::Offer, 0));
    assert_eq!(kinds(&bench.sent(client)), [Kind::Goodbye]);
}

proptest! {
    #[test]
    fn whatever_happens_both_gateways_forget_every_call(
        steps in proptest::collection::vec((0..9u8, 0..2usize, 0..4u32), 1..120),
    ) {
        let mut pair = Pair::new();
        let functions = || vec![FunctionInfo { idempotent: true, ..FunctionInfo::new("f") }, function("g")];
        let mut nodes = [0, 1].map(|side| pair.sides[side].node(["a", "b"][side], functions()));
        let clients = [0, 1].map(|side| pair.sides[side].client());
        let mut at_node = [Vec::new(), Vec::new()];
        for (number, (step, side, which)) in (1..).zip(steps) {
            for side in 0..2 {
                for frame in pair.sides[side].sent(nodes[side]) {
                    if frame.kind == Kind::Call {
                        at_node[side].push(frame.call);
                    }
                }
            }
            let pick = (!at_node[side].is_empty()).then(|| which as usize % at_node[side].len());
            match step {
                0..3 => {
                    let mut head = CallHead::new(if which % 2 == 0 { "f" } else { "g" });
                    head.node = (step == 0).then(|| ["b", "a"][side].to_owned());
                    head.deadline_ms = (which == 3).then_some(1000);
                    pair.sides[side].receive(clients[side], call(number, &head));
                }
                3 => pair.sides[side].receive(clients[side], Frame::bare(Kind::Cancel, number.saturating_sub(which))),
                4 | 5 => if let Some(at) = pick {
                    let answer = data(at_node[side].swap_remove(at), 5, Flags::LAST);
                    pair.sides[side].receive(nodes[side], answer);
                },
                6 => {
                    for side in 0..2 {
                        let bench = &mut pair.sides[side];
                        bench.now = bench.now.after(400_000 * u64::from(which));
                        for peer in [clients[side], nodes[side], pair.links[side].0, pair.links[side].1] {
                            bench.receive(peer, Frame::bare(Kind::Ping, 0));
                        }
                        let now = bench.now;
                        bench.broker.tick(now);
                    }
                }
                7 => {
                    let now = pair.sides[side].now;
                    pair.sides[side].broker.disconnect(nodes[side], now);
                    let (node, given) = pair.sides[side].join(["a", "b"][side], functions());
                    nodes[side] = node;
                    at_node[side] = given.iter().map(|frame| frame.call).collect();
                }
                _ if which == 0 => {
                    pair.part();
                    pair.link();
                }
                _ => pair.settle(),
            }
        }
        pair.settle();
        for side in 0..2 {
            let (now, numbers) = (pair.sides[side].now, pair.sides[side].broker.peers.keys().copied());
            for peer in numbers.collect::<Vec<_>>() {
                pair.sides[side].broker.disconnect(peer, now);
            }
            prop_assert_eq!(pair.sides[side].broker.open_calls(), 0);
            prop_assert_eq!(pair.sides[side].broker.queue.len(), 0);
            prop_assert!(pair.sides[side].broker.nodes.is_empty());
        }
    }
}
