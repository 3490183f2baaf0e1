//! The life of a call: it comes, waits or is given to a node, its bytes are passed on, it ends.

use super::{
    Broker, CallId, FRAME_COST, PeerId, WINDOW_BYTES,
    bills::set_aside,
    cache::{self, Gathered, Hit},
    queue::Waiting,
    session::Role,
};
use crate::{
    Moment,
    billing::Bill,
    failure::{Failure, Reason},
    registry::{Ahead, Quota, Spent, Strategy, Target},
    wire::{
        Flags, Frame, Kind,
        messages::{Cached, CallHead, Caller, Credit, Head, Queued, Started, Used},
    },
};

/// Numbers of calls that the broker gives on a node's connection have this bit, the node's own do not.
const BROKERS: u32 = 1 << 31;
/// What callers without a token are counted by.
pub(super) const ANONYMOUS: &str = "anonymous";
/// Microseconds between two reports of progress that are passed on.
const PROGRESS_US: u64 = 50_000;
/// Most grants that are kept for a call before a node has it.
const MAX_EARLY_GRANTS: usize = 16;

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    /// Who waits for it, and under which number; nobody any more when absent.
    client: Option<(PeerId, u32)>,
    pub(super) user: String,
    groups: Vec<String>,
    pub(super) target: Target,
    came: Moment,
    deadline: Moment,
    /// Whether the client named the deadline.
    own_deadline: bool,
    place: Place,
    /// What came from the client so far, while another node could still take over from the start.
    replay: Option<Vec<Frame>>,
    /// Bytes that the client, and the node, may send.
    windows: Windows,
    /// Whether the client has sent everything.
    complete: bool,
    answered: bool,
    progress_at: Moment,
    /// Whether it came with its caller, from another gateway or a front.
    forwarded: bool,
    /// Bytes of arguments so far.
    bytes: u64,
    /// Bytes of results so far.
    answer_bytes: u64,
    /// The result so far, if it may be kept.
    gathered: Option<Gathered>,
}

#[derive(Debug)]
struct Windows {
    client: i64,
    node: i64,
}

/// Where a call is.
#[derive(Debug)]
enum Place {
    /// In the queue, with what the client has sent.
    Waiting(Vec<Frame>),
    /// At a node.
    Running(Running),
}

#[derive(Clone, Debug)]
struct Running {
    node: String,
    /// The number of the list of functions that the node had when it was given the call.
    registration: u64,
    peer: PeerId,
    number: u32,
    began: Moment,
    quota: Option<Quota>,
    /// What it costs, set aside; settled when absent, or free.
    bill: Option<Bill>,
}

impl Call {
    /// What usage is counted by.
    fn user(&self) -> &str {
        match self.user.as_str() {
            "" => ANONYMOUS,
            user => user,
        }
    }

    /// Keeps a frame for another node, as long as that is little.
    fn keep(&mut self, frame: &Frame) {
        if self.bytes > u64::from(WINDOW_BYTES) {
            self.replay = None;
        }
        if let Some(kept) = &mut self.replay {
            kept.push(frame.clone());
        }
    }

    /// Bytes of frames that are kept for it.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        let waiting = match &self.place {
            Place::Waiting(frames) => &frames[..],
            Place::Running(_) => &[],
        };
        let kept = waiting.iter().chain(self.replay.iter().flatten());
        kept.map(Frame::len).sum()
    }
}

fn cost(frame: &Frame) -> i64 {
    frame.body.len() as i64 + i64::from(FRAME_COST)
}

