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

/// Budgets of spans a second for several policies, the sum of which is bounded.
///
/// The first sub-policy that samples a trace and has enough left of its budget keeps it. Where none
/// has, the last one that samples it borrows what others left unused in the second before.
///
/// The Collector's way (`strict`): the first that samples the trace decides, also against it; and
/// the bound is compared with each sub-policy's spans alone.
#[derive(Debug)]
pub(super) struct Composite {
    members: Vec<Member>,
    max_total: u64,
    strict: bool,
    spent: Mutex<Spent>,
}

/// A sub-policy of a composite.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) expr: Expr,
    pub(super) budget: u64,
}

/// Spans of one second.
#[derive(Debug, Clone)]
struct Spent {
    second: u64,
    by_member: Vec<u64>,
    /// By all, what was borrowed included.
    total: u64,
    /// What may be borrowed still.
    lent: u64,
}

impl Spent {
    /// Begins another second. Only forward: who has taken the time first may come second to the lock, and would
    /// hand out this second's budgets again.
    fn turn_to(&mut self, second: u64, max_total: u64) {
        if second <= self.second {
            return;
        }
        let own: u64 = if second == self.second + 1 { self.by_member.iter().sum() } else { 0 };
        self.lent = max_total.saturating_sub(own);
        self.second = second;
        self.total = 0;
        self.by_member.fill(0);
    }
}

impl Spent {
    /// Books spans on a member's own budget, if they fit.
    fn take_own(&mut self, member: usize, budget: u64, cost: u64) -> Option<bool> {
        let used = self.by_member.get_mut(member)?;
        let would_use = used.saturating_add(cost);
        let fits = would_use <= budget;
        if fits {
            *used = would_use;
            self.total = self.total.saturating_add(cost);
        }
        Some(fits)
    }

    /// Books spans on what is left of a member's own budget, and on what may be borrowed.
    fn borrow(&mut self, member: usize, budget: u64, cost: u64) -> Option<()> {
        let used = self.by_member.get_mut(member)?;
        let own = budget.saturating_sub(*used);
        self.lent = self.lent.checked_sub(cost.saturating_sub(own))?;
        *used += own;
        self.total = self.total.saturating_add(cost);
        Some(())
    }
}

impl Composite {
    pub(super) fn new(members: Vec<Member>, max_total: u64, strict: bool) -> Self {
        let spent = Spent { second: 0, by_member: vec![0; members.len()], total: 0, lent: max_total };
        Self { members, max_total, strict, spent: Mutex::new(spent) }
    }

    /// The index of the sub-policy that keeps the trace.
    pub(super) fn choose(&self, facts: &Facts<'_>, look: &mut Look) -> Option<u16> {
        let mut spent = self.spent.lock();
        let mut copy;
        let spent = if look.only_ask {
            copy = spent.clone();
            &mut copy
        } else {
            &mut *spent
        };
        spent.turn_to(look.now / SECOND as u64, self.max_total);
        if !self.strict && spent.total.saturating_add(facts.spans) > self.max_total {
            return None;
        }
        let mut last = None;
        for (index, member) in self.members.iter().enumerate() {
            let holds = member.expr.holds(facts, look);
            if look.failed {
                return None;
            }
            if !holds {
                continue;
            }
            if spent.take_own(index, member.budget.min(self.max_total), facts.spans)? {
                return u16::try_from(index).ok();
            }
            if self.strict {
                return None;
            }
            last = Some((index, member.budget));
        }
        let (index, budget) = last?;
        spent.borrow(index, budget, facts.spans)?;
        u16::try_from(index).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Bits;
    use super::super::extra::Extra;
    use super::super::marks::Marks;
    use super::*;

    const SECONDS: u64 = 1_000_000_000;

    /// Two sub-policies that take all; ten spans a second each, twenty together.
    fn composite(strict: bool) -> Composite {
        let member = || Member { expr: Expr::Const(true), budget: 10 };
        Composite::new(vec![member(), member()], 20, strict)
    }

    fn is_kept(composite: &Composite, spans: u64, now: u64) -> bool {
        let (id, bits, extra, marks) = (&[1; 16], &Bits::NONE, &Extra::NONE, Marks::default());
        let facts = Facts { id, bits, start: 1, end: 2, spans, bytes: 1, extra, marks };
        composite.choose(&facts, &mut Look::at(now)).is_some()
    }

    /// Scenario: of two threads at the end of a second, the one that took the time first gets the lock second.
    /// Guarantee: no second's budget is handed out twice, whatever the order of clocks.
    #[test]
    fn a_late_clock_hands_no_budget_out_again() {
        for strict in [false, true] {
            let composite = composite(strict);
            let kept = |now: u64| (0..30).filter(|_| is_kept(&composite, 1, now)).count();
            let per_second = if strict { 10 } else { 20 };
            assert_eq!(kept(5 * SECONDS), per_second);
            assert_eq!(kept(5 * SECONDS - 1), 0, "the second before is over");
            assert_eq!(kept(5 * SECONDS + 1), 0, "and this one's budget is spent");
            assert_eq!(kept(6 * SECONDS), per_second);
        }
    }

    /// The same with any clocks: never more than a budget for each second that there was.
    #[test]
    fn budgets_hold_with_clocks_out_of_order() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(11);
        for strict in [false, true] {
            let composite = composite(strict);
            let mut kept = 0;
            for step in 0..20_000u64 {
                // 20 seconds, each clock up to 100 ms behind.
                let now = (step * SECONDS / 1000 + SECONDS).saturating_sub(rng.random_range(0..SECONDS / 10));
                let spans = rng.random_range(1..4);
                kept += if is_kept(&composite, spans, now) { spans } else { 0 };
            }
            let per_second = if strict { 10 } else { 20 };
            assert!((per_second * 15..=per_second * 22).contains(&kept), "{kept}");
        }
    }
}
