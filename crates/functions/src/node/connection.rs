//! One connection of a node: it greets, tells what it offers and how busy it is, and starts the calls that come.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{Input, Invocation, Node, NodeError, Output};
use crate::{
    failure::{Failure, Reason},
    link::{Arrival, Incoming, Link, Outgoing, goodbye},
    reach::{Unreached, reach},
    wire::{
        Frame, Kind,
        messages::{
            CallHead, Challenge, Head, Hello, Load, NodeHello, PROTOCOL, Register, Welcome,
            logged_call, node_proof,
        },
    },
};

impl Node {
    /// One connection, until it is lost.
    pub(super) async fn serve(&self, broker: &str) -> Result<(), NodeError> {
        let stream = match reach(broker, self.config.ca.as_deref()).await {
            Ok(stream) => stream,
            Err(Unreached::Address) => {
                return Err(NodeError::Address {
                    broker: broker.to_owned(),
                });
            }
            Err(Unreached::Tls(reason)) => {
                return Err(NodeError::Tls {
                    broker: broker.to_owned(),
                    id: self.config.id.clone(),
                    reason,
                });
            }
            Err(error) => {
                tracing::warn!(broker, %error, "functions.node.connect");
                return Ok(());
            }
        };
        let (read, write) = stream.into_split();
        let link = Link::new();
        let (to, mut arrivals) = mpsc::unbounded_channel();
        let moving = link.run(read, write, to);
        let serving = self.attend(broker, &link, &mut arrivals);
        tokio::select! {
            result = moving => {
                if let Err(error) = result {
                    tracing::warn!(broker, %error, "functions.node.lost");
                }
                // What the broker said last may lie there still.
                while let Ok(arrival) = arrivals.try_recv() {
                    if let Arrival::Control(frame) = arrival
                        && frame.kind == Kind::Goodbye
                    {
                        self.leave(broker, &frame)?;
                    }
                }
                Ok(())
            }
            result = serving => result,
        }
    }

    /// Greets, registers, then starts each call that comes.
    async fn attend(
        &self,
        broker: &str,
        link: &Arc<Link>,
        arrivals: &mut mpsc::UnboundedReceiver<Arrival>,
    ) -> Result<(), NodeError> {
        let (mut calls, mut load) = (JoinSet::new(), None);
        loop {
            let arrival = tokio::select! {
                arrival = arrivals.recv() => arrival,
                Some(_) = calls.join_next(), if !calls.is_empty() => continue,
                frame = load_frame(&mut load) => {
                    link.send(frame);
                    continue;
                }
            };
            let frame = match arrival {
                None => return Ok(()),
                Some(Arrival::Control(frame)) => frame,
                Some(Arrival::Call(frame, outgoing, incoming)) => {
                    self.start(link, frame, (outgoing, incoming), &mut calls);
                    continue;
                }
            };
            match frame.kind {
                Kind::Challenge => match Challenge::decode(&frame.head) {
                    Ok(challenge) => link.send(self.hello(&challenge)?),
                    Err(_) => return Ok(()),
                },
                Kind::Welcome if Welcome::decode(&frame.head).is_ok() => {
                    link.send(self.offers()?);
                }
                Kind::Registered => {
                    self.registered.send_replace(true);
                    load.clone_from(&self.load);
                    load.iter_mut().for_each(watch::Receiver::mark_changed);
                    tracing::info!(node = self.config.id, "functions.node.registered");
                }
                Kind::Goodbye => return self.leave(broker, &frame),
                _ => {}
            }
        }
    }

    fn hello(&self, challenge: &Challenge) -> Result<Frame, NodeError> {
        let config = &self.config;
        let proof = config.key.sign(&node_proof(&challenge.nonce, &config.id));
        let hello = Hello {
            protocol: PROTOCOL,
            agent: concat!("r3mes/", env!("CARGO_PKG_VERSION")).into(),
            token: config.token.clone(),
            node: Some(NodeHello {
                id: config.id.clone(),
                key: config.key.verification_key().to_bytes(),
                signature: proof.to_bytes(),
                capabilities: config.capabilities.clone(),
                max_concurrent: config.max_concurrent,
                resources: config.resources.clone(),
            }),
        };
        let head = hello.encode().map_err(|error| self.too_long(error))?;
        Ok(Frame {
            head,
            ..Frame::bare(Kind::Hello, 0)
        })
    }

