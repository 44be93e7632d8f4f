//! What a crash sends twice is bounded, however far the disk is behind.

use std::collections::BTreeSet;

use super::super::durable::UNWRITTEN;
use super::durable::{place, process, soon, start, taken, until};
use super::*;
use crate::component::Consumer;
use crate::storage::Disk;
use crate::storage::faulty::Faults;

const CONSUMERS: usize = 2;

/// Scenario: the disk stands still while the backend takes everything; then the process is killed. Guarantee: no more is
/// delivered than a few requests for each consumer, and no more than that arrives twice.
#[test]
fn consumers_do_not_run_ahead_of_the_disk() {
    stand_still(1, CONSUMERS * (UNWRITTEN + 1));
}

/// The same where an attempt waits for stages of its own, so that more are on their way than there are consumers.
/// Guarantee: the few requests are not multiplied.
#[test]
fn more_on_their_way_are_not_more_ahead_of_the_disk() {
    stand_still(10, CONSUMERS * (UNWRITTEN + 10));
}

fn stand_still(for_each: usize, most: usize) {
    for kills in [true, false] {
        let (place, backend) = (place(), Backend { for_each, gate: Some(Semaphore::new(0)), ..Backend::default() });
        let backend = Arc::new(backend);
        let stalled = process(async {
            let rig = start(&backend, &place, "{num_consumers: 2}").await;
            for index in 0..50 {
                rig.delivery.consume(batch(&format!("{index:02}"), 1)).await.unwrap();
            }
            let stalled = place.disk.stall();
            backend.let_through(50);
            until("consumers wait", || taken(&backend).len() == most).await;
            // Whoever does not wait would be done in less.
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(taken(&backend).len(), most);
            if kills {
                return Some(stalled);
            }
            drop(stalled);
            until("it goes on", || taken(&backend).len() == 50).await;
            rig.delivery.shutdown(soon()).await;
            None
        });
        if let Some(stalled) = stalled {
            // Not a word of what was delivered gets to the disk.
            stalled.end_with(Faults { die_after: Some(0), ..Faults::default() });
            while place.disk.lock().is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
            place.disk.kill();
        }
        let second = Backend::answering([]);
        process(async {
            let rig = start(&second, &place, "{}").await;
            until("the rest is delivered", || rig.ledger.held_count() == 0).await;
        });
        let (first, second) = (taken(&backend), taken(&second));
        let all: BTreeSet<&String> = first.iter().chain(&second).collect();
        assert_eq!(all.len(), 50, "nothing is missing");
        assert_eq!(first.len() + second.len() - all.len(), if kills { most } else { 0 });
    }
}
