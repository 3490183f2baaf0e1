//! What calls come to when all goes well, and when a call itself goes wrong.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use r3mes_functions::{
    Reason,
    broker::Limits,
    node,
    registry::FunctionInfo,
    tokens::{Secret, Tokens},
    wire::{
        Flags, Frame, Kind,
        messages::{CallHead, Credit, Head, Hello, Load, PROTOCOL},
    },
};
use tokio::{io::AsyncWriteExt, sync::watch};

use crate::network::{Network, start};

#[tokio::test]
async fn an_item_that_is_longer_than_it_may_be_fails_the_call_and_no_other() {
    let network = Network::open().await;
    let (_running, _stop) = network.started("n").await;
    let client = network.client().await;
    let reply = client.call(&CallHead::new("echo"), vec![7; 1 << 20]).await;
    let refused = reply.unwrap().bounded(100_000).item().await.unwrap_err();
    assert_eq!(refused.reason, Reason::Invalid);
    assert!(refused.message.contains("100000 bytes"), "{refused}");
    let reply = client.call(&CallHead::new("echo"), vec![7; 1000]).await;
    let item = reply.unwrap().bounded(1000).item().await.unwrap().unwrap();
    assert_eq!(item.len(), 1000);
}

#[tokio::test]
async fn a_call_returns_what_the_function_returns() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let client = network.client().await;
    let reply = client.call(&CallHead::new("echo"), "hello").await.unwrap();
    assert_eq!(reply.result().await.unwrap(), "hello");
    let nodes = client.nodes().await.unwrap();
    assert_eq!((nodes[0].id.as_str(), nodes[0].functions.len()), ("a", 7));
}

#[tokio::test]
async fn what_a_function_raises_reaches_the_caller() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let client = network.client().await;
    let reply = client.call(&CallHead::new("raise"), "").await.unwrap();
    let failure = reply.result().await.unwrap_err();
    assert_eq!(failure.exception.as_deref(), Some("ZeroDivisionError"));
    assert_eq!(failure.to_string(), "division by zero");
}

#[tokio::test]
async fn a_payload_far_larger_than_a_window_passes_both_ways() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let client = network.client().await;
    let payload: Bytes = (0..10_000_000u32)
        .map(|i| (i * 7 + i / 1000) as u8)
        .collect();
    let reply = client
        .call(&CallHead::new("echo"), payload.clone())
        .await
        .unwrap();
    assert!(reply.result().await.unwrap() == payload);
}

#[tokio::test]
async fn an_argument_in_parts_arrives_as_one() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let client = network.client().await;
    let parts = [vec![1; 3], vec![], vec![2; 300_000], vec![], vec![3; 5]].map(Bytes::from);
    let reply = client
        .call_with(&CallHead::new("echo"), parts.clone())
        .await
        .unwrap();
    assert!(reply.result().await.unwrap() == parts.concat());
    assert!(client.is_connected());
    network.stop.cancel();
    while client.is_connected() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn items_stream_in_order_and_empty_ones_count() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let client = network.client().await;
    let mut reply = client.call(&CallHead::new("count"), "20000").await.unwrap();
    for expected in 0..20_000u32 {
        let item = reply.item().await.unwrap().unwrap();
        assert_eq!(item, expected.to_le_bytes().as_slice());
    }
    assert_eq!(reply.item().await.unwrap().unwrap(), "end");
    assert_eq!(reply.item().await.unwrap(), None);
    let (upload, reply) = client.open(&CallHead::new("sum")).await.unwrap();
    for item in [0, 5, 0, 300_000] {
        upload.item(vec![1; item]).await.unwrap();
    }
    upload.end().await.unwrap();
    assert_eq!(reply.result().await.unwrap(), "300005");
}

#[tokio::test]
async fn a_reader_that_stops_reading_stops_nobody_else() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let slow = network.client().await;
    let mut unread = slow.call(&CallHead::new("count"), "1000000").await.unwrap();
    assert!(unread.item().await.unwrap().is_some());
    let other = network.client().await;
    for client in [&other, &slow] {
        let reply = client
            .call(&CallHead::new("echo"), "still here")
            .await
            .unwrap();
        assert_eq!(reply.result().await.unwrap(), "still here");
    }
}

#[tokio::test]
async fn a_reader_that_grants_much_and_reads_nothing_is_cut_off() {
    let network = Network::open().await;
    let _nodes = (network.started("a").await, network.started("b").await);
    let (mut theirs, ours) = tokio::io::duplex(64 << 10);
    let hub = Arc::clone(&network.hub);
    let attended = tokio::spawn(async move {
        let (read, write) = tokio::io::split(ours);
        hub.attend(read, write).await;
    });
    let hello = Hello {
        protocol: PROTOCOL,
        agent: "slow".into(),
        token: None,
        node: None,
    };
    let mut frames = vec![Frame {
        head: hello.encode().unwrap(),
        ..Frame::bare(Kind::Hello, 0)
    }];
    // Each call has one MiB at most on its way, whatever was granted.
    for call in 1..=80 {
        frames.push(Frame {
            head: CallHead::new("flood").encode().unwrap(),
            flags: Flags::LAST,
            ..Frame::bare(Kind::Call, call)
        });
        let much = Credit { bytes: u32::MAX };
        frames.push(Frame {
            head: much.encode().unwrap(),
            ..Frame::bare(Kind::Credit, call)
        });
    }
    for frame in frames {
        let mut bytes = BytesMut::new();
        frame.encode_head(&mut bytes);
        bytes.extend_from_slice(&frame.body);
        theirs.write_all(&bytes).await.unwrap();
    }
    attended.await.unwrap();
    let other = network.client().await;
    let reply = other.call(&CallHead::new("echo"), "fine").await.unwrap();
    assert_eq!(reply.result().await.unwrap(), "fine");
}

