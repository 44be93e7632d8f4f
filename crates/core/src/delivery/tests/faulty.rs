//! The queue and its log together, on a disk that fails: random loads, moods of the backend, faults of the disk, and
//! ends of processes, beside a model that is a few sets of names.
//!
//! What was acknowledged arrives, whatever fails. Twice comes only what the process had delivered when it died, or what
//! it could not write down as delivered.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::durable::{Place, soon, start_with, taken, until};
use super::*;
use crate::batch::DropReason;
use crate::component::Consumer;
use crate::storage::faulty::{Faults, FaultyDisk, for_each_seed};
use crate::storage::{Disk, Fsync};
use crate::telemetry::Entry;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// SIGTERM.
    Shutdown,
    /// `kill -9`, in the middle of a write if it happens so.
    Kill,
    /// The machine goes too.
    PowerCut,
}

/// What is known of all spans so far.
#[derive(Default)]
struct Model {
    /// Acknowledged: must arrive.
    acknowledged: BTreeSet<String>,
    /// Acknowledged without an fsync, and no process has been shut down since, which syncs everything.
    unsynced: BTreeSet<String>,
    /// A power cut came while it was unsynced: may be lost.
    excused: BTreeSet<String>,
    /// Refused because of the disk: may be there after a crash.
    refused: BTreeSet<String>,
    /// Delivered, and it may be forgotten that it was.
    forgettable: BTreeSet<String>,
    arrived: BTreeSet<String>,
    doubled: usize,
}

fn weather(random: &mut SmallRng, dies: bool) -> Faults {
    let mut percent = |most| if random.random() { 0 } else { random.random_range(0..most) };
    Faults {
        short_write: percent(60),
        no_space: percent(30),
        sync: percent(30),
        truncate: percent(30),
        remove: percent(30),
        rename: percent(30),
        die_after: dies.then(|| random.random_range(0..6000)),
        ..Faults::default()
    }
}

/// One process. Returns its ledger, and what it acknowledged and refused.
async fn one_life(
    seed: u64,
    life: u64,
    backend: &Arc<Backend>,
    place: &Place,
    ending: Ending,
) -> (Ledger, [BTreeSet<String>; 2]) {
    let mut random = SmallRng::seed_from_u64(seed << 8 | life);
    let is_last = life == LIVES - 1;
    let batching = if random.random() { ", batch: {min_size: 5, flush_timeout: 2ms}" } else { "" };
    let config = format!("{{num_consumers: {}, queue_size: 60{batching}}}", random.random_range(1..4));
    let memory = [Some(0), Some(150), None][random.random_range(0..3)];
    let rig = start_with(backend, place, &config, memory).await;
    place.disk.set_faults(if is_last { Faults::default() } else { weather(&mut random, ending != Ending::Shutdown) });
    let mut senders = Vec::new();
    for sender in 0..3 {
        let delivery = Arc::clone(&rig.delivery);
        let sizes: Vec<usize> = (0..random.random_range(0..20)).map(|_| random.random_range(1..4)).collect();
        senders.push(tokio::spawn(async move {
            let mut sets = [BTreeSet::new(), BTreeSet::new()];
            for (index, spans) in sizes.into_iter().enumerate() {
                let name = format!("{life}.{sender}.{index}");
                let is_taken = delivery.consume(batch(&name, spans)).await.is_ok();
                sets[usize::from(!is_taken)].extend((0..spans).map(|span| format!("{name}-{span}")));
            }
            sets
        }));
    }
    let mut sets = [BTreeSet::new(), BTreeSet::new()];
    for sender in senders {
        let [acknowledged, refused] = sender.await.unwrap();
        sets[0].extend(acknowledged);
        sets[1].extend(refused);
    }
    if is_last {
        until("all is delivered", || rig.ledger.held_count() == 0).await;
    } else {
        sleep(Duration::from_millis(random.random_range(0..20))).await;
    }
    if ending == Ending::Shutdown {
        place.disk.set_faults(Faults::default());
        rig.delivery.shutdown(soon()).await;
    }
    (rig.ledger.clone(), sets)
}

const LIVES: u64 = 5;

