//! Which metric lost points, in the log: each is named now and then, whatever comes.
//!
//! Counters say how much is lost, and must not have a label for each metric. A line for each loss would be a flood of
//! its own.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The same loss of the same metric is named again after this time.
const QUIET: Duration = Duration::from_secs(600);

/// All lines together: at most this many in [`QUIET`], which also bounds what is remembered.
const MAX_LINES: usize = 100;

/// Names metrics that lose points.
#[derive(Debug)]
pub struct LossLog {
    component: String,
    named: Mutex<Named>,
}

/// What the log says already.
#[derive(Debug)]
struct Named {
    metrics: HashMap<(&'static str, Box<[u8]>), Logged>,
    lines: usize,
    lines_since: Instant,
}

#[derive(Debug)]
struct Logged {
    at: Instant,
    unsaid: usize,
}

impl LossLog {
    /// The losses of `component`: `processor/filter`.
    #[must_use]
    pub fn new(component: impl Into<String>) -> Self {
        let named = Named { metrics: HashMap::new(), lines: 0, lines_since: Instant::now() };
        Self { component: component.into(), named: Mutex::new(named) }
    }

    /// `points` of `metric` are lost, and counted elsewhere: a line, unless there was one lately.
    pub fn lost(&self, reason: &'static str, metric: &[u8], points: usize, advice: &str) {
        if points == 0 {
            return;
        }
        if let Some(points) = self.is_due(reason, metric, points) {
            let metric = String::from_utf8_lossy(metric);
            tracing::warn!(component = self.component, %metric, reason, points, "dropping points of this metric: {advice}");
        }
    }

    /// Has this metric been named for this reason?
    #[must_use]
    pub fn has_named(&self, reason: &'static str, metric: &[u8]) -> bool {
        self.named.lock().metrics.contains_key(&(reason, Box::from(metric)))
    }

    /// Is it time for a line about this? Then with how many since the one before, `count` included.
    pub fn is_due(&self, reason: &'static str, metric: &[u8], count: usize) -> Option<usize> {
        let now = Instant::now();
        let mut named = self.named.lock();
        if now.duration_since(named.lines_since) >= QUIET {
            (named.lines, named.lines_since) = (0, now);
            named.metrics.retain(|_, logged| now.duration_since(logged.at) < 2 * QUIET);
        }
        let has_room = named.lines < MAX_LINES;
        let key = (reason, Box::from(metric));
        let all = match named.metrics.get_mut(&key) {
            Some(logged) if !has_room || now.duration_since(logged.at) < QUIET => {
                logged.unsaid += count;
                return None;
            }
            Some(logged) => {
                logged.at = now;
                count + std::mem::take(&mut logged.unsaid)
            }
            None if !has_room => return None,
            None => {
                named.metrics.insert(key, Logged { at: now, unsaid: 0 });
                count
            }
        };
        named.lines += 1;
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_metric_is_named_once_in_ten_minutes_with_all_that_was_lost() {
        let log = LossLog::new("processor/p");
        assert_eq!(log.is_due("delta", b"a", 2), Some(2));
        assert_eq!(log.is_due("delta", b"a", 3), None);
        assert_eq!(log.is_due("value", b"a", 1), Some(1), "another reason");
        assert_eq!(log.is_due("delta", b"b", 1), Some(1), "another metric");
        tokio::time::advance(QUIET).await;
        assert_eq!(log.is_due("delta", b"a", 4), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_metrics_gives_few_lines_and_little_memory() {
        let log = LossLog::new("processor/p");
        for round in 0..5 {
            for number in 0..1000 {
                log.lost("delta", format!("metric {round} {number}").as_bytes(), 1, "no advice");
            }
            assert_eq!(log.named.lock().lines, MAX_LINES);
            assert!(log.named.lock().metrics.len() <= 3 * MAX_LINES);
            tokio::time::advance(QUIET).await;
        }
        assert!(!log.has_named("delta", b"metric 0 0") && log.has_named("delta", b"metric 4 0"));
    }
}
