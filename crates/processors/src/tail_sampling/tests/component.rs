//! The processor with its tasks, under tokio's paused time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use nyquist_core::batch::Signal;
use nyquist_core::batch::{Batch, DropReason, Metadata, Refusal};
use nyquist_core::clock::Clock;
use nyquist_core::component::{Consumer, Extensions, Host, Processor, ProcessorConfig, ProcessorContext};
use nyquist_core::config::ComponentId;
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::{Entry, Ledger, Telemetry};
use parking_lot::Mutex;
use prost::Message;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::support::{KeptSpan, failed, id_of, large_span, read, request, span};
use crate::tail_sampling::config::TailSamplingConfig;

/// Tokio's clock, which tests can pause.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> std::time::Duration {
        self.0.elapsed()
    }

    fn unix_nanos(&self) -> u64 {
        0
    }
}

/// A clock on which whoever asks it has spent a millisecond of work.
struct BusyClock(TokioClock, AtomicU64);

impl Clock for BusyClock {
    fn now(&self) -> std::time::Duration {
        self.0.now() + std::time::Duration::from_millis(self.1.fetch_add(1, Ordering::Relaxed))
    }

    fn unix_nanos(&self) -> u64 {
        0
    }
}

/// The next stage: takes what comes, unless told to refuse.
#[derive(Default)]
struct Next {
    refuse: AtomicBool,
    permanently: AtomicBool,
    offers: AtomicUsize,
    spans: Mutex<Vec<KeptSpan>>,
    /// Of each batch the tenant, and the traces.
    tenants: Mutex<Vec<(Option<String>, Vec<[u8; 16]>)>>,
    /// How many spans each batch had, and how many had been sampled out by then.
    batches: Mutex<Vec<(usize, u64)>>,
    ledger: Mutex<Option<Ledger>>,
}

#[async_trait]
impl Consumer for Next {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        self.offers.fetch_add(1, Ordering::Relaxed);
        if self.permanently.load(Ordering::Relaxed) {
            return Err(Refusal::permanent("never"));
        }
        if self.refuse.load(Ordering::Relaxed) {
            return Err(Refusal::retryable(None, "not now"));
        }
        let sampled_out = self.ledger.lock().as_ref().map_or(0, |ledger| ledger.count(Entry::SampledOut));
        self.batches.lock().push((batch.items(), sampled_out));
        let tenant = batch.metadata().header("x-scope-orgid").map(str::to_owned);
        let others = batch.metadata().headers.iter().filter(|(name, _)| name != "x-scope-orgid").count();
        assert_eq!(others, 0, "metadata that nobody looks at is not kept");
        let spans = read(&batch.into_wire());
        self.tenants.lock().push((tenant, spans.iter().map(KeptSpan::id).collect()));
        self.spans.lock().extend(spans);
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        vec!["x-scope-orgid".to_owned()]
    }
}

struct Rig {
    processor: Arc<dyn Processor>,
    next: Arc<Next>,
    ledger: Ledger,
}

impl Rig {
    async fn start(yaml: &str) -> Self {
        Self::start_with(yaml, Arc::new(TokioClock(Instant::now()))).await
    }

    async fn start_with(yaml: &str, clock: Arc<dyn Clock>) -> Self {
        let config: TailSamplingConfig = serde_yaml::from_str(yaml).unwrap();
        let next = Arc::new(Next::default());
        let ledger = Ledger::detached();
        *next.ledger.lock() = Some(ledger.clone());
        let telemetry = Telemetry::new();
        let context = ProcessorContext {
            id: ComponentId::of("tail_sampling"),
            pipeline: ComponentId::of("traces"),
            signal: Signal::Traces,
            next: Arc::clone(&next) as Arc<dyn Consumer>,
            ledger: ledger.clone(),
            extensions: &Extensions::default(),
            telemetry: Arc::clone(&telemetry),
            clock: Arc::clone(&clock),
        };
        let processor = config.build(context).map_err(|error| error.to_string()).unwrap();
        let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
        processor.start(&Host { runtimes: Runtimes::current(), clock, telemetry, fatal }).await.unwrap();
        Self { processor, next, ledger }
    }

    async fn send(&self, spans: Vec<nyquist_core::proto::trace::v1::Span>) {
        self.send_as("", spans).await;
    }

    /// Of a tenant, unless it is empty.
    async fn send_as(&self, tenant: &str, spans: Vec<nyquist_core::proto::trace::v1::Span>) {
        let items = spans.len();
        let mut headers = vec![("user-agent".to_owned(), format!("sdk of {tenant}"))];
        headers.extend((!tenant.is_empty()).then(|| ("x-scope-orgid".to_owned(), tenant.to_owned())));
        let batch = Batch::from_wire(Signal::Traces, request(spans).encode_to_vec().into(), items)
            .with_metadata(Arc::new(Metadata { headers }));
        self.processor.consume(batch).await.unwrap();
    }

