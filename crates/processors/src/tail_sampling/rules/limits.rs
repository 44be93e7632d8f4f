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

    pub(super) fn take(&self, cost: u64, now: u64) -> bool {
        let cost = cost as f64;
        let mut level = self.level.lock();
        let elapsed = now.saturating_sub(level.at) as f64 / SECOND;
        level.tokens = (level.tokens + elapsed * self.rate).min(self.capacity);
        level.at = level.at.max(now);
        let enough = cost <= level.tokens;
        if enough {
            level.tokens -= cost;
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
        if spent.second != second {
            spent.second = second;
            spent.by_member.fill(0);
        }
        let used = spent.by_member.get_mut(index)?;
        let would_use = used.saturating_add(facts.spans);
        if would_use > member.budget || would_use > self.max_total {
            return None;
        }
        *used = would_use;
        u16::try_from(index).ok()
    }
}
