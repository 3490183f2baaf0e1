//! The broker without sockets: every test feeds frames and looks at what comes out.

use ed25519_consensus::SigningKey;

use super::*;
use crate::{
    failure::Reason,
    registry::FunctionInfo,
    tokens::Secret,
    wire::{
        Flags,
        messages::{CallHead, Challenge, Credit, Hello, NodeHello, PROTOCOL, Register, node_proof},
    },
};

mod billing;
mod cache;
mod fuzz;
mod gateways;
mod waits;

/// A broker and the time.
struct Bench {
    broker: Broker,
    now: Moment,
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits::default(), Tokens::default())
    }

    fn with(limits: Limits, tokens: Tokens) -> Self {
        Self {
            broker: Broker::new(limits, tokens, BTreeMap::new(), 7),
            now: Moment(1_000_000_000),
        }
    }

    /// Opens a connection; the nonce to sign.
    fn open(&mut self) -> (PeerId, [u8; 32]) {
        let peer = self
            .broker
            .connect([peer_byte(&self.broker); 32], self.now)
            .unwrap();
        let challenge = self.sent(peer).remove(0);
        (peer, Challenge::decode(&challenge.head).unwrap().nonce)
    }

    fn receive(&mut self, peer: PeerId, frame: Frame) {
        self.broker.receive(peer, frame, self.now);
    }

    /// Frames for a peer since the last look, but pings; those for others stay.
    fn sent(&mut self, peer: PeerId) -> Vec<Frame> {
        let (mine, rest): (Vec<_>, Vec<_>) = self
            .broker
            .take_actions()
            .into_iter()
            .partition(|action| matches!(action, Action::Send(to, _) if *to == peer));
        self.broker.actions = rest;
        mine.into_iter()
            .filter_map(|action| match action {
                Action::Send(_, frame) if frame.kind != Kind::Ping => Some(frame),
                _ => None,
            })
            .collect()
    }

    fn hello(&mut self, token: Option<&str>, node: Option<(&str, u8)>) -> PeerId {
        let (peer, nonce) = self.open();
        let node = node.map(|(id, key)| {
            let key = SigningKey::from([key; 32]);
            NodeHello {
                id: id.into(),
                key: key.verification_key().to_bytes(),
                signature: key.sign(&node_proof(&nonce, id)).to_bytes(),
                capabilities: Default::default(),
                max_concurrent: 2,
                resources: BTreeMap::new(),
            }
        });
        let hello = Hello {
            protocol: PROTOCOL,
            agent: "test".into(),
            token: token.map(str::to_owned),
            node,
        };
        self.receive(peer, with_head(Kind::Hello, 0, &hello));
        peer
    }

    fn client(&mut self) -> PeerId {
        let peer = self.hello(None, None);
        assert_eq!(kinds(&self.sent(peer)), [Kind::Welcome]);
        peer
    }

    fn node(&mut self, id: &str, functions: Vec<FunctionInfo>) -> PeerId {
        let (peer, given) = self.join(id, functions);
        assert_eq!(given, []);
        peer
    }

    /// A node comes; the calls that waited for it.
    fn join(&mut self, id: &str, functions: Vec<FunctionInfo>) -> (PeerId, Vec<Frame>) {
        let key = id.bytes().fold(1u8, u8::wrapping_add);
        let peer = self.hello(None, Some((id, key)));
        let body = rmp_serde::to_vec_named(&Register { functions }).unwrap();
        let frame = Frame {
            body: body.into(),
            ..Frame::bare(Kind::Register, 0)
        };
        self.receive(peer, frame);
        let mut sent = self.sent(peer);
        let given = sent.split_off(2);
        assert_eq!(kinds(&sent), [Kind::Welcome, Kind::Registered]);
        (peer, given)
    }

    fn call(&mut self, client: PeerId, number: u32, function: &str) {
        self.receive(client, call(number, &CallHead::new(function)));
    }

    /// The one call that a node was given.
    fn given(&mut self, node: PeerId) -> Frame {
        let sent = self.sent(node);
        assert_eq!(kinds(&sent), [Kind::Call]);
        sent.into_iter().next().unwrap()
    }

    fn failure(&mut self, client: PeerId) -> Failure {
        let sent = self.sent(client);
        let failed = sent.iter().find(|frame| frame.kind == Kind::Failed);
        Failure::decode(
            &failed
                .unwrap_or_else(|| panic!("no failure in {sent:?}"))
                .head,
        )
        .unwrap()
    }
}

