//! Bytes of a connection that nobody can be trusted to have written: random ones, and those of whole
//! sessions with faults in them. They end their own connection at worst.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::wire::{
    MAX_BODY_BYTES,
    messages::{Ask, MAX_HEAD_BYTES, Progress, Question},
};

/// A fault in a session's bytes.
#[derive(Clone, Debug)]
enum Fault {
    /// This byte becomes another one.
    Set(usize, u8),
    /// These bytes are left out.
    Cut(usize, usize),
    /// These bytes come once more, somewhere else.
    Copy(usize, usize, usize),
    /// Bytes that mean nothing.
    Insert(usize, Vec<u8>),
}

impl Fault {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let within = |at: usize, bytes: &Vec<u8>| at % (bytes.len() + 1);
        match self {
            Self::Set(at, byte) => {
                let at = within(*at, bytes);
                if let Some(place) = bytes.get_mut(at) {
                    *place = *byte;
                }
            }
            Self::Cut(at, length) => {
                let at = within(*at, bytes);
                let end = (at + length).min(bytes.len());
                bytes.drain(at..end);
            }
            Self::Copy(at, length, to) => {
                let (at, to) = (within(*at, bytes), within(*to, bytes));
                let copied = bytes[at..(at + length).min(bytes.len())].to_vec();
                bytes.splice(to..to, copied);
            }
            Self::Insert(at, new) => {
                let at = within(*at, bytes);
                bytes.splice(at..at, new.iter().copied());
            }
        }
    }
}

fn any_fault() -> impl Strategy<Value = Fault> {
    let length = 0..200usize;
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Fault::Set(at, byte)),
        1 => (any::<usize>(), length.clone()).prop_map(|(at, length)| Fault::Cut(at, length)),
        1 => (any::<usize>(), length, any::<usize>())
            .prop_map(|(at, length, to)| Fault::Copy(at, length, to)),
        1 => (any::<usize>(), proptest::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, bytes)| Fault::Insert(at, bytes)),
    ]
}