    fn kept(&self) -> usize {
        self.next.spans.lock().len()
    }
}

const ERRORS: &str = "
decision_wait: 1s
memory_limit_mib: 64
num_shards: 2
rules: [{name: errors, sampling_percentage: 100, when: {error: true}}]
";

/// Scenario: traces of two tenants and of nobody, mixed, one trace with spans of both tenants; the next stage
/// refuses for a while. Guarantee: every span leaves under its tenant and no other, in few batches, and the
/// account balances.
#[tokio::test(start_paused = true)]
async fn tenants_leave_apart() {
    let rig = Rig::start(ERRORS).await;
    let tenants = ["red", "blue", ""];
    let tenant_of = |number: u64| tenants[number as usize % 3];
    for number in 0..30 {
        rig.send_as(tenant_of(number), vec![failed(span(id_of(number)))]).await;
    }
    for tenant in &tenants[..2] {
        rig.send_as(tenant, vec![failed(span(id_of(100)))]).await;
    }
    rig.next.refuse.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    rig.next.refuse.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(10)).await;
    let batches = std::mem::take(&mut *rig.next.tenants.lock());
    // Two shards, and three kinds of clients.
    assert!(batches.len() <= 2 * 3, "{batches:?}");
    let mut both = Vec::new();
    let mut spans = 0;
    for (tenant, traces) in &batches {
        let tenant = tenant.as_deref().unwrap_or_default();
        for trace in traces {
            spans += 1;
            match (0..30).find(|number| id_of(*number) == *trace) {
                Some(number) => assert_eq!(tenant_of(number), tenant),
                None => both.push(tenant),
            }
        }
    }
    both.sort_unstable();
    assert_eq!((spans, both), (32, vec!["blue", "red"]));
    assert_eq!(rig.ledger.held_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn kept_traces_reach_the_next_stage_shortly_after_their_wait() {
    let rig = Rig::start(ERRORS).await;
    rig.send(vec![failed(span([1; 16])), span([2; 16])]).await;
    sleep(Duration::from_millis(990)).await;
    assert_eq!((rig.kept(), rig.ledger.held_count()), (0, 2));
    sleep(Duration::from_millis(170)).await;
    assert_eq!((rig.kept(), rig.ledger.held_count()), (1, 0));
    assert_eq!(rig.ledger.count(Entry::SampledOut), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_is_offered_again_until_it_is_taken() {
    let rig = Rig::start(ERRORS).await;
    rig.next.refuse.store(true, Ordering::Relaxed);
    rig.send(vec![failed(span([1; 16]))]).await;
    sleep(Duration::from_secs(60)).await;
    assert!(rig.next.offers.load(Ordering::Relaxed) > 5);
    // Decisions go on behind it.
    rig.send(vec![failed(span([2; 16])), span([3; 16])]).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!((rig.kept(), rig.ledger.held_count()), (0, 2));
    rig.next.refuse.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(10)).await;
    assert_eq!((rig.kept(), rig.ledger.held_count()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn kept_traces_leave_while_decisions_are_behind() {
    const KEPT: u64 = 300;
    const OTHERS: u64 = 20_000;
    let rig = Rig::start_with(ERRORS, Arc::new(BusyClock(TokioClock(Instant::now()), AtomicU64::new(0)))).await;
    rig.send((0..KEPT).map(|id| failed(large_span(id_of(id), 8000))).collect()).await;
    rig.send((KEPT..KEPT + OTHERS).map(|id| span(id_of(id))).collect()).await;
    while rig.ledger.held_count() > 0 {
        sleep(Duration::from_millis(50)).await;
    }
    let batches = rig.next.batches.lock().clone();
    assert!(batches.len() > 2, "{batches:?}");
    assert!(batches.iter().any(|&(_, sampled_out)| sampled_out < OTHERS / 2), "{batches:?}");
    assert_eq!(rig.kept() as u64, KEPT);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_counted_as_lost() {
    let rig = Rig::start(ERRORS).await;
    rig.next.permanently.store(true, Ordering::Relaxed);
    rig.send(vec![failed(span([1; 16]))]).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.ledger.dropped_count(DropReason::Rejected), 1);
    assert_eq!(rig.ledger.held_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_decides_on_what_has_arrived() {
    let rig = Rig::start(ERRORS).await;
    rig.send(vec![failed(span([1; 16])), span([2; 16])]).await;
    rig.processor.shutdown(Instant::now() + Duration::from_secs(5)).await;
    assert_eq!((rig.kept(), rig.ledger.held_count()), (1, 0));
    let late = Batch::from_traces(request(vec![span([3; 16])]));
    assert!(rig.processor.consume(late).await.unwrap_err().is_retryable());
}

#[tokio::test(start_paused = true)]
async fn shutdown_discards_undecided_traces_if_asked_to() {
    let rig = Rig::start(&format!("{ERRORS}drop_pending_traces_on_shutdown: true")).await;
    rig.send(vec![failed(span([1; 16]))]).await;
    rig.processor.shutdown(Instant::now() + Duration::from_secs(5)).await;
    assert_eq!((rig.kept(), rig.ledger.held_count()), (0, 0));
    assert_eq!(rig.ledger.dropped_count(DropReason::Shutdown), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_handed_on_by_the_deadline_is_counted_as_lost() {
    let rig = Rig::start(ERRORS).await;
    rig.next.refuse.store(true, Ordering::Relaxed);
    rig.send((1..=40).map(|id| failed(span([id; 16]))).collect()).await;
    sleep(Duration::from_secs(2)).await;
    rig.send((41..=50).map(|id| failed(span([id; 16]))).collect()).await;
    let begin = Instant::now();
    rig.processor.shutdown(begin + Duration::from_secs(5)).await;
    assert!(begin.elapsed() < Duration::from_secs(6));
    assert_eq!(rig.ledger.dropped_count(DropReason::Shutdown), 50);
    assert_eq!(rig.ledger.held_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn blocked_senders_go_on_when_there_is_room() {
    let rig = Rig::start(&format!("{ERRORS}block_on_overflow: true\nnum_traces: 2")).await;
    rig.send(vec![span([1; 16]), span([2; 16])]).await;
    let begin = Instant::now();
    rig.send(vec![span([3; 16])]).await;
    assert!((Duration::from_millis(900)..Duration::from_millis(1200)).contains(&begin.elapsed()));
}

/// Scenario: six hundred traces whose roots come, or that fall silent, or that do neither, through the processor with
/// its tasks, under a clock that is looked at every millisecond. Guarantee: at any moment, what is decided is what is
/// due by then, but for what became due within the last 100 ms.
#[tokio::test(start_paused = true)]
async fn decisions_come_within_100_ms_of_their_time() {
    use nyquist_core::proto::trace::v1::Span;
    use rand::{RngExt, SeedableRng};
    const TRACES: u64 = 600;
    const LATEST: usize = 100;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let rig = Rig::start(
        "
decision_wait: 3s
decision_wait_after_root_received: 500ms
decision_wait_after_last_span: 1200ms
memory_limit_mib: 64
num_shards: 4
rules: [{name: none, sampling_percentage: 0}]
",
    )
    .await;
    // By millisecond: spans that come, and how many are due (in the end: by then).
    let mut arrivals: Vec<Vec<Span>> = vec![Vec::new(); 8000];
    let mut due = vec![0u64; 12_000];
    for number in 0..TRACES {
        let begin = rng.random_range(0..4000);
        let (mut at, mut last, mut until, mut spans) = (begin, begin, begin + 3000, 0);
        while at < until.min(last + 1200) {
            let is_root = rng.random_bool(0.2);
            let parent_span_id = if is_root { vec![] } else { vec![1; 8] };
            arrivals[at].push(Span { parent_span_id, ..span(id_of(number)) });
            (last, spans) = (at, spans + 1);
            until = if is_root { until.min(at + 500) } else { until };
            at += rng.random_range(1..1500);
        }
        due[until.min(last + 1200)] += spans;
    }
    for at in 1..due.len() {
        due[at] += due[at - 1];
    }
    let decided = || rig.ledger.count(Entry::SampledOut);
    let (begin, mut worst) = (Instant::now(), 0);
    for (now, &due_by_now) in due.iter().enumerate() {
        let counted = decided();
        assert!(counted <= due_by_now, "seed {seed}: {counted} spans are decided at {now} ms, {due_by_now} are due");
        let late = (0..now.min(LATEST + 1)).rev().find(|late| counted < due[now - late]);
        worst = worst.max(late.map_or(0, |late| late + 1));
        assert!(worst <= LATEST, "seed {seed}: at {now} ms something is late by {worst} ms");
        if let Some(spans) = arrivals.get_mut(now).filter(|spans| !spans.is_empty()) {
            rig.send(std::mem::take(spans)).await;
        }
        sleep_until(begin + Duration::from_millis(now as u64 + 1)).await;
    }
    println!("at most {worst} ms late");
    assert_eq!((Some(&decided()), rig.ledger.held_count()), (due.last(), 0));
    assert!((10..=75).contains(&worst), "{worst} ms: ticks are 50 ms apart, and silence is looked for every 20 ms");
}