fn peer_byte(broker: &Broker) -> u8 {
    broker.next_peer as u8
}

fn with_head<H: Head>(kind: Kind, call: u32, head: &H) -> Frame {
    Frame {
        head: head.encode().unwrap(),
        ..Frame::bare(kind, call)
    }
}

fn call(number: u32, head: &CallHead) -> Frame {
    Frame {
        flags: Flags::LAST,
        body: b"arguments".as_slice().into(),
        ..with_head(Kind::Call, number, head)
    }
}

fn data(number: u32, bytes: usize, flags: Flags) -> Frame {
    Frame {
        flags,
        body: vec![0; bytes].into(),
        ..Frame::bare(Kind::Data, number)
    }
}

fn kinds(frames: &[Frame]) -> Vec<Kind> {
    frames.iter().map(|frame| frame.kind).collect()
}

fn function(name: &str) -> FunctionInfo {
    FunctionInfo {
        max_concurrent: 2,
        ..FunctionInfo::new(name)
    }
}

#[test]
fn a_call_reaches_the_node_and_its_result_the_client() {
    let mut bench = Bench::new();
    let node = bench.node("a", vec![function("add")]);
    let client = bench.client();
    bench.call(client, 1, "add");
    let given = bench.given(node);
    assert_eq!(
        (&given.body[..], given.flags),
        (&b"arguments"[..], Flags::LAST)
    );
    let caller = CallHead::decode(&given.head).unwrap().caller.unwrap();
    assert_eq!(caller.user, "");
    bench.receive(node, data(given.call, 3, Flags::LAST));
    let answer = bench.sent(client);
    assert_eq!(answer, [data(1, 3, Flags::LAST)]);
    assert_eq!(bench.broker.open_calls(), 0);
}

#[test]
fn a_function_that_nobody_offers_is_named() {
    let mut bench = Bench::new();
    bench.node("a", vec![function("add")]);
    let client = bench.client();
    bench.call(client, 1, "sub");
    let failure = bench.failure(client);
    assert_eq!(failure.reason, Reason::NotFound);
    assert!(failure.message.contains("sub"), "{failure}");
    let mut elsewhere = CallHead::new("add");
    elsewhere.node = Some("b".into());
    bench.receive(client, call(2, &elsewhere));
    assert!(
        bench
            .failure(client)
            .message
            .contains("\"b\" is not connected")
    );
}

#[test]
fn a_call_waits_for_room_and_users_take_turns() {
    let mut bench = Bench::new();
    let node = bench.node("a", vec![FunctionInfo::new("train")]);
    let client = bench.client();
    bench.call(client, 1, "train");
    bench.call(client, 2, "train");
    let running = bench.given(node);
    assert_eq!(kinds(&bench.sent(client)), [Kind::Queued]);
    bench.receive(node, data(running.call, 1, Flags::LAST));
    assert_eq!(kinds(&bench.sent(client)), [Kind::Data, Kind::Started]);
    bench.given(node);
}

#[test]
fn a_node_that_is_gone_fails_its_calls_at_once() {
    let mut bench = Bench::new();
    let node = bench.node("a", vec![function("add")]);
    let client = bench.client();
    bench.call(client, 1, "add");
    bench.given(node);
    bench.broker.disconnect(node, bench.now);
    assert_eq!(bench.failure(client).reason, Reason::NodeLost);
    assert_eq!(bench.broker.open_calls(), 0);
}

#[test]
fn only_an_idempotent_call_goes_to_another_node() {
    let mut bench = Bench::new();
    let again = FunctionInfo {
        idempotent: true,
        ..function("hash")
    };
    let first = bench.node("a", vec![again.clone()]);
    let client = bench.client();
    bench.call(client, 1, "hash");
    bench.given(first);
    let second = bench.node("b", vec![again]);
    bench.broker.disconnect(first, bench.now);
    let given = bench.given(second);
    assert_eq!(&given.body[..], b"arguments");
    bench.receive(second, data(given.call, 1, Flags::ITEM));
    bench.broker.disconnect(second, bench.now);
    assert_eq!(
        bench.failure(client).reason,
        Reason::NodeLost,
        "it had answered"
    );
}

