//! Random actions against a backend of random moods: what was acknowledged is delivered once or
//! dropped with a reason, what was refused is not delivered, and everything held is let go.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use super::*;
use crate::batch::DropReason;
use crate::component::Consumer;
use crate::delivery::{BatchConfig, OnFull, Sizer};
use crate::telemetry::Entry;

#[derive(Debug, Clone)]
enum Action {
    Consume(usize),
    Wait(u64),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1usize..30).prop_map(Action::Consume),
        1 => (1u64..4000).prop_map(Action::Wait),
    ]
}

fn mood() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        5 => Just(Outcome::Delivered),
        3 => Just(down()),
        1 => Just(Outcome::Refused { code: Code::Internal, message: "no".to_owned() }),
        1 => Just(Outcome::TooLarge { message: "too large".to_owned() }),
        1 => Just(Outcome::Partly { rejected: 1, message: String::new() }),
    ]
}

fn configs() -> impl Strategy<Value = QueueConfig> {
    let sizer = prop_oneof![Just(Sizer::Requests), Just(Sizer::Items), Just(Sizer::Bytes)];
    let batch = proptest::option::of((1usize..40, 0usize..40).prop_map(|(min_size, more)| BatchConfig {
        min_size,
        max_size: if more == 0 { 0 } else { min_size + more },
        sizer: Some(Sizer::Items),
        ..BatchConfig::default()
    }));
    (sizer, batch, 1usize..4, any::<bool>(), 1usize..20).prop_map(|(sizer, batch, num_consumers, drops, room)| {
        let unit = match sizer {
            Sizer::Requests => 1,
            Sizer::Items => 20,
            Sizer::Bytes => 200,
        };
        QueueConfig {
            sizer: Some(sizer),
            queue_size: room * unit,
            num_consumers,
            batch,
            on_full: if drops { OnFull::Drop } else { OnFull::Refuse },
            ..QueueConfig::default()
        }
    })
}

async fn check(config: QueueConfig, actions: Vec<Action>, moods: Vec<Outcome>, drain: u64, merges_up_to: usize) {
    let answers = Mutex::new(moods.into());
    let backend = Arc::new(Backend { answers, merges_up_to, ..Backend::default() });
    let rig = Rig::start(&backend, config, retry("{max_elapsed_time: 60s}")).await;
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for (index, action) in actions.into_iter().enumerate() {
        match action {
            Action::Wait(millis) => sleep(Duration::from_millis(millis)).await,
            Action::Consume(spans) => {
                let names = (0..spans).map(|span| format!("{index}-{span}"));
                match rig.delivery.consume(batch(&index.to_string(), spans)).await {
                    Ok(()) => accepted.extend(names),
                    Err(_) => refused.extend(names),
                }
            }
        }
    }
    rig.delivery.shutdown(Instant::now() + Duration::from_secs(drain)).await;

    let mut deliveries: HashMap<String, usize> = HashMap::new();
    for name in backend.taken.lock().iter() {
        *deliveries.entry(name.clone()).or_default() += 1;
    }
    assert!(deliveries.values().all(|&times| times == 1), "something was delivered twice");
    assert!(refused.iter().all(|name| !deliveries.contains_key(name)), "a refused batch was delivered");
    let exported = rig.ledger.count(Entry::Exported);
    let dropped: u64 = DropReason::ALL.iter().map(|&reason| rig.ledger.dropped_count(reason)).sum();
    let partly = rig.ledger.dropped_count(DropReason::PartlyRejected);
    assert_eq!(rig.ledger.count(Entry::Accepted), accepted.len() as u64);
    assert_eq!(exported + partly, deliveries.len() as u64);
    assert_eq!(exported + dropped, accepted.len() as u64, "the ledger balances");
    assert_eq!(rig.ledger.held_count(), 0);
    assert_eq!(rig.metric("otelcol_exporter_queue_size"), 0.0);
    assert_eq!(rig.metric("otelcol_exporter_in_flight_requests"), 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_doubled(
        config in configs(),
        actions in proptest::collection::vec(action(), 0..60),
        moods in proptest::collection::vec(mood(), 0..80),
        drain in 0u64..10,
        merges_up_to in prop_oneof![Just(0), 1usize..2000],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(check(config, actions, moods, drain, merges_up_to));
    }
}