fn run(seed: u64) -> usize {
    let mut random = SmallRng::seed_from_u64(seed);
    let fsync = [Fsync::None, Fsync::Interval(Duration::from_millis(2)), Fsync::Always][random.random_range(0..3)];
    let max_bytes = if random.random() { 0 } else { random.random_range(4_000..20_000) };
    let place = Place { disk: FaultyDisk::new(seed), max_bytes, fsync };
    let mut model = Model::default();
    let mut power_was_cut = false;
    for life in 0..LIVES {
        let ending = match random.random_range(0..3) {
            _ if life == LIVES - 1 => Ending::Shutdown,
            0 => Ending::Shutdown,
            1 => Ending::Kill,
            _ => Ending::PowerCut,
        };
        let failed_syncs = place.disk.failed_syncs();
        let moods = (0..random.random_range(0..30)).map(|_| if random.random() { down() } else { Outcome::Delivered });
        let backend = Backend::answering(moods.collect::<Vec<_>>());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (ledger, [acknowledged, refused]) = runtime.block_on(one_life(seed, life, &backend, &place, ending));
        drop(runtime);
        // Its thread has let go of the disk.
        while place.disk.lock().is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        match ending {
            Ending::Shutdown => {}
            Ending::Kill => place.disk.kill(),
            Ending::PowerCut => place.disk.cut_power(),
        }
        let lost: u64 = DropReason::ALL.iter().map(|&reason| ledger.dropped_count(reason)).sum();
        let held = u64::try_from(ledger.held_count()).unwrap();
        let incoming = ledger.count(Entry::Accepted) + ledger.count(Entry::Created);
        assert_eq!(incoming, ledger.count(Entry::Exported) + lost + held, "life {life}: the ledger");
        if fsync != Fsync::Always {
            model.unsynced.extend(acknowledged.iter().cloned());
        }
        model.acknowledged.extend(acknowledged);
        match ending {
            // What a disk says after a failed fsync means nothing.
            Ending::Shutdown if place.disk.failed_syncs() > failed_syncs => {}
            Ending::Shutdown => model.unsynced.clear(),
            Ending::Kill => {}
            Ending::PowerCut => model.excused.append(&mut model.unsynced),
        }
        // What was refused may be there after a power cut, and not all of it.
        let unreadable = if power_was_cut { ledger.dropped_count(DropReason::Unreadable) } else { 0 };
        assert_eq!(lost, unreadable, "life {life}: nothing is given up");
        power_was_cut |= ending == Ending::PowerCut;
        let here = taken(&backend);
        let distinct: BTreeSet<String> = here.iter().cloned().collect();
        assert_eq!(distinct.len(), here.len(), "life {life}: twice by one process");
        assert!(distinct.is_disjoint(&refused), "life {life}: what was refused was sent by the same process");
        for name in &distinct {
            assert!(
                model.acknowledged.contains(name) || model.refused.contains(name),
                "life {life}: {name}, from nowhere"
            );
            if !model.arrived.insert(name.clone()) {
                assert!(model.forgettable.contains(name), "life {life}: {name} came again");
                model.doubled += 1;
            }
        }
        model.refused.extend(refused);
        match ending {
            // It had time, and a disk that works, to write down everything.
            Ending::Shutdown => {}
            Ending::Kill => model.forgettable.extend(distinct),
            // Releases are not synced: older ones may be forgotten, too.
            Ending::PowerCut => model.forgettable.extend(model.arrived.iter().cloned()),
        }
    }
    let missing: Vec<_> =
        model.acknowledged.difference(&model.arrived).filter(|name| !model.excused.contains(*name)).collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    model.doubled
}

/// Guarantee: over many lives on a disk with short writes, full disks, failed fsyncs, torn tails and lost renames,
/// nothing that was acknowledged is lost.
#[test]
fn nothing_acknowledged_is_lost_on_a_disk_that_fails() {
    let seeds = if std::env::var_os("NYQUIST_LONG").is_some() { 3000 } else { 60 };
    let doubled = AtomicUsize::new(0);
    for_each_seed(seeds, |seed| _ = doubled.fetch_add(run(seed), Ordering::Relaxed));
    assert!(doubled.into_inner() > 0 || std::env::var_os("NYQUIST_SEED").is_some(), "no seed sends anything twice");
}
