//! Budgets of spans a second, which rules lend each other.
//!
//! Each rule has a token bucket; what flows over goes into a pot from which every rule may borrow. So
//! all together never use more than the sum of their rates (and what the buckets held before). A trace
//! larger than a full bucket goes into debt, once: until that is paid back nothing else passes.

use parking_lot::Mutex;

use super::expr::Look;

const SECOND: f64 = 1e9;

/// The budget of one rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Spans a second.
    pub(super) rate: f64,
    /// Spans.
    pub(super) capacity: f64,
}

/// The budgets of all rules that have one.
#[derive(Debug)]
pub(super) struct Budgets {
    members: Vec<Budget>,
    /// The most that can be lent: what all together may use in a second.
    pot_capacity: f64,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    tokens: Vec<f64>,
    pot: f64,
    at: u64,
}

impl Budgets {
    pub(super) fn new(members: Vec<Budget>) -> Self {
        let tokens = members.iter().map(|member| member.capacity).collect();
        let pot_capacity = members.iter().map(|member| member.rate).sum();
        Self { members, pot_capacity, state: Mutex::new(State { tokens, pot: 0.0, at: 0 }) }
    }

    /// Is there room for `spans` in the budget of `member`? Takes it, unless this is only a question.
    pub(super) fn take(&self, member: usize, spans: u64, look: &Look) -> bool {
        let mut state = self.state.lock();
        let mut copy;
        let state = if look.only_ask {
            copy = state.clone();
            &mut copy
        } else {
            &mut *state
        };
        self.refill(state, look.now);
        self.spend(state, member, spans as f64).is_some()
    }

    fn refill(&self, state: &mut State, now: u64) {
        let seconds = now.saturating_sub(state.at) as f64 / SECOND;
        state.at = state.at.max(now);
        for (tokens, member) in state.tokens.iter_mut().zip(&self.members) {
            let filled = *tokens + seconds * member.rate;
            *tokens = filled.min(member.capacity);
            state.pot += filled - *tokens;
        }
        state.pot = state.pot.min(self.pot_capacity);
    }

    fn spend(&self, state: &mut State, member: usize, cost: f64) -> Option<()> {
        let capacity = self.members.get(member)?.capacity;
        let tokens = state.tokens.get_mut(member)?;
        let own = tokens.max(0.0);
        if cost <= own + state.pot {
            let borrowed = (cost - own).max(0.0);
            state.pot -= borrowed;
            *tokens -= cost - borrowed;
            return Some(());
        }
        let full = *tokens >= capacity;
        (full && cost > capacity).then(|| *tokens -= cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Look {
        Look::at(millis * 1_000_000)
    }

    fn budgets(rates: &[f64]) -> Budgets {
        Budgets::new(rates.iter().map(|&rate| Budget { rate, capacity: 2.0 * rate }).collect())
    }

    #[test]
    fn what_one_does_not_use_is_lent_to_another() {
        let budgets = budgets(&[100.0, 300.0]);
        // One is busy, the other idle: after its burst the busy one gets what both may use.
        let passed = |member: usize, from: u64, to: u64| {
            (from..to).filter(|millis| budgets.take(member, 1, &at(*millis))).count()
        };
        assert_eq!(passed(0, 0, 1), 1);
        let used: usize = (10_000..20_000).map(|millis| passed(0, millis, millis + 1)).sum();
        assert!((3900..=5000).contains(&used), "{used} spans in ten seconds");
        // As soon as the other one comes, it has its own budget at once.
        let both: (usize, usize) = (20_000..30_000)
            .map(|millis| (passed(0, millis, millis + 1), passed(1, millis, millis + 1)))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert!(both.1 >= 3000, "{both:?}");
        assert!(both.0 >= 1000 && both.0 + both.1 <= 4000 + 600 + 400, "{both:?}");
    }

    #[test]
    fn one_trace_may_be_larger_than_the_bucket_and_is_paid_back() {
        let budgets = budgets(&[10.0]);
        assert!(budgets.take(0, 100, &at(0)));
        assert!(!budgets.take(0, 1, &at(7900)), "80 spans of debt");
        assert!(budgets.take(0, 1, &at(8200)));
        assert!(!budgets.take(0, 100, &at(8300)), "the bucket is not full");
        assert!(budgets.take(0, 100, &at(20_000)));
    }

    #[test]
    fn a_question_takes_nothing() {
        let budgets = budgets(&[10.0]);
        assert!(budgets.take(0, 20, &Look::ask(0)));
        assert!(budgets.take(0, 20, &at(0)));
        assert!(!budgets.take(0, 20, &Look::ask(0)));
    }
}