impl Broker {
    /// A client calls.
    pub(super) fn call(&mut self, peer: PeerId, frame: Frame, now: Moment) -> Result<(), String> {
        let number = frame.call;
        if number == 0 || number >= BROKERS {
            return Err(format!("{number} cannot be a call's number"));
        }
        let Some(from) = self.peers.get(&peer) else {
            return Ok(());
        };
        if from.calls.contains_key(&number) {
            return Err(format!("call {number} is open already"));
        }
        let forwarded = match &from.role {
            Role::Gateway(_) | Role::Front => true,
            Role::Remote(gateway) => return Err(format!("gateway {gateway:?} serves this link")),
            _ => false,
        };
        if !forwarded && from.calls.len() >= self.limits.calls_per_peer as usize {
            let most = self.limits.calls_per_peer;
            let words = format!("{most} calls are open on this connection already");
            self.fail(peer, number, &Failure::new(Reason::Busy, words));
            return Ok(());
        }
        let head = match CallHead::decode(&frame.head) {
            Ok(head) if head.caller.is_some() == forwarded => head,
            Ok(_) if forwarded => return Err("a call from there must say whose it is".into()),
            Ok(_) => {
                let words = "a call cannot say whose it is: the token does";
                self.fail(peer, number, &Failure::new(Reason::Invalid, words));
                return Ok(());
            }
            Err(error) => {
                self.fail(
                    peer,
                    number,
                    &Failure::new(Reason::Invalid, error.to_string()),
                );
                return Ok(());
            }
        };
        let micros = head.deadline_ms.map(|ms| ms.saturating_mul(1000));
        let micros = micros.map_or(self.limits.deadline_us, |own| {
            own.min(self.limits.deadline_us)
        });
        let (user, groups) = match &head.caller {
            Some(caller) => (caller.user.clone(), caller.groups.clone()),
            None => (from.user.clone(), from.groups.clone()),
        };
        let target = Target {
            here: matches!(from.role, Role::Gateway(_)),
            ..Target::of(&head, !user.is_empty(), &groups)
        };
        let mut call = Call {
            client: Some((peer, number)),
            user,
            groups,
            target,
            came: now,
            forwarded,
            deadline: now.after(micros),
            own_deadline: head.deadline_ms.is_some(),
            place: Place::Waiting(Vec::new()),
            replay: Some(Vec::new()),
            windows: Windows {
                client: i64::from(WINDOW_BYTES) - cost(&frame),
                node: i64::from(WINDOW_BYTES),
            },
            complete: frame.flags.ends_stream(),
            answered: false,
            progress_at: Moment::default(),
            bytes: frame.body.len() as u64,
            answer_bytes: 0,
            gathered: None,
        };
        if call.windows.client < 0 {
            let words = format!("a call begins with at most {WINDOW_BYTES} bytes");
            self.fail(peer, number, &Failure::new(Reason::Invalid, words));
            return Ok(());
        }
        // Where several gateways meet, the caller's own keeps results.
        if let Some(max_age_ms) = head.max_age_ms
            && call.complete
            && !call.target.here
        {
            let key = cache::key(&call.target.function, &frame.body);
            let max_age_us = max_age_ms.saturating_mul(1000);
            if let Some(hit) = self.cached(&call.target, &key, max_age_us, now) {
                self.answer_with(peer, number, hit);
                return Ok(());
            }
            call.gathered = Some(Gathered::new(key));
        }
        call.keep(&frame);
        call.place = Place::Waiting(vec![frame]);
        let id = self.next_call;
        self.next_call += 1;
        self.deadlines.insert((call.deadline, id));
        self.calls.insert(id, call);
        if let Some(from) = self.peers.get_mut(&peer) {
            from.calls.insert(number, id);
        }
        self.place(id, now);
        Ok(())
    }

    /// Answers with a result that was kept, which no client has to grant room for.
    fn answer_with(&mut self, peer: PeerId, number: u32, hit: Hit) {
        let age_us = hit.age_us;
        self.say(peer, Kind::Cached, number, &Cached { age_us });
        let answer = Frame {
            flags: Flags::LAST,
            body: hit.result,
            ..Frame::bare(Kind::Data, number)
        };
        self.send(peer, answer);
    }

