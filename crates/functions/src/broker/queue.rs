//! Calls that wait for a node. Those with the same target wait together, and among them users take
//! turns, so that nobody's thousand calls keep another's one waiting.

use std::collections::{BTreeMap, VecDeque};

use super::CallId;
use crate::registry::Target;

/// All waiting calls.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: BTreeMap<Vec<u8>, Line>,
    waiting: usize,
}

/// Calls with the same target.
#[derive(Debug)]
struct Line {
    target: Target,
    users: VecDeque<(String, VecDeque<CallId>)>,
}

/// How many calls wait for which function, on which node.
#[derive(Debug, Default)]
pub(super) struct Waiting<'a>(BTreeMap<(&'a str, Option<&'a str>), usize>);

impl Waiting<'_> {
    /// Those that this node may be given.
    pub(super) fn for_node(&self, function: &str, node: &str) -> usize {
        let count = |node| self.0.get(&(function, node)).copied().unwrap_or_default();
        count(None) + count(Some(node))
    }
}

impl Queue {
    /// Calls that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Calls that wait for each function, on the node that they name or on any.
    pub(super) fn by_function(&self) -> Waiting<'_> {
        let mut waiting = Waiting::default();
        for line in self.lines.values() {
            let calls: usize = line.users.iter().map(|(_, calls)| calls.len()).sum();
            let target = (line.target.function.as_str(), line.target.node.as_deref());
            *waiting.0.entry(target).or_default() += calls;
        }
        waiting
    }

    /// Puts a call at its user's end; how many calls of its line are before it.
    pub(super) fn push(&mut self, target: &Target, user: &str, call: CallId) -> usize {
        let key = key(target);
        let line = self.lines.entry(key).or_insert_with(|| Line {
            target: target.clone(),
            users: VecDeque::new(),
        });
        let at = match line.users.iter().position(|(name, _)| name == user) {
            Some(at) => at,
            None => {
                line.users.push_back((user.to_owned(), VecDeque::new()));
                line.users.len() - 1
            }
        };
        let mine = line.users[at].1.len();
        // Everybody has as many turns as I have calls before this one, and those ahead of me one more.
        let before = |(other, (_, calls)): (usize, &(String, VecDeque<CallId>))| {
            calls.len().min(mine + usize::from(other < at))
        };
        let before: usize = line.users.iter().enumerate().map(before).sum();
        line.users[at].1.push_back(call);
        self.waiting += 1;
        before
    }

    /// The targets that calls wait for.
    pub(super) fn targets(&self) -> Vec<(Vec<u8>, Target)> {
        let lines = self.lines.iter();
        lines
            .map(|(key, line)| (key.clone(), line.target.clone()))
            .collect()
    }

    /// The call whose turn it is in a line.
    pub(super) fn first(&self, key: &[u8]) -> Option<CallId> {
        let (_, calls) = self.lines.get(key)?.users.front()?;
        calls.front().copied()
    }

    /// Takes the call whose turn it is from a line.
    pub(super) fn pop(&mut self, key: &[u8]) -> Option<CallId> {
        let line = self.lines.get_mut(key)?;
        let (user, mut calls) = line.users.pop_front()?;
        let call = calls.pop_front()?;
        if !calls.is_empty() {
            line.users.push_back((user, calls));
        }
        if line.users.is_empty() {
            self.lines.remove(key);
        }
        self.waiting -= 1;
        Some(call)
    }

    /// Takes a call that no longer waits out of its line.
    pub(super) fn remove(&mut self, target: &Target, user: &str, call: CallId) {
        let key = key(target);
        let Some(line) = self.lines.get_mut(&key) else {
            return;
        };
        let Some(at) = line.users.iter().position(|(name, _)| name == user) else {
            return;
        };
        let calls = &mut line.users[at].1;
        if let Some(place) = calls.iter().position(|waiting| *waiting == call) {
            calls.remove(place);
            self.waiting -= 1;
        }
        if calls.is_empty() {
            line.users.remove(at);
        }
        if line.users.is_empty() {
            self.lines.remove(&key);
        }
    }
}

fn key(target: &Target) -> Vec<u8> {
    rmp_serde::to_vec(target).expect("a target holds only plain values")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::CallHead;

    fn target(function: &str) -> Target {
        Target::of(&CallHead::new(function), false, &[])
    }

    #[test]
    fn users_take_turns() {
        let mut queue = Queue::default();
        let train = target("train");
        let before: Vec<usize> = [
            ("alice", 1),
            ("alice", 2),
            ("alice", 3),
            ("bob", 4),
            ("bob", 5),
        ]
        .map(|(user, call)| queue.push(&train, user, call))
        .into();
        assert_eq!(before, [0, 1, 2, 1, 3]);
        let (key, _) = queue.targets().remove(0);
        assert_eq!(queue.first(&key), Some(1));
        let order: Vec<CallId> = std::iter::from_fn(|| queue.pop(&key)).collect();
        assert_eq!(order, [1, 4, 2, 5, 3]);
        assert_eq!(queue.first(&key), None);
        assert_eq!((queue.len(), queue.targets().len()), (0, 0));
    }

    #[test]
    fn a_call_that_is_taken_out_leaves_nothing_behind() {
        let mut queue = Queue::default();
        let (a, b) = (target("a"), target("b"));
        queue.push(&a, "alice", 1);
        queue.push(&b, "alice", 2);
        queue.remove(&a, "alice", 1);
        queue.remove(&a, "alice", 1);
        assert_eq!((queue.len(), queue.targets().len()), (1, 1));
        queue.remove(&b, "alice", 2);
        assert_eq!((queue.len(), queue.targets().len()), (0, 0));
    }
}
