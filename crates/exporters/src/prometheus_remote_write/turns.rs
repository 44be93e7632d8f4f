//! Doing things in order that are prepared in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Hands out turns 0, 1, 2, ...: turn n comes when all before it have ended.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The turn that has come.
    current: u64,
    ended_early: BTreeSet<u64>,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// A turn; ends on drop, whether it had come or not.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    number: u64,
}

impl Turns {
    /// Turn `number`. Every number must be taken once.
    pub(super) fn take(self: &Arc<Self>, number: u64) -> Turn {
        Turn { turns: Arc::clone(self), number }
    }
}

impl Turn {
    /// Returns when the turn has come.
    pub(super) async fn come(&self) {
        let notify = {
            let mut state = self.turns.state.lock();
            if state.current >= self.number {
                return;
            }
            Arc::clone(state.waiting.entry(self.number).or_default())
        };
        // A permit is stored if the turn comes before this waits.
        notify.notified().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock();
        state.waiting.remove(&self.number);
        state.ended_early.insert(self.number);
        while state.ended_early.first() == Some(&state.current) {
            state.ended_early.pop_first();
            state.current += 1;
        }
        let current = state.current;
        if let Some(next) = state.waiting.get(&current) {
            next.notify_one();
        }
    }
}