#[test]
fn a_second_process_cannot_take_a_nodes_id() {
    let mut bench = Bench::new();
    bench.node("gpu", vec![function("f")]);
    let thief = bench.hello(None, Some(("gpu", 99)));
    let goodbye = bench.sent(thief).pop().unwrap();
    let goodbye = Goodbye::decode(&goodbye.head).unwrap();
    assert!(goodbye.reason.contains("another key"), "{goodbye:?}");
    let key = "gpu".bytes().fold(1u8, u8::wrapping_add);
    let twin = bench.hello(None, Some(("gpu", key)));
    let goodbye = bench.sent(twin).pop().unwrap();
    assert!(
        Goodbye::decode(&goodbye.head)
            .unwrap()
            .reason
            .contains("already")
    );
}

#[test]
fn no_more_ids_are_taken_than_a_broker_remembers() {
    let limits = Limits {
        owners: 1,
        ..Limits::default()
    };
    let mut bench = Bench::with(limits, Tokens::default());
    let first = bench.node("a", vec![function("f")]);
    let second = bench.hello(None, Some(("b", 9)));
    let goodbye = bench.sent(second).pop().unwrap();
    assert!(
        Goodbye::decode(&goodbye.head)
            .unwrap()
            .reason
            .contains("no new id")
    );
    bench.broker.disconnect(first, bench.now);
    bench.node("a", vec![function("f")]);
}

#[test]
fn a_signature_for_another_connection_is_refused() {
    let mut bench = Bench::new();
    let (peer, _) = bench.open();
    let key = SigningKey::from([5; 32]);
    let hello = Hello {
        protocol: PROTOCOL,
        agent: String::new(),
        token: None,
        node: Some(NodeHello {
            id: "a".into(),
            key: key.verification_key().to_bytes(),
            signature: key.sign(&node_proof(&[0xee; 32], "a")).to_bytes(),
            capabilities: Default::default(),
            max_concurrent: 1,
            resources: BTreeMap::new(),
        }),
    };
    bench.receive(peer, with_head(Kind::Hello, 0, &hello));
    let goodbye = bench.sent(peer).pop().unwrap();
    assert!(
        Goodbye::decode(&goodbye.head)
            .unwrap()
            .reason
            .contains("not by its key")
    );
}

#[test]
fn tokens_open_functions_to_groups_and_quotas_are_kept_by_user() {
    let secret = Secret::new().unwrap();
    let tokens = Tokens::new([secret.kept("alice", vec!["academic".into()], None)]);
    let mut bench = Bench::with(Limits::default(), tokens);
    let guarded = FunctionInfo {
        access: "academic".parse().unwrap(),
        quota: Some("1_calls_daily".parse().unwrap()),
        ..function("simulate")
    };
    let node = bench.node("hpc", vec![guarded]);
    let stranger = bench.client();
    bench.call(stranger, 1, "simulate");
    let failure = bench.failure(stranger);
    assert_eq!(failure.reason, Reason::Denied);
    assert!(failure.message.contains("academic"), "{failure}");
    let alice = bench.hello(Some(secret.expose()), None);
    bench.call(alice, 1, "simulate");
    bench.given(node);
    bench.call(alice, 2, "simulate");
    let failure = bench.failure(alice);
    assert_eq!(failure.reason, Reason::QuotaExceeded);
    assert!(failure.retry_after_ms.is_some());
    bench.broker.set_tokens(Tokens::default(), bench.now);
    let goodbye = bench.sent(alice).pop().unwrap();
    assert_eq!(goodbye.kind, Kind::Goodbye, "her token was revoked");
}

#[test]
fn a_connection_ends_with_the_token_that_it_came_with() {
    let secret = Secret::new().unwrap();
    let mut bench = Bench::new();
    let end_s = bench.now.0 / 1_000_000 + 10;
    let kept = |end| Tokens::new([secret.kept("alice", Vec::new(), end)]);
    bench.broker.set_tokens(kept(Some(end_s)), bench.now);
    let alice = bench.hello(Some(secret.expose()), None);
    let other = bench.hello(Some(secret.expose()), None);
    bench.sent(alice);
    bench.now = Moment(end_s * 1_000_000 - 1);
    bench.receive(other, Frame::bare(Kind::Ping, 0));
    bench.broker.tick(bench.now);
    assert_eq!(bench.sent(alice), []);
    bench.now = Moment(end_s * 1_000_000);
    bench.broker.tick(bench.now);
    assert_eq!(kinds(&bench.sent(alice)), [Kind::Goodbye]);
    // One whose time was drawn out meanwhile goes on.
    let mut bench = Bench::with(Limits::default(), kept(Some(end_s)));
    let alice = bench.hello(Some(secret.expose()), None);
    bench.sent(alice);
    bench.broker.set_tokens(kept(None), bench.now);
    bench.now = Moment(end_s * 1_000_000);
    bench.broker.tick(bench.now);
    assert_eq!(bench.sent(alice), []);
}