/// What one connection says in a valid session, as a node that calls too or as a client.
fn session(node: bool, nonce: &[u8; 32]) -> Vec<u8> {
    let key = SigningKey::from([77; 32]);
    let hello = Hello {
        protocol: PROTOCOL,
        agent: "fuzz".into(),
        token: None,
        node: node.then(|| NodeHello {
            id: "fuzzed".into(),
            key: key.verification_key().to_bytes(),
            signature: key.sign(&node_proof(nonce, "fuzzed")).to_bytes(),
            capabilities: Default::default(),
            max_concurrent: 4,
            resources: BTreeMap::from([("gpu_memory".into(), 16e9)]),
        }),
    };
    let offered = Register {
        functions: vec![function("theirs"), function("shared")],
    };
    let register = Frame {
        body: rmp_serde::to_vec_named(&offered).unwrap().into(),
        ..Frame::bare(Kind::Register, 0)
    };
    let mut named = CallHead::new("shared");
    named.deadline_ms = Some(5000);
    named.requirements = serde_json::from_str(r#"{"gpu_memory": "1GB"}"#).unwrap();
    let open = Frame {
        flags: Flags::NONE,
        ..call(2, &CallHead::new("slow"))
    };
    let mut frames = vec![with_head(Kind::Hello, 0, &hello)];
    if node {
        frames.push(register);
        // Of calls that the broker gave it.
        frames.push(data(1 << 31, 40, Flags::ITEM));
        frames.push(with_head(Kind::Progress, 1 << 31, &Progress::default()));
        frames.push(data(1 << 31, 3, Flags::LAST));
    }
    frames.extend([
        call(1, &CallHead::new("shared")),
        open,
        data(2, 300, Flags::ITEM),
        with_head(Kind::Credit, 2, &Credit { bytes: 70_000 }),
        call(3, &named),
        with_head(Kind::Ask, 4, &Ask::new(Question::Functions)),
        Frame::bare(Kind::Ping, 0),
        data(2, 0, Flags::END),
        Frame::bare(Kind::Cancel, 2),
    ]);
    let mut bytes = BytesMut::new();
    for frame in frames {
        frame.encode_head(&mut bytes);
        bytes.extend_from_slice(&frame.body);
    }
    bytes.to_vec()
}

/// What a call may make the broker keep.
const MOST_OF_A_CALL: usize =
    2 * (2 * WINDOW_BYTES as usize + MAX_HEAD_BYTES + 16 * 64 + MAX_BODY_BYTES);

impl Bench {
    /// Takes bytes as a connection's reader does; whether they were frames.
    fn read(&mut self, peer: PeerId, waiting: &mut BytesMut) -> bool {
        loop {
            match Frame::decode(waiting) {
                Ok(Some(frame)) => self.receive(peer, frame),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn kept_bytes(&self) -> usize {
        self.broker.calls.values().map(Call::kept_bytes).sum()
    }
}

/// Feeds bytes to a broker with a node and a client of which nobody may notice anything.
fn feed(
    bytes: &[u8],
    chunk: usize,
    faults: &[Fault],
    as_node: Option<bool>,
) -> Result<(), TestCaseError> {
    let mut bench = Bench::new();
    let good = bench.node("good", vec![function("add")]);
    let other = bench.node("other", vec![function("slow"), function("shared")]);
    let client = bench.client();
    let (peer, nonce) = bench.open();
    let mut all = match as_node {
        Some(node) => session(node, &nonce),
        None => bytes.to_vec(),
    };
    for fault in faults {
        fault.apply(&mut all);
    }
    let mut waiting = BytesMut::new();
    for piece in all.chunks(chunk) {
        waiting.extend_from_slice(piece);
        if !bench.read(peer, &mut waiting) {
            break;
        }
        let calls = bench.broker.open_calls();
        prop_assert!(bench.kept_bytes() <= calls * MOST_OF_A_CALL);
    }
    bench.sent(good);
    bench.now = bench.now.after(1000);
    bench.broker.tick(bench.now);
    // They call, and are answered, whatever was said beside them.
    let mut here = CallHead::new("add");
    here.node = Some("good".into());
    bench.receive(client, call(1, &here));
    let given = bench.given(good);
    bench.receive(good, data(given.call, 3, Flags::LAST));
    prop_assert_eq!(bench.sent(client), [data(1, 3, Flags::LAST)]);
    bench.broker.disconnect(peer, bench.now);
    prop_assert_eq!(bench.broker.peers.len(), 3);
    prop_assert_eq!(bench.broker.nodes.len(), 2);
    for peer in [good, other, client] {
        bench.broker.disconnect(peer, bench.now);
    }
    prop_assert_eq!(bench.broker.open_calls(), 0);
    prop_assert_eq!(bench.kept_bytes(), 0);
    prop_assert!(bench.broker.deadlines.is_empty());
    Ok(())
}

#[test]
fn the_sessions_that_faults_are_made_in_are_valid() {
    for node in [false, true] {
        let mut bench = Bench::new();
        bench.node("good", vec![function("slow"), function("shared")]);
        let (peer, nonce) = bench.open();
        let mut waiting = BytesMut::from(&session(node, &nonce)[..]);
        assert!(bench.read(peer, &mut waiting) && waiting.is_empty());
        let sent = bench.sent(peer);
        assert_eq!(sent[0].kind, Kind::Welcome);
        assert!(kinds(&sent).contains(&Kind::Answer), "{sent:?}");
        assert!(bench.broker.peers.contains_key(&peer));
    }
}

proptest! {
    #[test]
    fn faults_in_a_session_end_nobody_elses(
        node in any::<bool>(),
        faults in proptest::collection::vec(any_fault(), 1..12),
        chunk in 1..2000usize,
    ) {
        feed(&[], chunk, &faults, Some(node))?;
    }

    #[test]
    fn random_bytes_end_nobody_elses_session(
        bytes in proptest::collection::vec(any::<u8>(), 0..3000),
        chunk in 1..2000usize,
    ) {
        feed(&bytes, chunk, &[], None)?;
    }

    #[test]
    fn random_heads_and_bodies_of_every_kind_end_nobody_elses_session(
        frames in proptest::collection::vec(
            (1..36u8, 0..4u8, 0..5u32, proptest::collection::vec(any::<u8>(), 0..60),
             proptest::collection::vec(any::<u8>(), 0..60)),
            1..30,
        ),
        node in any::<bool>(),
        chunk in 1..2000usize,
    ) {
        let mut bytes = Vec::new();
        for (kind, flags, call, head, body) in frames {
            bytes.extend(((head.len() + body.len()) as u32).to_le_bytes());
            bytes.extend(call.to_le_bytes());
            bytes.extend([kind, flags]);
            bytes.extend((head.len() as u16).to_le_bytes());
            bytes.extend(head.into_iter().chain(body));
        }
        feed(&[], chunk, &[Fault::Insert(usize::MAX, bytes)], Some(node))?;
    }
}
