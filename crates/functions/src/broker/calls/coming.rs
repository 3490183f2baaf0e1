//! A call comes: it is read, answered with a kept result, or begun.

use super::{BROKERS, Call, Place, Windows, cost};
use crate::{
    Moment,
    broker::{
        Broker, PeerId, WINDOW_BYTES,
        cache::{self, Gathered, Hit},
        session::{Peer, Role},
    },
    failure::{Failure, Reason},
    registry::Target,
    wire::{
        Flags, Frame, Kind,
        messages::{Cached, CallHead, Head},
    },
};

/// Why a call is not begun.
enum Refused {
    /// The peer breaks the protocol, and its connection ends.
    Peer(String),
    /// The call fails.
    Call(Failure),
}

impl Refused {
    fn call(reason: Reason, words: impl Into<String>) -> Self {
        Self::Call(Failure::new(reason, words))
    }
}

impl Broker {
    /// A client calls.
    pub(in crate::broker) fn call(
        &mut self,
        peer: PeerId,
        frame: Frame,
        now: Moment,
    ) -> Result<(), String> {
        let number = frame.call;
        let Some(from) = self.peers.get(&peer) else {
            return Ok(());
        };
        let read = read(from, &frame, self.limits.calls_per_peer);
        let begun = read.and_then(|head| {
            let call = self.begun((peer, from), &head, &frame, now)?;
            Ok((head, call))
        });
        let (head, mut call) = match begun {
            Ok(begun) => begun,
            Err(Refused::Peer(words)) => return Err(words),
            Err(Refused::Call(failure)) => {
                self.fail(peer, number, &failure);
                return Ok(());
            }
        };
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

    /// A call as it begins, which waits with nothing.
    fn begun(
        &self,
        (peer, from): (PeerId, &Peer),
        head: &CallHead,
        frame: &Frame,
        now: Moment,
    ) -> Result<Call, Refused> {
        let windows = Windows {
            client: i64::from(WINDOW_BYTES) - cost(frame),
            node: i64::from(WINDOW_BYTES),
        };
        if windows.client < 0 {
            let words = format!("a call begins with at most {WINDOW_BYTES} bytes");
            return Err(Refused::call(Reason::Invalid, words));
        }
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
            ..Target::of(head, !user.is_empty(), &groups)
        };
        Ok(Call {
            client: Some((peer, frame.call)),
            user,
            groups,
            target,
            came: now,
            forwarded: head.caller.is_some(),
            deadline: now.after(micros),
            own_deadline: head.deadline_ms.is_some(),
            place: Place::Waiting(Vec::new()),
            replay: Some(Vec::new()),
            windows,
            complete: frame.flags.ends_stream(),
            answered: false,
            progress_at: Moment::default(),
            bytes: frame.body.len() as u64,
            answer_bytes: 0,
            gathered: None,
        })
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
}

/// What a call's first frame says, if this peer may send it.
fn read(from: &Peer, frame: &Frame, most: u32) -> Result<CallHead, Refused> {
    let number = frame.call;
    if number == 0 || number >= BROKERS {
        let words = format!("{number} cannot be a call's number");
        return Err(Refused::Peer(words));
    }
    if from.calls.contains_key(&number) {
        return Err(Refused::Peer(format!("call {number} is open already")));
    }
    let forwarded = match &from.role {
        Role::Gateway(_) | Role::Front => true,
        Role::Remote(gateway) => {
            let words = format!("gateway {gateway:?} serves this link");
            return Err(Refused::Peer(words));
        }
        _ => false,
    };
    if !forwarded && from.calls.len() >= most as usize {
        let words = format!("{most} calls are open on this connection already");
        return Err(Refused::call(Reason::Busy, words));
    }
    match CallHead::decode(&frame.head) {
        Ok(head) if head.caller.is_some() == forwarded => Ok(head),
        Ok(_) if forwarded => {
            let words = "a call from there must say whose it is";
            Err(Refused::Peer(words.into()))
        }
        Ok(_) => {
            let words = "a call cannot say whose it is: the token does";
            Err(Refused::call(Reason::Invalid, words))
        }
        Err(error) => Err(Refused::call(Reason::Invalid, error.to_string())),
    }
}