#[test]
fn deadlines_end_calls_and_reach_the_function() {
    let mut bench = Bench::new();
    let node = bench.node("a", vec![FunctionInfo::new("slow")]);
    let client = bench.client();
    let mut head = CallHead::new("slow");
    head.deadline_ms = Some(50);
    bench.receive(client, call(1, &head));
    bench.receive(client, call(2, &head));
    let given = bench.given(node);
    bench.now = bench.broker.next_deadline().unwrap();
    bench.broker.tick(bench.now);
    let failed = bench.sent(client);
    assert_eq!(kinds(&failed), [Kind::Queued, Kind::Failed, Kind::Failed]);
    assert_eq!(bench.sent(node), [Frame::bare(Kind::Cancel, given.call)]);
    bench.call(client, 3, "slow");
    assert_eq!(
        kinds(&bench.sent(client)),
        [Kind::Queued],
        "its place is taken until it returns"
    );
    bench.receive(node, data(given.call, 1, Flags::LAST));
    bench.given(node);
}

#[test]
fn who_sends_more_than_was_granted_loses_the_call_only() {
    let mut bench = Bench::new();
    let node = bench.node("a", vec![function("upload")]);
    let client = bench.client();
    let open = Frame {
        flags: Flags::NONE,
        ..call(1, &CallHead::new("upload"))
    };
    bench.receive(client, open);
    let given = bench.given(node);
    let half = WINDOW_BYTES as usize / 2;
    bench.receive(client, data(1, half, Flags::NONE));
    let grant = Credit {
        bytes: WINDOW_BYTES,
    };
    bench.receive(node, with_head(Kind::Credit, given.call, &grant));
    bench.receive(client, data(1, 2 * half, Flags::NONE));
    assert_eq!(kinds(&bench.sent(client)), [Kind::Credit]);
    bench.receive(client, data(1, half, Flags::NONE));
    assert_eq!(bench.failure(client).reason, Reason::Invalid);
    assert_eq!(bench.sent(node).last().unwrap().kind, Kind::Cancel);
    bench.call(client, 2, "upload");
    bench.given(node);
}

#[test]
fn a_grant_without_end_grants_a_wide_window() {
    let mut bench = Bench::new();
    let node = bench.node("a", vec![function("upload")]);
    let client = bench.client();
    let open = Frame {
        flags: Flags::NONE,
        ..call(1, &CallHead::new("upload"))
    };
    let begun = FRAME_COST + open.body.len() as u32;
    bench.receive(client, open);
    let given = bench.given(node);
    let much = Credit { bytes: u32::MAX };
    let ways = [
        (client, 1, node, given.call, 0),
        (node, given.call, client, 1, begun),
    ];
    for (from, number, to, far, sent) in ways {
        let grant = |bench: &mut Bench| {
            bench.receive(from, with_head(Kind::Credit, number, &much));
            let passed_on = bench.sent(to);
            let heads = passed_on
                .iter()
                .map(|frame| Credit::decode(&frame.head).unwrap());
            heads.map(|credit| credit.bytes).collect::<Vec<u32>>()
        };
        assert_eq!(grant(&mut bench), [WIDE_WINDOW_BYTES - WINDOW_BYTES + sent]);
        assert_eq!(grant(&mut bench), [0; 0]);
        bench.receive(to, data(far, 1000, Flags::NONE));
        assert_eq!(kinds(&bench.sent(from)), [Kind::Data]);
        assert_eq!(grant(&mut bench), [1000 + FRAME_COST]);
    }
}