#[tokio::test]
async fn a_dropped_reply_cancels_the_function() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let client = network.client().await;
    let reply = client.call(&CallHead::new("forever"), "").await.unwrap();
    while client.nodes().await.unwrap()[0].running == 0 {
        tokio::task::yield_now().await;
    }
    drop(reply);
    while client.nodes().await.unwrap()[0].running > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(network.hub.with(|broker, _| broker.open_calls()), 0);
}

#[tokio::test]
async fn a_deadline_passes_on_time_and_frees_the_place() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let client = network.client().await;
    let mut head = CallHead::new("forever");
    head.deadline_ms = Some(20);
    let reply = client.call(&head, "").await.unwrap();
    let failure = reply.result().await.unwrap_err();
    assert_eq!(failure.reason, Reason::DeadlineExceeded);
}

#[tokio::test]
async fn a_lost_node_fails_its_calls_and_comes_back() {
    let network = Network::open().await;
    let (running, stop) = network.started("a").await;
    let client = network.client().await;
    let reply = client.call(&CallHead::new("forever"), "").await.unwrap();
    while client.nodes().await.unwrap()[0].running == 0 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    running.await.unwrap().unwrap();
    let failure = reply.result().await.unwrap_err();
    assert_eq!(failure.reason, Reason::NodeLost);
    let _again = network.started("a").await;
    let reply = client.call(&CallHead::new("echo"), "back").await.unwrap();
    assert_eq!(reply.result().await.unwrap(), "back");
}

#[tokio::test]
async fn a_node_tells_its_load_and_each_change_of_it() {
    let network = Network::open().await;
    let (mut node, stop) = network.node("gpu-1");
    let half = Load {
        cpu: Some(0.5),
        ..Load::default()
    };
    let (measured, load) = watch::channel(half.clone());
    node.tell_load(load);
    tokio::spawn(node.run(stop));
    let client = network.client().await;
    let seen = async |load: Load| {
        let waiting = async {
            loop {
                let nodes = client.nodes().await.unwrap();
                if nodes.iter().any(|n| (n.cpu, n.gpu) == (load.cpu, load.gpu)) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        waited.unwrap();
    };
    seen(half).await;
    let whole = Load {
        gpu: Some(1.0),
        ..Load::default()
    };
    measured.send_replace(whole.clone());
    seen(whole.clone()).await;
    drop(measured);
    seen(whole).await;
}

#[tokio::test]
async fn a_twin_of_a_node_is_told_why_it_may_not_come() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let (twin, stop) = network.node("a");
    let refusal = twin.run(stop).await.unwrap_err();
    assert!(
        refusal.to_string().contains("connected already"),
        "{refusal}"
    );
}

#[tokio::test]
async fn nobody_without_a_token_comes_where_one_is_wanted() {
    let secret = Secret::new().unwrap();
    let tokens = Tokens::new([secret.kept("alice", vec![], None)]);
    let limits = Limits {
        token_required: true,
        ..Limits::default()
    };
    let network = Network::new(limits, tokens).await;
    let refusal = network.client_with(None).await.unwrap_err().to_string();
    assert!(refusal.contains("without a token"), "{refusal}");
    network.client_with(Some(secret.expose())).await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_broker_ends_calls() {
    let network = Network::open().await;
    let _node = network.started("a").await;
    let client = network.client().await;
    let reply = client.call(&CallHead::new("forever"), "").await.unwrap();
    network.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(30), reply.result()).await;
    let failure = ended.unwrap().unwrap_err();
    assert!(
        matches!(failure.reason, Reason::Disconnected | Reason::NodeLost),
        "{failure:?}"
    );
}

#[tokio::test]
async fn lists_of_any_length_come_whole_and_in_order() {
    let network = Network::open().await;
    for id in ["a", "b", "c"] {
        let mut node = network.node_at(&network.address.to_string(), id, id.as_bytes()[0]);
        for number in 0..30 {
            let long = FunctionInfo {
                description: "x".repeat(100_000),
                ..FunctionInfo::new(format!("long_{number:02}"))
            };
            node.register(long, |call| node::answer(call, async |bytes| Ok(bytes)))
                .unwrap();
        }
        start(node, network.stop.child_token()).await;
    }
    let client = network.client().await;
    let functions = client.functions().await.unwrap();
    let listed: Vec<_> = functions
        .iter()
        .filter(|view| view.info.description.len() == 100_000)
        .map(|view| format!("{}.{}", view.node, view.info.name))
        .collect();
    let expected: Vec<_> = ["a", "b", "c"]
        .iter()
        .flat_map(|id| (0..30).map(move |number| format!("{id}.long_{number:02}")))
        .collect();
    assert_eq!(listed, expected);
    let nodes = client.nodes().await.unwrap();
    assert_eq!(
        nodes.iter().map(|view| &view.id[..]).collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
}
