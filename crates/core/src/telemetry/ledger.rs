//! Where every item went.
//!
//! Three kinds of account, both in items before translation:
//!
//! - of a pipeline: `accepted + created = filtered + sampled_out + merged + dropped + held + emitted`,
//!   where emitted is what was handed to its exporters;
//! - of an exporter (one per signal): `accepted + created = exported + dropped + held`, where accepted
//!   is the sum of what its pipelines emitted, and created what a queue on disk held at the start. What
//!   such a queue holds at the end stays held: it is created again in the next process. What
//!   `load_balancing` moves from one backend's queue to another's is emitted by the one and accepted by
//!   the other.
//! - of a connector (one per signal that it takes or gives): `accepted + created = filtered + merged +
//!   dropped + held + emitted`, where emitted is what the pipelines behind it took.
//!
//! On :8888 they are `nyquist_ledger_items{account,signal,entry}` and
//! `nyquist_ledger_dropped_items{account,signal,reason}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Counter, Telemetry, UpDown};
use crate::batch::{DropReason, Signal};

/// What happened to items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Came in, and the sender was told so.
    Accepted,
    /// Came into being here (a connector's or limiter's output), or was found on disk at the start.
    Created,
    /// Were removed on purpose by a filter.
    Filtered,
    /// Belonged to traces that sampling did not keep.
    SampledOut,
    /// Were merged into other items.
    Merged,
    /// Left a pipeline for its exporters, or a connector for its pipelines.
    Emitted,
    /// Were delivered: the backend confirmed them.
    Exported,
}

impl Entry {
    const ALL: [Self; 7] =
        [Self::Accepted, Self::Created, Self::Filtered, Self::SampledOut, Self::Merged, Self::Emitted, Self::Exported];

    fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Created => "created",
            Self::Filtered => "filtered",
            Self::SampledOut => "sampled_out",
            Self::Merged => "merged",
            Self::Emitted => "emitted",
            Self::Exported => "exported",
        }
    }
}

#[derive(Debug)]
struct Series {
    entries: [Counter; Entry::ALL.len()],
    dropped: [Counter; DropReason::ALL.len()],
    held: UpDown,
}

/// What an account was left with at the end of a shutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// `exporter/otlp`, `pipeline/traces`.
    pub account: String,
    /// Of which signal.
    pub signal: String,
    /// Items that were not delivered by the deadline, and are lost.
    pub lost: u64,
    /// Items that are still held: on disk, for the next process.
    pub kept: u64,
}

/// The accounts that something was left of.
#[must_use]
pub fn left(telemetry: &Telemetry) -> Vec<Left> {
    let mut accounts: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for family in telemetry.registry.gather() {
        for series in family.get_metric() {
            let label = |name: &str| {
                let found = series.get_label().iter().find(|label| label.name() == name);
                found.map(|label| label.value().to_owned()).unwrap_or_default()
            };
            let account = || (label("account"), label("signal"));
            match family.name() {
                "nyquist_ledger_dropped_items" if label("reason") == DropReason::Shutdown.name() => {
                    accounts.entry(account()).or_default().0 += series.get_counter().get_value() as u64;
                }
                "nyquist_ledger_held_items" => {
                    accounts.entry(account()).or_default().1 += series.get_gauge().get_value().max(0.0) as u64;
                }
                _ => {}
            }
        }
    }
    let left = accounts.into_iter().map(|((account, signal), (lost, kept))| Left { account, signal, lost, kept });
    left.filter(|left| left.lost + left.kept > 0).collect()
}

/// One account. Cheap to clone; counting is one atomic addition.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Series>);

impl Ledger {
    /// The account `account` (`pipeline/traces`, `exporter/otlp/jaeger`) of `signal`.
    #[must_use]
    pub fn new(telemetry: &Telemetry, account: &str, signal: Signal) -> Self {
        let signal = signal.name();
        let entry = |name: &str| {
            let help = "Items by what became of them; accepted + created = all other entries + dropped + held.";
            telemetry.counter(
                "nyquist_ledger_items",
                help,
                &[("account", account), ("signal", signal), ("entry", name)],
            )
        };
        let dropped = |reason: DropReason| {
            let help = "Items that were lost, by reason.";
            let labels = [("account", account), ("signal", signal), ("reason", reason.name())];
            telemetry.counter("nyquist_ledger_dropped_items", help, &labels)
        };
        let held = telemetry.gauge(
            "nyquist_ledger_held_items",
            "Items that are held now: buffered, queued or in flight.",
            &[("account", account), ("signal", signal)],
        );
        Self(Arc::new(Series {
            entries: Entry::ALL.map(|kind| entry(kind.name())),
            dropped: DropReason::ALL.map(dropped),
            held,
        }))
    }

    /// An account that nobody reads: for tests.
    #[must_use]
    pub fn detached() -> Self {
        Self::new(&Telemetry::default(), "test", Signal::Traces)
    }

    /// Books `items` under `entry`.
    pub fn add(&self, entry: Entry, items: usize) {
        self.0.entries[entry as usize].inc_by(items as u64);
    }

    /// Books `items` as lost for `reason`.
    pub fn dropped(&self, reason: DropReason, items: usize) {
        self.0.dropped[reason as usize].inc_by(items as u64);
    }

    /// Changes how many items are held.
    pub fn held(&self, change: i64) {
        self.0.held.add(change);
    }

    /// How many items are booked under `entry`.
    #[must_use]
    pub fn count(&self, entry: Entry) -> u64 {
        self.0.entries[entry as usize].get()
    }

    /// How many items were dropped for `reason`.
    #[must_use]
    pub fn dropped_count(&self, reason: DropReason) -> u64 {
        self.0.dropped[reason as usize].get()
    }

    /// How many items are held.
    #[must_use]
    pub fn held_count(&self) -> i64 {
        self.0.held.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_by_account() {
        let telemetry = Telemetry::new();
        let [lossy, durable, empty] =
            ["exporter/a", "exporter/b", "exporter/c"].map(|name| Ledger::new(&telemetry, name, Signal::Traces));
        lossy.dropped(DropReason::Shutdown, 3);
        lossy.dropped(DropReason::Rejected, 5);
        durable.held(7);
        empty.add(Entry::Accepted, 9);
        let account = |account: &str, lost, kept| {
            let signal = Signal::Traces.name().to_owned();
            Left { account: account.to_owned(), signal, lost, kept }
        };
        assert_eq!(left(&telemetry), [account("exporter/a", 3, 0), account("exporter/b", 0, 7)]);
    }
}
