//! The thread's timer (`fsync` with a duration), at simulated times.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, oneshot};

use super::*;
use crate::storage::faulty::for_each_seed;
use crate::storage::worker::{Append, Inbox, Worker};

const INTERVAL: Duration = Duration::from_millis(1000);

/// A log whose thread is the test, which tells it the time.
struct Rig {
    worker: Worker,
    inbox: Inbox,
    hand_over: Arc<Semaphore>,
    now: Instant,
}

impl Rig {
    fn start(disk: &FaultyDisk, now: Instant) -> Self {
        let (engine, _) = open(disk, limits(Fsync::Interval(INTERVAL), 60_000));
        let hand_over = Arc::new(Semaphore::new(1));
        Self { worker: Worker::new(engine, now), inbox: Inbox::default(), hand_over, now }
    }

    /// Lets time pass until `then`: the timer goes off as often as it is due.
    fn wait_until(&mut self, then: Instant) {
        while let Some(wait) = self.worker.may_wait(self.now).filter(|wait| self.now + *wait <= then) {
            self.now += wait;
            assert!(self.worker.turn(self.inbox.wait(Some(Duration::ZERO)), self.now).is_continue());
        }
        self.now = then;
    }

    /// Appends a record; has it been acknowledged?
    fn append(&mut self, identity: u64, length: usize) -> bool {
        let (answer, mut answered) = oneshot::channel();
        let payload = [identity.to_le_bytes().to_vec(), vec![7; length]].concat();
        let permit = Arc::clone(&self.hand_over).try_acquire_owned().unwrap();
        self.inbox.append(Append { record: record(&payload), answer, _permit: permit });
        assert!(self.worker.turn(self.inbox.wait(None), self.now).is_continue());
        answered.try_recv().unwrap().is_ok()
    }
}

/// Scenario: records come at any times, in bursts and after pauses; then the power is cut, at any time. Guarantee: what was
/// acknowledged more than the interval before is there; what came later may be gone.
#[test]
fn a_power_cut_loses_no_more_than_the_last_interval() {
    let (kept, lost) = (Cell::new(0), Cell::new(0));
    for_each_seed(500, |seed| {
        let mut random = SmallRng::seed_from_u64(seed);
        let disk = FaultyDisk::new(seed);
        let start = Instant::now();
        let cut = start + Duration::from_millis(random.random_range(0..6000));
        let mut rig = Rig::start(&disk, start);
        let mut acknowledged = Vec::new();
        for identity in 0.. {
            let longest = [1, 100, 3000][random.random_range(0..3)];
            let next = rig.now + Duration::from_millis(random.random_range(0..longest));
            if next > cut || identity == 200 {
                break;
            }
            rig.wait_until(next);
            if rig.append(identity, random.random_range(0..300)) {
                acknowledged.push((rig.now, identity));
            }
        }
        rig.wait_until(cut);
        drop(rig);
        disk.cut_power();
        let (mut engine, _) = open(&disk, limits(Fsync::Interval(INTERVAL), 60_000));
        let identity = |record: Record| u64::from_le_bytes(record.payload[..8].try_into().unwrap());
        let there: BTreeSet<u64> = read_all(&mut engine, 10_000).into_iter().map(identity).collect();
        for (at, identity) in acknowledged {
            let is_there = there.contains(&identity);
            let age = cut - at;
            assert!(is_there || age < INTERVAL, "{identity}, acknowledged {age:?} before, is lost");
            let count = if is_there { &kept } else { &lost };
            count.set(count.get() + 1);
        }
    });
    if std::env::var_os("NYQUIST_SEED").is_none() {
        assert!(kept.get() > 0 && lost.get() > 0, "{} kept, {} lost", kept.get(), lost.get());
    }
}