    /// Gives a call that waits to a node, or puts it into the queue.
    fn place(&mut self, id: CallId, now: Moment) {
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

    /// Forgets a call's number on a connection.
    fn part(&mut self, end: Option<(PeerId, u32)>) {
        if let Some((peer, number)) = end
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            peer.calls.remove(&number);
        }
    }

    /// Gives a waiting call to a node.
    fn give(&mut self, id: CallId, node_id: &str, waited: bool, now: Moment) {
        let (Some(call), Some((peer, node))) =
            (self.calls.get_mut(&id), self.nodes.get_mut(node_id))
        else {
            return;
        };
        let Some(offer) = node.functions.get_mut(&call.target.function) else {
            return;
        };
        let deadline = match offer.info.timeout_ms {
            Some(ms) if !call.own_deadline => now.after(ms.saturating_mul(1000)),
            _ => call.deadline,
        };
        let bill = match set_aside(&mut self.purse, call, offer.info.price.as_ref(), deadline) {
            Ok(bill) => bill,
            Err(words) => {
                let failure = Failure::new(Reason::PaymentRequired, words);
                return self.drop_waiting(id, &failure);
            }
        };
        // Where the node is connected, its quotas are counted.
        let quota = offer.info.quota.filter(|_| node.gateway.is_none());
        if let Some(quota) = quota
            && let Err(wait_ms) = self
                .usage
                .begin(call.user(), &call.target.function, quota, now)
        {
            let words = format!(
                "your quota of {quota} for {} is used up",
                call.target.function
            );
            let mut failure = Failure::new(Reason::QuotaExceeded, words);
            failure.retry_after_ms = Some(wait_ms);
            self.pay(bill.as_ref(), false);
            return self.drop_waiting(id, &failure);
        }
        let Place::Waiting(frames) = &mut call.place else {
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
        let caller = Caller {
            user: call.user.clone(),
            groups: call.groups.clone(),
            call: format!("{id:016x}"),
        };
        let (peer, client, forwarded) = (*peer, call.client, call.forwarded);
        let registration = node.registration;
        let used = quota.map(|quota| Used {
            user: call.user().to_owned(),
            function: call.target.function.clone(),
            quota,
            calls: 1,
            micros: 0,
        });
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
        for frame in frames {
            let head = match frame.kind {
                Kind::Call if !forwarded => CallHead::with_caller(&frame.head, &caller),
                _ => Ok(frame.head.clone()),
            };
            match head {
                Ok(head) => self.send(
                    peer,
                    Frame {
                        call: number,
                        head,
                        ..frame
                    },
                ),
                Err(error) => {
                    let failure = Failure::new(Reason::Invalid, error.to_string());
                    return self.end(id, Some(&failure), now);
                }
            }
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

    /// Gives waiting calls to nodes that have room.
    pub(super) fn serve_waiting(&mut self, now: Moment) {
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

    /// Passes a frame of an open call on to its other end. A call that has ended meanwhile is no fault.
    pub(super) fn pass_on(&mut self, peer: PeerId, frame: Frame, now: Moment) {
        let open = self.peers.get(&peer).and_then(|p| p.calls.get(&frame.call));
        let Some(&id) = open else {
            return;
        };
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        match call.client == Some((peer, frame.call)) {
            true => self.pass_to_node(id, frame, now),
            false => self.pass_to_client(id, peer, frame, now),
        }
    }

    fn pass_to_node(&mut self, id: CallId, mut frame: Frame, now: Moment) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        match frame.kind {
            Kind::Data => {
                call.windows.client -= cost(&frame);
                call.bytes += frame.body.len() as u64;
                if call.windows.client < 0 {
                    let words = "more was sent than the other side had granted";
                    return self.abandon(id, &Failure::new(Reason::Invalid, words), now);
                }
                // It says nothing, and is not paid for.
                frame.head.clear();
                call.complete |= frame.flags.ends_stream();
                call.keep(&frame);
            }
            Kind::Credit => match Credit::decode(&frame.head) {
                Ok(credit) => {
                    call.windows.node += i64::from(credit.bytes);
                    frame.head = credit.encode().unwrap_or_default();
                }
                Err(_) => return,
            },
            Kind::Cancel => {
                let words = "the caller cancelled";
                return self.abandon(id, &Failure::new(Reason::Cancelled, words), now);
            }
            _ => return,
        }
        match &mut call.place {
            Place::Waiting(frames)
                if frames.len() < MAX_EARLY_GRANTS || frame.kind == Kind::Data =>
            {
                frames.push(frame.detached());
            }
            Place::Waiting(_) => {}
            Place::Running(running) => {
                let (peer, call) = (running.peer, running.number);
                self.send(peer, Frame { call, ..frame });
            }
        }
    }

    fn pass_to_client(&mut self, id: CallId, peer: PeerId, mut frame: Frame, now: Moment) {
        // How a call waits, only the gateway tells that has it.
        if matches!(frame.kind, Kind::Queued | Kind::Started) && !self.is_remote(peer) {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let mut ended = frame.kind == Kind::Failed;
        match frame.kind {
            Kind::Data => {
                frame.head.clear();
                call.windows.node -= cost(&frame);
                call.answer_bytes += frame.body.len() as u64;
                call.answered = true;
                let (bytes, ends_item) = (&frame.body, frame.flags.ends_item());
                if let Some(gathered) = &mut call.gathered
                    && !gathered.add(bytes, ends_item)
                {
                    call.gathered = None;
                }
                if call.windows.node < 0 && call.client.is_some() {
                    let words = "the node sent more than was granted";
                    return self.abandon(id, &Failure::new(Reason::Internal, words), now);
                }
                ended = frame.flags.ends_stream();
            }
            Kind::Credit => match Credit::decode(&frame.head) {
                Ok(credit) => call.windows.client += i64::from(credit.bytes),
                Err(_) => return,
            },
            Kind::Progress if now.micros_after(call.progress_at) >= PROGRESS_US => {
                call.progress_at = now;
            }
            Kind::Failed | Kind::Queued | Kind::Started => {}
            _ => return,
        }
        let failure = (frame.kind == Kind::Failed).then(|| {
            Failure::decode(&frame.head)
                .unwrap_or_else(|error| Failure::new(Reason::Internal, error.to_string()))
        });
        match failure {
            Some(failure) => self.end(id, Some(&failure), now),
            None => {
                if let Some((peer, number)) = call.client {
                    self.send(
                        peer,
                        Frame {
                            call: number,
                            ..frame
                        },
                    );
                }
                if ended {
                    self.end(id, None, now);
                }
            }
        }
    }

    /// Ends a call for its client, settles what it costs, and tells the node that nobody waits any more;
    /// the node's place is free when the node says so. A client that cancelled needs no answer, but a gateway counts its calls
    /// by answers.
    fn abandon(&mut self, id: CallId, failure: &Failure, now: Moment) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let client = call.client.take();
        let owed = call.answered && !failure.reason.blames_node();
        self.deadlines.remove(&(call.deadline, id));
        let place = match &mut call.place {
            Place::Running(running) => Some((running.peer, running.number, running.bill.take())),
            Place::Waiting(_) => None,
        };
        match place {
            Some((peer, number, bill)) => {
                self.pay(bill.as_ref(), owed);
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
    pub(super) fn expire(&mut self, id: CallId, now: Moment) {
        let words = "the call did not end within its time";
        self.abandon(id, &Failure::new(Reason::DeadlineExceeded, words), now);
    }

    /// A peer with an end of this call is gone.
    pub(super) fn lose(&mut self, id: CallId, peer: PeerId, now: Moment) {
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
                    self.pay(running.bill.as_ref(), false);
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
    fn end(&mut self, id: CallId, failure: Option<&Failure>, now: Moment) {
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
        self.pay(running.bill.as_ref(), failure.is_none());
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

    /// Calls that are open, wherever they are.
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }
}
