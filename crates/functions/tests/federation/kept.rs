//! Asynchronous calls in JetStream: queues that are full, calls whose node has gone, and users that share.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_nats::jetstream::{
    self,
    stream::{self, DiscardPolicy, RetentionPolicy},
};
use r3mes_functions::{
    federation::{CallRecord, CallState, Federation, KeepError, KeptCalls, Turn},
    webhook::{Attempt, Delivery, Webhook, WebhookKey},
    wire::messages::{CallHead, Caller},
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, cluster::Cluster, config, until};

/// What one gateway keeps of calls.
async fn kept(cluster: &Cluster) -> (Federation, Arc<KeptCalls>) {
    let federation = until("NATS answers", async || {
        Federation::connect(config("one", cluster, 0)).await.ok()
    })
    .await;
    let calls = Arc::clone(federation.calls());
    (federation, calls)
}

fn head(user: &str, id: &str) -> CallHead {
    CallHead {
        caller: Some(Caller {
            user: user.into(),
            groups: Vec::new(),
            call: id.into(),
        }),
        ..CallHead::new("f")
    }
}

async fn submit(calls: &KeptCalls, user: &str, id: &str) -> Result<CallRecord, KeepError> {
    let webhook = Webhook::new("https://example.com/", WebhookKey([7; 32]));
    let taken = calls.submit(head(user, id), "".into(), 1, None, Some(webhook));
    taken.await.map(|(record, _)| record)
}

/// Runs each call at once, with no result, until it is dropped.
fn working(calls: &Arc<KeptCalls>) -> JoinSet<()> {
    let calls = Arc::clone(calls);
    let mut running = JoinSet::new();
    running.spawn(async move {
        let run = |turn: Turn| turn.end(Ok(Vec::new()));
        calls.work(CancellationToken::new(), |_| true, run).await;
    });
    running
}

/// Makes a work queue that has room for one message, as long as no gateway has made it.
async fn with_room_for_one(cluster: &Cluster, name: &str) -> jetstream::Context {
    let client = until("NATS answers", async || {
        async_nats::connect(cluster.urls(0)).await.ok()
    })
    .await;
    let context = jetstream::new(client);
    let queue = stream::Config {
        name: format!("test_{name}"),
        subjects: vec![format!("test.{name}")],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        max_messages: 1,
        ..stream::Config::default()
    };
    until("JetStream is ready", async || {
        context.create_stream(queue.clone()).await.ok()
    })
    .await;
    context
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_refused_while_the_queue_is_full_and_taken_once_it_is_not() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    with_room_for_one(&cluster, "waiting").await;
    let (_federation, calls) = kept(&cluster).await;
    submit(&calls, "alice", "first").await.unwrap();
    let full = submit(&calls, "bob", "second").await.unwrap_err();
    assert!(matches!(full, KeepError::Full), "{full}");
    // Nothing is left of a call that was refused.
    assert_eq!(calls.get("bob", "second").await.unwrap(), None);
    let _working = working(&calls);
    until("there is room again", async || {
        submit(&calls, "bob", "third").await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_while_too_many_messages_wait_and_the_call_says_so() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let context = with_room_for_one(&cluster, "webhooks").await;
    let (_federation, calls) = kept(&cluster).await;
    let other = context.publish("test.webhooks", "another".into()).await;
    other.unwrap().await.unwrap();
    submit(&calls, "alice", "one").await.unwrap();
    let _working = working(&calls);
    // The call ends as any other.
    let record = until("it is given up", async || {
        let record = calls.get("alice", "one").await.unwrap()?;
        let webhook = record.webhook.as_ref()?;
        (!webhook.is_pending()).then_some(record)
    })
    .await;
    assert!(matches!(record.state, CallState::Succeeded { .. }));
    match record.webhook.unwrap().delivery {
        Delivery::Abandoned { error, .. } => {
            assert!(
                error.contains("wait for their receivers already"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_node_has_gone_waits_for_one_and_does_not_count_as_begun() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let (_federation, calls) = kept(&cluster).await;
    submit(&calls, "alice", "one").await.unwrap();
    let (begun, mut turns) = mpsc::unbounded_channel();
    let (is_known, working) = (Arc::new(AtomicBool::new(true)), Arc::clone(&calls));
    let known = Arc::clone(&is_known);
    let mut running = JoinSet::new();
    running.spawn(async move {
        let run = move |turn| {
            let begun = begun.clone();
            async move { begun.send(turn).unwrap() }
        };
        let known = move |_: &CallHead| known.load(Ordering::Relaxed);
        working.work(CancellationToken::new(), known, run).await;
    });
    let mut next = async || {
        let turn = tokio::time::timeout(PATIENCE, turns.recv()).await;
        turn.unwrap().unwrap()
    };
    let mut turn: Turn = next().await;
    assert!(!turn.was_begun());
    // Its node goes before it has the call.
    is_known.store(false, Ordering::Relaxed);
    assert!(turn.wait_for_node().await);
    drop(turn);
    let record = calls.get("alice", "one").await.unwrap().unwrap();
    assert_eq!(record.state, CallState::Waiting { before: None });
    assert_eq!(record.runner, None);
    is_known.store(true, Ordering::Relaxed);
    let turn = next().await;
    assert!(!turn.was_begun(), "it may run, whatever its function is");
    turn.end(Ok(Vec::new())).await;
    let record = calls.get("alice", "one").await.unwrap().unwrap();
    assert!(matches!(record.state, CallState::Succeeded { .. }));

    // One that was cancelled meanwhile does not wait.
    submit(&calls, "alice", "two").await.unwrap();
    let mut turn = next().await;
    calls.cancel("alice", "two").await.unwrap().unwrap();
    assert!(!turn.wait_for_node().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_user_that_wait_for_turns_hide_nobodys() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let (_federation, calls) = kept(&cluster).await;
    let _working = working(&calls);
    // More than a gateway has of one user at a time.
    for number in 0..150 {
        let id = number.to_string();
        submit(&calls, "alice", &id).await.unwrap();
    }
    for number in 0..150 {
        until("they are over", async || {
            let record = calls.get("alice", &number.to_string()).await.unwrap()?;
            record.is_over().then_some(())
        })
        .await;
    }
    let (first, mut waiting) = mpsc::unbounded_channel();
    let (told, mut heard) = mpsc::unbounded_channel();
    let (delivering, mut running) = (Arc::clone(&calls), JoinSet::new());
    running.spawn(async move {
        // The first user's turn never comes.
        let turn = move |user: String| {
            let _ = first.send(user.clone());
            async move {
                let alice = user == hex::encode(&blake3::hash(b"alice").as_bytes()[..16]);
                if alice {
                    std::future::pending::<()>().await;
                }
            }
        };
        let send = move |(), record: CallRecord, _| {
            told.send(record.id).unwrap();
            async { Attempt::Delivered }
        };
        delivering
            .deliver(CancellationToken::new(), turn, send)
            .await;
    });
    // As many as it takes wait for a turn, and no more.
    for _ in 0..128 {
        let user = tokio::time::timeout(PATIENCE, waiting.recv()).await;
        user.unwrap().unwrap();
    }
    submit(&calls, "bob", "one").await.unwrap();
    let id = tokio::time::timeout(PATIENCE, heard.recv()).await;
    assert_eq!(id.unwrap().unwrap(), "one");
    let of_bob = tokio::time::timeout(PATIENCE, waiting.recv()).await;
    let bob = hex::encode(&blake3::hash(b"bob").as_bytes()[..16]);
    assert_eq!(of_bob.unwrap().unwrap(), bob);
}
