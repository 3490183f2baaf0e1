//! What goes wrong around calls: networks that are cut, tokens that end, peers that lie, functions that
//! never return. Nothing hangs, nothing is left behind, and nobody else notices.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use r3mes_functions::{
    Failure, Reason,
    broker::Limits,
    client::Client,
    registry::FunctionInfo,
    tokens::{Secret, Tokens},
    wire::{
        Flags, Frame, Kind, PREFACE,
        messages::{CallHead, Challenge, Credit, Head, Hello, PROTOCOL, Welcome},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::network::{Network, client_at, soon, start, until};

/// A path between two ends that can be cut: bytes stop, and no connection ends.
struct Path {
    address: SocketAddr,
    passes: watch::Sender<bool>,
}

impl Path {
    async fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passes = watch::Sender::new(true);
        let passing = passes.subscribe();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let passing = passing.clone();
                connections.spawn(async move {
                    let far = TcpStream::connect(broker).await.unwrap();
                    let ((near_read, near_write), (far_read, far_write)) =
                        (near.into_split(), far.into_split());
                    tokio::join!(
                        pass(near_read, far_write, passing.clone()),
                        pass(far_read, near_write, passing)
                    );
                });
            }
        });
        Self { address, passes }
    }

    fn cut(&self) {
        self.passes.send_replace(false);
    }

    fn heal(&self) {
        self.passes.send_replace(true);
    }
}

/// Copies bytes while they may pass, until one end closes.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passing: watch::Receiver<bool>,
) {
    let mut buffer = [0; 4096];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        if passing.wait_for(|passes| *passes).await.is_err()
            || to.write_all(&buffer[..bytes]).await.is_err()
        {
            return;
        }
    }
    // Who is cut off does not learn that the other end closed either.
    let _ = passing.wait_for(|passes| *passes).await;
    let _ = to.shutdown().await;
}

/// Limits with silences that a test can wait for.
fn impatient() -> Limits {
    Limits {
        silence_us: 6_000_000,
        ..Limits::default()
    }
}

async fn echo(client: &Client) -> Result<Bytes, Failure> {
    let reply = client.call(&CallHead::new("echo"), "here").await?;
    reply.result().await
}

/// A call that runs until it is cancelled, as soon as a node has it.
async fn running(network: &Network, client: &Client) -> r3mes_functions::client::Reply {
    let before = network.running.load(Ordering::SeqCst);
    let reply = client.call(&CallHead::new("forever"), "").await.unwrap();
    until("the call runs", async || {
        (network.running.load(Ordering::SeqCst) > before).then_some(())
    })
    .await;
    reply
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.encode_head(&mut bytes);
    bytes.extend_from_slice(&frame.body);
    bytes
}

