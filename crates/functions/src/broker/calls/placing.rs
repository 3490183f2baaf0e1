//! A call is given to a node, or waits for one.

use super::{BROKERS, Place, Running};
use crate::{
    Moment,
    billing::Bill,
    broker::{Broker, CallId, PeerId, bills::set_aside, queue::Waiting, session::Role},
    failure::{Failure, Reason},
    registry::{Ahead, Quota, Strategy},
    wire::{
        Frame, Kind,
        messages::{CallHead, Caller, Queued, Started, Used},
    },
};

/// On which terms a call begins at a node.
struct Allowed {
    /// Whose use is counted.
    quota: Option<Quota>,
    /// What is set aside.
    bill: Option<Bill>,
    /// When it must have ended.
    deadline: Moment,
}

impl Broker {
    /// Gives a call that waits to a node, or puts it into the queue.
    pub(super) fn place(&mut self, id: CallId, now: Moment) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let nodes = self.nodes.values().map(|(_, node)| node);
        let waiting = match call.target.strategy {
            Strategy::Soonest => self.queue.by_function(),
            _ => Waiting::default(),
        };
        let function = &call.target.function;
        let ahead = Ahead {
            // Where no more may wait, none waits for a better node.
            waited_us: match self.queue.len() >= self.limits.waiting {
                true => u64::MAX,
                false => now.micros_after(call.came),
            },
            calls: &|node| waiting.for_node(function, node),
        };
        let chosen = self.router.choose(&call.target, nodes, &ahead, now);
        match chosen {
            Ok(Some(node)) => self.give(id, &node, false, now),
            Ok(None) if self.queue.len() >= self.limits.waiting => {
                let words = format!("{} calls wait for a node already", self.queue.len());
                let mut busy = Failure::new(Reason::Busy, words);
                busy.retry_after_ms = Some(1000);
                self.drop_waiting(id, &busy);
            }
            Ok(None) => {
                if let Place::Waiting(frames) = &mut call.place {
                    for frame in frames {
                        *frame = frame.detached();
                    }
                }
                let before = self.queue.push(&call.target, call.user(), id);
                let before = u32::try_from(before).unwrap_or(u32::MAX);
                if let Some((peer, number)) = call.client {
                    self.say(peer, Kind::Queued, number, &Queued { before });
                }
            }
            Err(failure) => self.drop_waiting(id, &failure),
        }
    }

    /// Ends a call that no node has, and that is in no queue.
    fn drop_waiting(&mut self, id: CallId, failure: &Failure) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        self.deadlines.remove(&(call.deadline, id));
        self.part(call.client);
        if let Some((peer, number)) = call.client {
            self.fail(peer, number, failure);
        }
    }

    /// Gives a waiting call to a node.
    fn give(&mut self, id: CallId, node_id: &str, waited: bool, now: Moment) {
        let Allowed {
            quota,
            bill,
            deadline,
        } = match self.allowed(id, node_id, now) {
            Some(Ok(allowed)) => allowed,
            Some(Err(failure)) => return self.drop_waiting(id, &failure),
            None => return,
        };
        let (Some(call), Some((peer, node))) =
            (self.calls.get_mut(&id), self.nodes.get_mut(node_id))
        else {
            return;
        };
        let (Some(offer), Place::Waiting(frames)) = (
            node.functions.get_mut(&call.target.function),
            &mut call.place,
        ) else {
            return;
        };
        let frames = std::mem::take(frames);
        self.recent.given(call.came, now);
        node.running += 1;
        offer.running += 1;
        offer.breaker.begin();
        match &mut call.replay {
            Some(kept) if offer.info.idempotent => {
                for frame in kept {
                    *frame = frame.detached();
                }
            }
            replay => *replay = None,
        }
        self.deadlines.remove(&(call.deadline, id));
        call.deadline = deadline;
        self.deadlines.insert((deadline, id));
        let (peer, registration) = (*peer, node.registration);
        let Some(connection) = self.peers.get_mut(&peer) else {
            return;
        };
        let number = match connection.role {
            Role::Remote(_) => connection.next_call,
            _ => connection.next_call | BROKERS,
        };
        // Of a link to another gateway, number 0 is the link itself.
        connection.next_call = ((connection.next_call + 1) & !BROKERS).max(1);
        connection.calls.insert(number, id);
        call.place = Place::Running(Running {
            node: node_id.to_owned(),
            registration,
            peer,
            number,
            began: now,
            quota,
            bill,
        });
        let client = call.client;
        let used = quota.map(|quota| Used {
            user: call.user().to_owned(),
            function: call.target.function.clone(),
            quota,
            calls: 1,
            micros: 0,
        });
        if let Err(failure) = self.send_given(id, (peer, number), frames) {
            return self.end(id, Some(&failure), now);
        }
        if let (true, Some((peer, number))) = (waited, client) {
            let node = node_id.to_owned();
            self.say(peer, Kind::Started, number, &Started { node });
        }
        self.changed(node_id);
        if let Some(used) = used {
            self.tell_used(&used);
        }
    }

    /// On which terms a waiting call begins at this node, or why it may not. Nothing where the call or the
    /// node is gone.
    fn allowed(
        &mut self,
        id: CallId,
        node_id: &str,
        now: Moment,
    ) -> Option<Result<Allowed, Failure>> {
        let (call, (_, node)) = (self.calls.get(&id)?, self.nodes.get(node_id)?);
        let offer = node.functions.get(&call.target.function)?;
        let deadline = match offer.info.timeout_ms {
            Some(ms) if !call.own_deadline => now.after(ms.saturating_mul(1000)),
            _ => call.deadline,
        };
        let bill = match set_aside(&mut self.purse, call, offer.info.price.as_ref(), deadline) {
            Ok(bill) => bill,
            Err(words) => return Some(Err(Failure::new(Reason::PaymentRequired, words))),
        };
        // Where the node is connected, its quotas are counted.
        let quota = offer.info.quota.filter(|_| node.gateway.is_none());
        let function = &call.target.function;
        if let Some(quota) = quota
            && let Err(wait_ms) = self.usage.begin(call.user(), function, quota, now)
        {
            let words = format!("your quota of {quota} for {function} is used up");
            let mut failure = Failure::new(Reason::QuotaExceeded, words);
            failure.retry_after_ms = Some(wait_ms);
            self.pay(node_id, bill.as_ref(), false);
            return Some(Err(failure));
        }
        Some(Ok(Allowed {
            quota,
            bill,
            deadline,
        }))
    }

    /// Sends a node what has come of a call that it is given.
    fn send_given(
        &mut self,
        id: CallId,
        (peer, number): (PeerId, u32),
        frames: Vec<Frame>,
    ) -> Result<(), Failure> {
        let Some(call) = self.calls.get(&id) else {
            return Ok(());
        };
        let forwarded = call.forwarded;
        let caller = Caller {
            user: call.user.clone(),
            groups: call.groups.clone(),
            call: format!("{id:016x}"),
        };
        for frame in frames {
            let head = match frame.kind {
                Kind::Call if !forwarded => CallHead::with_caller(&frame.head, &caller)
                    .map_err(|error| Failure::new(Reason::Invalid, error.to_string()))?,
                _ => frame.head.clone(),
            };
            let given = Frame {
                call: number,
                head,
                ..frame
            };
            self.send(peer, given);
        }
        Ok(())
    }

    /// Gives waiting calls to nodes that have room.
    pub(in crate::broker) fn serve_waiting(&mut self, now: Moment) {
        if self.queue.len() == 0 {
            return;
        }
        for (key, target) in self.queue.targets() {
            loop {
                let first = self.queue.first(&key).and_then(|id| self.calls.get(&id));
                let ahead = Ahead {
                    waited_us: first.map_or(0, |call| now.micros_after(call.came)),
                    calls: &|_| 0,
                };
                let nodes = self.nodes.values().map(|(_, node)| node);
                match self.router.choose(&target, nodes, &ahead, now) {
                    Ok(None) => break,
                    Ok(Some(node)) => match self.queue.pop(&key) {
                        Some(id) => self.give(id, &node, true, now),
                        None => break,
                    },
                    Err(failure) => match self.queue.pop(&key) {
                        Some(id) => self.drop_waiting(id, &failure),
                        None => break,
                    },
                }
            }
        }
    }
}
