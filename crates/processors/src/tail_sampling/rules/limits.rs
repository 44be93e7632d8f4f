//! Policies with state, shared by all shards. `now` is in nanoseconds of the sampler's clock.

use parking_lot::Mutex;

use super::expr::{Expr, Facts, Look};

const SECOND: f64 = 1e9;

/// A token bucket that starts full and takes all of a trace or nothing.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: f64,
    capacity: f64,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    tokens: f64,
    at: u64,
}

impl Bucket {
    pub(super) fn new(rate: u64, capacity: u64) -> Self {
        let capacity = capacity as f64;
        Self { rate: rate as f64, capacity, level: Mutex::new(Level { tokens: capacity, at: 0 }) }
    }

    /// Are there tokens for `cost`? Takes them, unless this is only a question.
    pub(super) fn take(&self, cost: u64, look: &Look) -> bool {
        let cost = cost as f64;
        let mut level = self.level.lock();
        let elapsed = look.now.saturating_sub(level.at) as f64 / SECOND;
        let tokens = (level.tokens + elapsed * self.rate).min(self.capacity);
        let enough = cost <= tokens;
        if !look.only_ask {
            *level = Level { tokens: if enough { tokens - cost } else { tokens }, at: level.at.max(look.now) };
        }
        enough
    }
}

/// Budgets of spans a second for several policies. The first that samples a trace decides; over its
/// budget the trace is not sampled.
#[derive(Debug)]
pub(super) struct Composite {
    pub(super) members: Vec<Member>,
    pub(super) max_total: u64,
    spent: Mutex<Spent>,
}

/// A sub-policy of a composite.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) expr: Expr,
    pub(super) budget: u64,
}

#[derive(Debug)]
struct Spent {
    second: u64,
    by_member: Vec<u64>,
}

impl Composite {
    pub(super) fn new(members: Vec<Member>, max_total: u64) -> Self {
        let spent = Mutex::new(Spent { second: 0, by_member: vec![0; members.len()] });
        Self { members, max_total, spent }
    }

    /// The index of the sub-policy that keeps the trace.
    pub(super) fn choose(&self, facts: &Facts<'_>, look: &mut Look) -> Option<u16> {
        let index = self.members.iter().position(|member| member.expr.holds(facts, look))?;
        let member = self.members.get(index)?;
        let second = look.now / SECOND as u64;
        let mut spent = self.spent.lock();
        let fresh = spent.second != second;
        let used = if fresh { 0 } else { spent.by_member.get(index).copied()? };
        let would_use = used.saturating_add(facts.spans);
        let enough = would_use <= member.budget && would_use <= self.max_total;
        if !look.only_ask {
            if fresh {
                spent.second = second;
                spent.by_member.fill(0);
            }
            if enough && let Some(used) = spent.by_member.get_mut(index) {
                *used = would_use;
            }
        }
        if !enough {
            return None;
        }
        u16::try_from(index).ok()
    }
}
