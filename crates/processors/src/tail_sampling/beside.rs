//! What rules take beside the buffer, of the same budget: tables of adaptive percentages, and lists of values in
//! files, which grow and shrink as the files do.

use std::sync::Arc;

use super::budget::Budget;
use super::metrics::Metrics;
use super::rules::RuleSet;
use super::rules::lists::{Room, Watcher};
use super::sampler::ConfigError;

/// What rules take beside the buffer, of the same budget.
pub(super) struct Beside {
    /// What one list of values may take.
    most: usize,
    lists: usize,
}

impl Beside {
    /// # Errors
    /// If they take more than half of it.
    pub(super) fn charge(rules: &RuleSet, budget: &Budget) -> Result<Self, ConfigError> {
        let half = budget.ceiling() / 2;
        let adaptive = rules.adaptive_bytes();
        let Some(left) = half.checked_sub(adaptive) else {
            let message = format!(
                "rules: the tables of adaptive percentages may take {} KiB, more than half of the buffer's budget: set smaller \
                 max_keys, or a larger memory_limit_mib",
                adaptive >> 10
            );
            return Err(ConfigError(message));
        };
        // One part more: a list that is read again stands beside the one in use.
        let most = left / (rules.lists.len() + 1);
        for list in &rules.lists {
            list.check(most).map_err(|error| ConfigError(format!("values_file: {error}")))?;
        }
        let lists = rules.list_bytes();
        budget.change(0, adaptive + lists);
        Ok(Self { most, lists })
    }
}

/// Looks after lists in files; `None` if there are none.
pub(super) fn watch(
    rules: &Arc<RuleSet>,
    metrics: &Arc<Metrics>,
    budget: &Arc<Budget>,
    beside: Beside,
) -> Result<Option<Watcher>, ConfigError> {
    metrics.rules_take(rules.adaptive_bytes() + beside.lists);
    if rules.lists.is_empty() {
        return Ok(None);
    }
    let Beside { most, lists: charged } = beside;
    let room = ListRoom { rules: Arc::clone(rules), metrics: Arc::clone(metrics), budget: Arc::clone(budget), charged };
    let watcher = Watcher::new(rules.lists.clone(), most, room);
    watcher.map(Some).map_err(|error| ConfigError(format!("no thread to watch values_file: {error}")))
}

/// The part of the budget that lists take.
struct ListRoom {
    rules: Arc<RuleSet>,
    metrics: Arc<Metrics>,
    budget: Arc<Budget>,
    charged: usize,
}

impl ListRoom {
    fn charge(&mut self, bytes: usize) {
        self.budget.change(self.charged, bytes);
        self.charged = bytes;
        self.metrics.rules_take(self.rules.adaptive_bytes() + bytes);
    }
}

impl Room for ListRoom {
    fn claim(&mut self, bytes: usize) -> bool {
        let budget = Arc::clone(&self.budget);
        // Charged before the reservation is given back.
        budget.reserve(bytes).map(|_reservation| self.charge(self.charged + bytes)).is_some()
    }

    fn settle(&mut self, read: Option<bool>) {
        if let Some(read) = read {
            self.metrics.list_read(read);
        }
        let bytes = self.rules.list_bytes();
        if bytes != self.charged {
            self.charge(bytes);
        }
    }
}