    fn offers(&self) -> Result<Frame, NodeError> {
        let functions = self.functions.values().map(|(info, _)| info.clone());
        let list = Register {
            functions: functions.collect(),
        };
        let body = rmp_serde::to_vec_named(&list).map_err(|error| self.too_long(error))?;
        Ok(Frame {
            body: body.into(),
            ..Frame::bare(Kind::Register, 0)
        })
    }

    fn too_long(&self, reason: impl ToString) -> NodeError {
        NodeError::Description {
            id: self.config.id.clone(),
            reason: reason.to_string(),
        }
    }

    fn leave(&self, broker: &str, frame: &Frame) -> Result<(), NodeError> {
        let goodbye = goodbye(frame);
        match goodbye.retry {
            true => {
                tracing::warn!(broker, reason = goodbye.reason, "functions.node.dismissed");
                Ok(())
            }
            false => Err(NodeError::Refused {
                broker: broker.to_owned(),
                id: self.config.id.clone(),
                reason: goodbye.reason,
            }),
        }
    }

    fn start(
        &self,
        link: &Arc<Link>,
        frame: Frame,
        (outgoing, incoming): (Outgoing, Incoming),
        calls: &mut JoinSet<()>,
    ) {
        let number = frame.call;
        let head = match CallHead::decode(&frame.head) {
            Ok(head) => head,
            Err(error) => {
                let failure = Failure::new(Reason::Invalid, error.to_string());
                outgoing.tell(Kind::Failed, &failure);
                return link.leave(number);
            }
        };
        let Some((_, handler)) = self.functions.get(&head.function) else {
            let words = format!(
                "node {:?} has no function {:?}",
                self.config.id, head.function
            );
            outgoing.tell(Kind::Failed, &Failure::new(Reason::NotFound, words));
            return link.leave(number);
        };
        let (cancelled, caller) = (CancellationToken::new(), head.caller.unwrap_or_default());
        let span = tracing::debug_span!(
            "functions.call.run",
            node = self.config.id,
            function = head.function,
            call = logged_call(&caller.call),
        );
        let invocation = Invocation {
            caller,
            input: Input::new(frame, incoming, cancelled.clone()),
            output: Output {
                link: outgoing.again(),
                cancelled: cancelled.clone(),
            },
        };
        let (handler, link) = (Arc::clone(handler), Arc::clone(link));
        let running = async move {
            let running = AssertUnwindSafe(async move { handler(invocation).await }).catch_unwind();
            let watched = async {
                outgoing.unread().await;
                cancelled.cancel();
                std::future::pending::<()>().await;
            };
            let result = tokio::select! {
                result = running => result.unwrap_or_else(|panic| Err(panicked(&*panic))),
                () = watched => return,
            };
            let failure = match result {
                Err(failure) => Some(failure),
                Ok(()) if outgoing.ended() => None,
                Ok(()) => outgoing
                    .end()
                    .await
                    .err()
                    .map(|unread| Failure::new(Reason::Cancelled, unread.to_string())),
            };
            if let Some(failure) = failure {
                outgoing.tell(Kind::Failed, &failure);
            }
            link.leave(number);
        };
        calls.spawn(running.instrument(span));
    }
}

/// What tells of the next change of a load; nothing ever does where nobody measures it.
async fn load_frame(load: &mut Option<watch::Receiver<Load>>) -> Frame {
    if let Some(changing) = load
        && changing.changed().await.is_ok()
        && let Ok(head) = changing.borrow_and_update().encode()
    {
        return Frame {
            head,
            ..Frame::bare(Kind::Load, 0)
        };
    }
    *load = None;
    std::future::pending().await
}

/// What a caller is told of a function that panicked.
fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let mut failure = Failure::new(Reason::Raised, words.unwrap_or("the function panicked"));
    failure.exception = Some("panic".into());
    failure
}