fn frame(kind: Kind, call: u32, head: &impl Head) -> Frame {
    Frame {
        head: head.encode().unwrap(),
        ..Frame::bare(kind, call)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_network_is_cut_loses_its_calls_and_comes_back() {
    let network = Network::new(impatient(), Tokens::default()).await;
    let path = Path::to(network.address).await;
    let node = network.node_at(&path.address.to_string(), "far", 1);
    let _node = start(node, network.stop.child_token()).await;
    let client = network.client().await;
    let reply = running(&network, &client).await;
    path.cut();
    let failure = soon("the cut is noticed", reply.result())
        .await
        .unwrap_err();
    assert_eq!(failure.reason, Reason::NodeLost);
    assert!(failure.message.contains("\"far\""), "{failure}");
    let none = echo(&client).await.unwrap_err();
    assert_eq!(none.reason, Reason::NotFound);
    path.heal();
    until("the node is back", async || echo(&client).await.ok()).await;
    network.until_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_cut_off_takes_the_place_of_its_old_connection() {
    // The node notices long before the broker would.
    let limits = Limits {
        silence_us: 15_000_000,
        ..Limits::default()
    };
    let network = Network::new(limits, Tokens::default()).await;
    let path = Path::to(network.address).await;
    let stop = network.stop.child_token();
    let first = network.node_at(&path.address.to_string(), "far", 1);
    let (first, ended) = start(first, stop).await;
    path.cut();
    ended.cancel();
    first.await.unwrap().unwrap();
    let again = network.node_at(&network.address.to_string(), "far", 1);
    let again = start(again, network.stop.child_token());
    let _again = soon("the node is back", again).await;
    let client = network.client().await;
    assert_eq!(echo(&client).await.unwrap(), "here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_network_is_cut_is_told_and_its_calls_are_cancelled() {
    let network = Network::new(impatient(), Tokens::default()).await;
    let _node = network.started("a").await;
    let path = Path::to(network.address).await;
    let client = client_at(path.address, None).await.unwrap();
    let reply = running(&network, &client).await;
    path.cut();
    let failure = soon("the cut is noticed", reply.result())
        .await
        .unwrap_err();
    assert_eq!(failure.reason, Reason::Disconnected);
    assert!(failure.message.contains("nothing is heard"), "{failure}");
    network.until_idle().await;
    path.heal();
    let again = client_at(path.address, None).await.unwrap();
    assert_eq!(echo(&again).await.unwrap(), "here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_while_its_owner_is_connected_ends_the_calls() {
    let secret = Secret::new().unwrap();
    let kept = |end| Tokens::new([secret.kept("alice", Vec::new(), end)]);
    let network = Network::new(Limits::default(), kept(None)).await;
    let _node = network.started("a").await;
    let token = Some(secret.expose());
    let stranger = network.client().await;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ends = [
        (kept(Some(now().as_secs() + 1)), "expired"),
        (Tokens::default(), "revoked"),
    ];
    for (tokens, word) in ends {
        network.hub.set_tokens(kept(None));
        let alice = network.client_with(token).await.unwrap();
        let reply = running(&network, &alice).await;
        network.hub.set_tokens(tokens);
        let failure = soon("the token's end", reply.result()).await.unwrap_err();
        assert_eq!(failure.reason, Reason::Disconnected);
        assert!(failure.message.contains(word), "{failure}");
        network.until_idle().await;
        let refused = network.client_with(token).await.unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
    }
    assert_eq!(echo(&stranger).await.unwrap(), "here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lies_about_its_id_is_refused_and_the_true_one_goes_on() {
    let network = Network::open().await;
    let broker = network.address.to_string();
    let (_running, stop) =
        start(network.node_at(&broker, "a", 1), network.stop.child_token()).await;
    let liar = network.node_at(&broker, "a", 2).run(stop.clone());
    let refusal = soon("the liar is refused", liar).await.unwrap_err();
    assert!(refusal.to_string().contains("another key"), "{refusal}");
    let client = network.client().await;
    assert_eq!(echo(&client).await.unwrap(), "here");
    // Neither is the id to be had while its owner is away.
    stop.cancel();
    until("the owner is away", async || {
        client.nodes().await.unwrap().is_empty().then_some(())
    })
    .await;
    let liar = network.node_at(&broker, "a", 2);
    let liar = liar.run(network.stop.child_token());
    let refusal = soon("the liar is refused", liar).await.unwrap_err();
    assert!(refusal.to_string().contains("another key"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_never_returns_ends_at_its_deadline_and_holds_only_its_own_place() {
    let network = Network::open().await;
    let mut node = network.node_at(&network.address.to_string(), "a", 1);
    let stuck = FunctionInfo {
        timeout_ms: Some(50),
        ..FunctionInfo::new("stuck")
    };
    node.register(stuck, |call| async move {
        let _held = call;
        std::future::pending().await
    })
    .unwrap();
    let _node = start(node, network.stop.child_token()).await;
    let client = network.client().await;
    let mut bounded = CallHead::new("stuck");
    bounded.deadline_ms = Some(50);
    // The first has the function's only place for good; the second waits for it, up to its own deadline.
    for head in [CallHead::new("stuck"), bounded] {
        let reply = client.call(&head, "").await.unwrap();
        let failure = soon("the deadline", reply.result()).await.unwrap_err();
        assert_eq!(failure.reason, Reason::DeadlineExceeded);
    }
    assert_eq!(echo(&client).await.unwrap(), "here");
    let view = network.hub.with(|broker, _| broker.view());
    assert_eq!((view.calls, view.waiting), (1, 0), "its place is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_panics_fails_its_call_and_no_other() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let client = network.client().await;
    let reply = client.call(&CallHead::new("panic"), "luck").await.unwrap();
    let failure = soon("the failure", reply.result()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Raised);
    assert_eq!(failure.exception.as_deref(), Some("panic"));
    assert!(failure.message.contains("luck"), "{failure}");
    assert_eq!(echo(&client).await.unwrap(), "here");
    network.until_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_nobody_reads_is_cut_while_others_call_on() {
    let network = Network::open().await;
    let _nodes = (network.started("a").await, network.started("b").await);
    let mut dead = TcpStream::connect(network.address).await.unwrap();
    let hello = Hello {
        protocol: PROTOCOL,
        agent: "dead".into(),
        token: None,
        node: None,
    };
    let mut sent = BytesMut::from(&PREFACE[..]);
    sent.extend_from_slice(&encoded(&frame(Kind::Hello, 0, &hello)));
    for call in 1..=100 {
        let open = Frame {
            flags: Flags::LAST,
            ..frame(Kind::Call, call, &CallHead::new("flood"))
        };
        sent.extend_from_slice(&encoded(&open));
        let much = Credit { bytes: u32::MAX };
        sent.extend_from_slice(&encoded(&frame(Kind::Credit, call, &much)));
    }
    dead.write_all(&sent).await.unwrap();
    let others = network.client().await;
    let connections = || network.hub.with(|broker, _| broker.view().connections);
    let mut calls = 0;
    soon("the dead connection is cut", async {
        while connections() > 3 || calls < 100 {
            assert_eq!(echo(&others).await.unwrap(), "here");
            calls += 1;
        }
    })
    .await;
    network.until_idle().await;
    drop(dead);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_nodes_go_on_with_a_gateway_that_was_restarted() {
    let network = Network::open().await;
    let address = network.address;
    let node = network.node_at(&address.to_string(), "a", 1);
    let _node = start(node, CancellationToken::new()).await;
    let client = network.client().await;
    let reply = running(&network, &client).await;
    network.end().await;
    let failure = soon("the call ends", reply.result()).await.unwrap_err();
    assert!(
        matches!(failure.reason, Reason::Disconnected | Reason::NodeLost),
        "{failure:?}"
    );
    let listener = until("the port is free", async || {
        TcpListener::bind(address).await.ok()
    })
    .await;
    let again = Network::on(listener, Limits::default(), Tokens::default());
    let client = again.client().await;
    until("the node is back", async || echo(&client).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_leaves_a_broker_that_keeps_dropping_it_for_the_next() {
    let network = Network::open().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bad = listener.local_addr().unwrap();
    let challenge = Challenge {
        protocol: PROTOCOL,
        nonce: [7; 32],
    };
    let welcome = Welcome {
        protocol: PROTOCOL,
        silence_ms: 15_000,
        max_calls: 1,
    };
    let mut greeting = encoded(&frame(Kind::Challenge, 0, &challenge));
    greeting.extend_from_slice(&encoded(&frame(Kind::Welcome, 0, &welcome)));
    tokio::spawn(async move {
        while let Ok((mut node, _)) = listener.accept().await {
            let _ = node.write_all(&greeting).await;
        }
    });
    let node = network.node_at(&format!("{bad},{}", network.address), "a", 1);
    let started = start(node, network.stop.child_token());
    let _node = soon("the node is at the second broker", started).await;
    assert_eq!(echo(&network.client().await).await.unwrap(), "here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_calls_cancelled_at_any_moment_leave_nothing() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let client = Arc::new(network.client().await);
    let mut callers = JoinSet::new();
    for caller in 0..8u8 {
        let client = Arc::clone(&client);
        callers.spawn(async move {
            for call in 0..1250u16 {
                let [low, high] = call.to_le_bytes();
                let dice = *blake3::hash(&[caller, low, high]).as_bytes();
                let (name, argument) = match dice[0] % 4 {
                    0 => ("forever", ""),
                    1 => ("count", "1000"),
                    _ => ("echo", "here"),
                };
                let reply = client.call(&CallHead::new(name), argument).await;
                let mut reply = reply.unwrap();
                match (dice[1] % 3, name) {
                    (0, _) => drop(reply),
                    (1, "count") => assert!(reply.item().await.unwrap().is_some()),
                    (_, "echo") => assert_eq!(reply.result().await.unwrap(), argument),
                    (2, "count") => while reply.item().await.unwrap().is_some() {},
                    // It may run by now, or not yet.
                    _ => tokio::task::yield_now().await,
                }
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    network.until_idle().await;
    let used = network.hub.with(|broker, _| broker.totals());
    assert!(used.calls > 5000, "{used:?}");
    assert_eq!(echo(&client).await.unwrap(), "here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_announces_much_is_cut_before_it_comes() {
    // Nor for being silent.
    let limits = Limits {
        silence_us: 3_600_000_000,
        ..Limits::default()
    };
    let network = Network::new(limits, Tokens::default()).await;
    let mut stranger = TcpStream::connect(network.address).await.unwrap();
    let mut announced = BytesMut::from(&PREFACE[..]);
    let length = (4u32 << 20).to_le_bytes();
    announced.extend_from_slice(&length);
    announced.extend_from_slice(&[0, 0, 0, 0, Kind::Register as u8, 0, 0, 0]);
    stranger.write_all(&announced).await.unwrap();
    let mut said = Vec::new();
    // The broker may have closed it before everything was read.
    let _ = soon("the connection ends", stranger.read_to_end(&mut said)).await;
    until("the broker forgets it", async || {
        let view = network.hub.with(|broker, _| broker.view());
        (view.connections == 0).then_some(())
    })
    .await;
}