#[test]
fn silent_peers_are_asked_and_then_given_up() {
    let mut bench = Bench::new();
    let node = bench.node("a", vec![function("f")]);
    let client = bench.client();
    bench.call(client, 1, "f");
    bench.sent(node);
    let silence = bench.broker.limits.silence_us;
    bench.now = bench.now.after(silence / 3);
    bench.broker.tick(bench.now);
    let ping = Action::Send(node, Frame::bare(Kind::Ping, 0));
    assert!(bench.broker.take_actions().contains(&ping));
    bench.receive(client, Frame::bare(Kind::Ping, 0));
    bench.now = bench.now.after(silence * 2 / 3);
    bench.broker.tick(bench.now);
    assert_eq!(kinds(&bench.sent(node)), [Kind::Goodbye]);
    assert_eq!(bench.failure(client).reason, Reason::NodeLost);
}

#[test]
fn a_node_that_keeps_failing_is_spared_for_a_while() {
    let mut bench = Bench::new();
    let node = bench.node("a", vec![function("f")]);
    let client = bench.client();
    let fault = Failure::new(Reason::Internal, "broken");
    for number in 1..=5 {
        bench.call(client, number, "f");
        let given = bench.given(node);
        bench.receive(node, with_head(Kind::Failed, given.call, &fault));
        assert_eq!(bench.failure(client).reason, Reason::Internal);
    }
    bench.call(client, 6, "f");
    assert_eq!(kinds(&bench.sent(client)), [Kind::Queued]);
    bench.now = bench.now.after(1_000_000);
    bench.broker.tick(bench.now);
    bench.given(node);
}

#[test]
fn whatever_happens_nothing_is_left_behind() {
    use proptest::prelude::*;

    proptest!(|(steps in proptest::collection::vec((0..9u8, 0..4u32), 1..200))| {
        let mut bench = Bench::new();
        let functions = || vec![FunctionInfo { idempotent: true, ..FunctionInfo::new("f") }, function("g")];
        let mut node = bench.node("a", functions());
        let client = bench.client();
        let (mut number, mut at_node) = (1, Vec::new());
        for (step, which) in steps {
            for frame in bench.sent(node) {
                match frame.kind {
                    Kind::Call => at_node.push(frame.call),
                    Kind::Cancel => prop_assert!(at_node.contains(&frame.call)),
                    _ => {}
                }
            }
            let pick = (!at_node.is_empty()).then(|| which as usize % at_node.len().max(1));
            match step {
                0..3 => {
                    let name = if which % 2 == 0 { "f" } else { "g" };
                    let mut head = CallHead::new(name);
                    head.deadline_ms = (which == 3).then_some(1000);
                    bench.receive(client, call(number, &head));
                    number += 1;
                }
                3 => bench.receive(client, Frame::bare(Kind::Cancel, number.saturating_sub(which))),
                4 => if let Some(at) = pick { bench.receive(node, data(at_node.swap_remove(at), 5, Flags::LAST)) },
                5 => if let Some(at) = pick { bench.receive(node, data(at_node[at], 5, Flags::ITEM)) },
                6 => if let Some(at) = pick {
                    let failure = Failure::new(Reason::Raised, "no");
                    bench.receive(node, with_head(Kind::Failed, at_node.swap_remove(at), &failure));
                },
                7 => {
                    bench.now = bench.now.after(400_000 * u64::from(which));
                    bench.receive(client, Frame::bare(Kind::Ping, 0));
                    bench.receive(node, Frame::bare(Kind::Ping, 0));
                    bench.broker.tick(bench.now);
                }
                _ => {
                    bench.broker.disconnect(node, bench.now);
                    at_node.clear();
                    node = bench.node("a", functions());
                }
            }
            let running: u32 = bench.broker.nodes.values().map(|(_, node)| node.running).sum();
            let by_function = bench.broker.nodes.values()
                .flat_map(|(_, node)| node.functions.values()).map(|offer| offer.running).sum::<u32>();
            prop_assert_eq!(running, by_function);
            prop_assert_eq!(bench.broker.calls.len(), running as usize + bench.broker.queue.len());
            prop_assert!(bench.broker.deadlines.len() <= bench.broker.calls.len());
        }
        bench.broker.disconnect(node, bench.now);
        bench.broker.disconnect(client, bench.now);
        prop_assert_eq!(bench.broker.open_calls(), 0);
        prop_assert_eq!(bench.broker.queue.len(), 0);
        prop_assert!(bench.broker.deadlines.is_empty());
        prop_assert!(bench.broker.peers.is_empty() && bench.broker.nodes.is_empty());
    });
}
