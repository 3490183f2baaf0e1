//! A call comes: it is read, answered with a kept result, or begun.

use super::{BROKERS, Call, Place, Windows, cost};
use crate::{
    Moment,
    broker::{
        Broker, PeerId, WINDOW_BYTES,
        cache::{self, Gathered, Hit},
        session::Role,
    },
    failure::{Failure, Reason},
    registry::Target,
    wire::{
        Flags, Frame, Kind,
        messages::{Cached, CallHead, Head},
    },
};

impl Broker {
    /// A client calls.
    pub(in crate::broker) fn call(
        &mut self,
        peer: PeerId,
        frame: Frame,
        now: Moment,
    ) -> Result<(), String> {
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
}
