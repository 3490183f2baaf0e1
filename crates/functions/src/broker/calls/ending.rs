//! A call ends, by its node or for its caller alone, and is settled.

use super::{Call, Place, Running};
use crate::{
    Moment,
    broker::{Broker, CallId, PeerId},
    failure::{Failure, Reason},
    registry::Spent,
    wire::{Frame, Kind, messages::Used},
};

impl Broker {
    /// Ends a call for its client, settles what it costs, and tells the node that nobody waits any more;
    /// the node's place is free when the node says so. A client that cancelled needs no answer, but a gateway counts its calls
    /// by answers.
    pub(super) fn abandon(&mut self, id: CallId, failure: &Failure, now: Moment) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let client = call.client.take();
        let owed = call.answered && !failure.reason.blames_node();
        self.deadlines.remove(&(call.deadline, id));
        let place = match &mut call.place {
            Place::Running(running) => {
                let bill = running.bill.take();
                Some((running.node.clone(), running.peer, running.number, bill))
            }
            Place::Waiting(_) => None,
        };
        match place {
            Some((node, peer, number, bill)) => {
                self.pay(&node, bill.as_ref(), owed);
                self.send(peer, Frame::bare(Kind::Cancel, number));
            }
            None => {
                if let Some(call) = self.calls.remove(&id) {
                    self.queue.remove(&call.target, call.user(), id);
                }
            }
        }
        self.part(client);
        if let Some((peer, number)) = client
            && (failure.reason != Reason::Cancelled || self.is_gateway(peer))
        {
            self.fail(peer, number, failure);
        }
        self.serve_waiting(now);
    }

    /// A call's deadline passed.
    pub(in crate::broker) fn expire(&mut self, id: CallId, now: Moment) {
        let words = "the call did not end within its time";
        self.abandon(id, &Failure::new(Reason::DeadlineExceeded, words), now);
    }

    /// A peer with an end of this call is gone.
    pub(in crate::broker) fn lose(&mut self, id: CallId, peer: PeerId, now: Moment) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        if call.client.is_some_and(|(client, _)| client == peer) {
            let gone = Failure::new(Reason::Cancelled, "the caller is gone");
            return self.abandon(id, &gone, now);
        }
        let again = call.complete && !call.answered && call.client.is_some();
        match call.replay.clone().filter(|_| again) {
            Some(frames) => {
                let before = std::mem::replace(&mut call.place, Place::Waiting(frames));
                if let Place::Running(running) = before {
                    self.pay(&running.node, running.bill.as_ref(), false);
                }
                self.place(id, now);
            }
            None => {
                let words = match &call.place {
                    Place::Running(running) => format!("node {:?} is gone", running.node),
                    Place::Waiting(_) => "the node is gone".to_owned(),
                };
                self.end(id, Some(&Failure::new(Reason::NodeLost, words)), now);
            }
        }
    }

    /// A node has ended a call, well or not.
    pub(super) fn end(&mut self, id: CallId, failure: Option<&Failure>, now: Moment) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        self.deadlines.remove(&(call.deadline, id));
        self.part(call.client);
        if let (Some((peer, number)), Some(failure)) = (call.client, failure) {
            self.fail(peer, number, failure);
        }
        if let Place::Running(running) = &call.place {
            self.part(Some((running.peer, running.number)));
            self.settle(&call, running, failure, now);
            if let (Some(gathered), None) = (call.gathered, failure) {
                let by = (running.node.as_str(), running.registration);
                self.keep_result(gathered, by, &call.target.function, now);
            }
        }
        self.serve_waiting(now);
    }

    /// Counts what a call used, and frees its place.
    fn settle(&mut self, call: &Call, running: &Running, failure: Option<&Failure>, now: Moment) {
        let busy_us = now.micros_after(running.began);
        let function = &call.target.function;
        let spent = Spent {
            calls: 1,
            failed: u64::from(failure.is_some()),
            busy_us,
            argument_bytes: call.bytes,
            result_bytes: call.answer_bytes,
        };
        self.meter.add(call.user(), function, spent);
        self.pay(&running.node, running.bill.as_ref(), failure.is_none());
        self.recent.ended(call.came, failure.is_some(), now);
        if let Some(quota) = running.quota {
            self.usage.end(call.user(), function, quota, busy_us, now);
            self.tell_used(&Used {
                user: call.user().to_owned(),
                function: function.clone(),
                quota,
                calls: 0,
                micros: busy_us,
            });
        }
        self.changed(&running.node);
        let Some((_, node)) = self
            .nodes
            .get_mut(&running.node)
            .filter(|(peer, _)| *peer == running.peer)
        else {
            return;
        };
        node.running = node.running.saturating_sub(1);
        node.moved_bytes += spent.argument_bytes + spent.result_bytes;
        let Some(offer) = node.functions.get_mut(function) else {
            return;
        };
        offer.running = offer.running.saturating_sub(1);
        offer.busy_us += busy_us;
        match failure {
            None => offer.succeeded += 1,
            Some(_) => offer.failed += 1,
        }
        match failure.is_some_and(|failure| failure.reason.blames_node()) {
            true => offer.breaker.fail(now),
            false => offer.breaker.succeed(),
        }
    }
}
