//! Giving a batch to all or to none.

use futures_util::future::join_all;
use tokio::time::timeout;

use super::*;
use crate::batch::DropReason;
use crate::pipeline::FanOut;
use crate::pipeline::fan_out::Branch;

fn branch(stage: &Arc<Store>) -> Branch {
    Branch { stage: Arc::clone(stage) as Arc<dyn Consumer>, ledger: Ledger::detached() }
}

/// Scenario: the second of two branches has no room. Guarantee: nothing is committed anywhere,
/// and the room that was set aside in the first branch is given back.
#[tokio::test]
async fn a_full_branch_refuses_for_all() {
    let (roomy, tight) = (Store::new(100), Store::new(5));
    let fan_out = FanOut::new(vec![branch(&roomy), branch(&tight)], None);
    fan_out.consume(batch(4)).await.unwrap();
    let refusal = fan_out.consume(batch(4)).await.unwrap_err();
    assert!(refusal.is_retryable());
    assert_eq!((roomy.items(), tight.items()), (4, 4));
    assert_eq!((roomy.room.used(), tight.room.used()), (4, 4));
}

/// Scenario: a fan-out over two fan-outs. Guarantee: one reservation covers the whole tree, each
/// leaf takes its own permit, and the branches share the bytes.
#[tokio::test]
async fn nested_fan_outs_reserve_once() {
    let (one, two, three) = (Store::new(9), Store::new(9), Store::new(9));
    let inner: Arc<dyn Consumer> = Arc::new(FanOut::new(vec![branch(&one), branch(&two)], None));
    let inner = Branch { stage: inner, ledger: Ledger::detached() };
    let outer = FanOut::new(vec![inner, branch(&three)], None);
    outer.consume(batch(9)).await.unwrap();
    for store in [&one, &two, &three] {
        assert_eq!(store.room.used(), 9, "exactly one reservation");
    }
    let pointer = |store: &Store| store.taken.lock()[0].0.wire().as_ptr();
    assert_eq!(pointer(&one), pointer(&three));
    assert!(outer.consume(batch(1)).await.is_err());
    one.taken.lock().clear();
    assert_eq!(one.room.used(), 0, "a permit gives its room back");
}

/// Scenario: a branch refuses although its room was reserved, then accepts. Guarantee: the caller
/// sees success, each branch has the batch once.
#[tokio::test(start_paused = true)]
async fn a_late_refusal_is_retried_from_here() {
    let (steady, moody) = (Store::new(9), Store::new(9));
    moody.refusals.store(3, Ordering::Release);
    let fan_out = FanOut::new(vec![branch(&steady), branch(&moody)], None);
    fan_out.consume(batch(2)).await.unwrap();
    assert_eq!((steady.items(), moody.items()), (2, 2));
}

/// Scenario: it goes on refusing for now. Guarantee: the caller is told in the end, and loses nothing.
#[tokio::test(start_paused = true)]
async fn a_lasting_late_refusal_reaches_the_caller() {
    let (steady, moody) = (Store::new(9), Store::new(9));
    moody.refusals.store(usize::MAX, Ordering::Release);
    let account = Ledger::detached();
    let moody_branch = Branch { stage: Arc::clone(&moody) as Arc<dyn Consumer>, ledger: account.clone() };
    let fan_out = FanOut::new(vec![branch(&steady), moody_branch], None);
    assert!(fan_out.consume(batch(2)).await.unwrap_err().is_retryable());
    assert_eq!((steady.items(), moody.items()), (2, 0));
    assert_eq!((account.count(Entry::Accepted), account.dropped_count(DropReason::Rejected)), (0, 0));
}

/// Scenario: it refuses for good what another branch has taken. Guarantee: the loss is booked on that branch's account
/// only.
#[tokio::test(start_paused = true)]
async fn a_late_refusal_for_good_is_counted() {
    struct Picky;
    #[async_trait]
    impl Consumer for Picky {
        async fn consume(&self, _: Batch) -> Result<(), Refusal> {
            Err(Refusal::permanent("scripted"))
        }
        async fn reserve(&self, _: &Batch, _: &mut Permits) -> Result<(), NoRoom> {
            Ok(())
        }

        fn metadata_keys(&self) -> Vec<String> {
            Vec::new()
        }
    }
    let steady = Store::new(9);
    let account = Ledger::detached();
    let picky = Branch { stage: Arc::new(Picky), ledger: account.clone() };
    let fan_out = FanOut::new(vec![branch(&steady), picky], None);
    fan_out.consume(batch(2)).await.unwrap();
    assert_eq!(steady.items(), 2);
    assert_eq!((account.count(Entry::Accepted), account.dropped_count(DropReason::Rejected)), (2, 2));
}

/// A random walk over reservations: room in use always equals the permits that are alive.
#[tokio::test]
async fn rooms_balance_over_random_walks() {
    use rand::{RngExt, SeedableRng};
    for seed in 0..200u64 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let room = Room::new(50);
        let mut alive: Vec<crate::batch::Permit> = Vec::new();
        for _ in 0..200 {
            match random.random_range(0..4) {
                0 => alive.extend(room.try_reserve(random.random_range(0..20))),
                1 => drop(alive.pop()),
                2 => {
                    let part = alive.last_mut().map(|permit| permit.split(3));
                    alive.extend(part);
                }
                _ if !alive.is_empty() => drop(alive.swap_remove(random.random_range(0..alive.len()))),
                _ => {}
            }
            let expected: usize = alive.iter().map(crate::batch::Permit::units).sum();
            assert_eq!(room.used(), expected, "seed {seed}");
            assert!(room.used() <= 50, "seed {seed}");
        }
    }
}

/// Scenario: two receivers feed the same two full queues through nested fan-outs, in opposite orders, and one a queue by two
/// ways; more callers wait for room than a queue has places. Guarantee: when the queues empty, all get in; no caller holds
/// room that another one waits for.
#[tokio::test(start_paused = true)]
async fn those_who_wait_for_room_do_not_wait_for_each_other() {
    const PLACES: usize = 3;
    let waiting = || Arc::new(Store { waits: true, ..Arc::into_inner(Store::new(PLACES)).unwrap() });
    let (one, two) = (waiting(), waiting());
    let behind = |stores: &[&Arc<Store>]| -> FanOut {
        let pipeline = |store: &&Arc<Store>| {
            let exit: Arc<dyn Consumer> = Arc::new(FanOut::new(vec![branch(store)], None));
            Branch { stage: exit, ledger: Ledger::detached() }
        };
        FanOut::new(stores.iter().map(pipeline).collect(), None)
    };
    let receivers = [behind(&[&one, &two]), behind(&[&two, &one]), behind(&[&one, &two, &one])];
    for _ in 0..PLACES {
        one.consume(batch(1)).await.unwrap();
        two.consume(batch(1)).await.unwrap();
    }
    let callers = receivers.iter().flat_map(|receiver| (0..2 * PLACES).map(|_| receiver.consume(batch(1))));
    let delivered = async {
        for turn in 0usize.. {
            // One queue, then the other.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let store = if turn.is_multiple_of(2) { &one } else { &two };
            let left = store.taken.lock().pop();
            drop(left);
        }
    };
    let all = async {
        tokio::select! {
            answers = join_all(callers) => answers,
            () = delivered => unreachable!("it goes on for ever"),
        }
    };
    let answers = timeout(Duration::from_secs(60), all).await.expect("nobody waits for ever");
    assert!(answers.iter().all(Result::is_ok));
}
