//! Who is there, who gets what, and giving it to them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use hashbrown::HashMap;
use nyquist_core::batch::{Batch, NoRoom, Permits, Refusal, Signal};
use nyquist_core::component::{Component, Consumer, Host, StartError};
use nyquist_core::delivery::{LogGate, Lost, Status};
use parking_lot::{Mutex, RwLock};
use tokio::time::{Instant, sleep};

use super::backend::{Backend, Template};
use super::keys::Routing;
use super::metrics::ResolverMetrics;
use super::pins::Pins;
use super::ring::Ring;

/// For how long a backend that has left may take to move its queue: for ever, so to speak, because what it
/// holds waits for room elsewhere. A shutdown of the gateway ends it.
const MOVING: Duration = Duration::from_secs(24 * 3600);

/// The ring and its members at one time.
struct Members {
    /// In the order of their endpoints.
    backends: Vec<Arc<Backend>>,
    ring: Ring,
    /// The index of each backend by its number.
    by_number: HashMap<u64, usize>,
}

impl Members {
    fn new(backends: Vec<Arc<Backend>>) -> Self {
        let endpoints: Vec<&str> = backends.iter().map(|backend| backend.endpoint.as_str()).collect();
        let ring = Ring::new(&endpoints);
        let by_number = backends.iter().enumerate().map(|(index, backend)| (backend.number, index)).collect();
        Self { backends, ring, by_number }
    }
}

/// A part of a batch, for one backend.
type Slice = (Arc<Backend>, Batch);

/// What no backend took.
pub(super) struct Unplaced {
    /// In the words of the first of them; that it may be tried again, if any of it may.
    pub(super) refusal: Refusal,
    /// What may be tried again.
    pub(super) left: Vec<Batch>,
    /// Items that were refused for good.
    pub(super) refused: usize,
    /// What the backends that took their parts say is lost of them.
    pub(super) lost: Lost,
}

impl Unplaced {
    fn new(refusal: Refusal, batch: Batch) -> Self {
        match refusal.is_retryable() {
            true => Self { refusal, left: vec![batch], refused: 0, lost: Lost::default() },
            false => Self { refusal, left: Vec::new(), refused: batch.items(), lost: Lost::default() },
        }
    }

    fn with(mut self, mut other: Self) -> Self {
        if self.left.is_empty() && !other.left.is_empty() {
            self.refusal = other.refusal;
        }
        self.left.append(&mut other.left);
        self.refused += other.refused;
        self.lost.merge(other.lost);
        self
    }

    /// All of these as one, beside what is `lost` of what was placed.
    fn all(those: impl IntoIterator<Item = Self>, lost: Lost) -> Result<Lost, Self> {
        match those.into_iter().reduce(Self::with) {
            None => Ok(lost),
            Some(mut all) => {
                all.lost.merge(lost);
                Err(all)
            }
        }
    }
}

/// Spreads batches over backends.
pub(super) struct Balancer {
    me: Weak<Self>,
    template: Template,
    routing: Routing,
    members: RwLock<Arc<Members>>,
    pins: Option<Pins>,
    /// Those that still move their queues.
    leaving: Mutex<Vec<Arc<Backend>>>,
    next_number: AtomicU64,
    metrics: ResolverMetrics,
    host: OnceLock<Host>,
    is_closing: AtomicBool,
    join_log: LogGate,
}

impl Balancer {
    pub(super) fn new(template: Template, routing: Routing, overlap: Duration, metrics: ResolverMetrics) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            template,
            routing,
            members: RwLock::new(Arc::new(Members::new(Vec::new()))),
            pins: (!overlap.is_zero()).then(|| Pins::new(overlap)),
            leaving: Mutex::default(),
            next_number: AtomicU64::new(0),
            metrics,
            host: OnceLock::new(),
            is_closing: AtomicBool::new(false),
            join_log: LogGate::default(),
        })
    }

    pub(super) fn start(&self, host: &Host) -> Result<(), StartError> {
        self.host.set(host.clone()).map_err(|_| StartError("started twice".to_owned()))
    }

    /// Its id, as written.
    pub(super) fn id(&self) -> String {
        self.template.id.to_string()
    }

    /// How many backends are in use.
    pub(super) fn count(&self) -> usize {
        self.members().backends.len()
    }

    fn members(&self) -> Arc<Members> {
        Arc::clone(&self.members.read())
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// The resolver was asked; `None` if it had no answer.
    pub(super) async fn resolved(&self, endpoints: Option<Vec<String>>) {
        match endpoints {
            None => self.metrics.failed.inc(),
            Some(endpoints) => {
                self.metrics.succeeded.inc();
                self.update(endpoints).await;
            }
        }
    }

    /// Makes `endpoints` the members. Called by one task at a time.
    async fn update(&self, mut endpoints: Vec<String>) {
        endpoints.sort_unstable();
        endpoints.dedup();
        let before = self.members();
        if before.backends.iter().map(|backend| &backend.endpoint).eq(&endpoints) {
            return;
        }
        let mut after = Vec::with_capacity(endpoints.len());
        for endpoint in &endpoints {
            let known = before.backends.iter().find(|backend| backend.endpoint == *endpoint);
            match known {
                Some(known) => after.push(Arc::clone(known)),
                None => after.extend(self.join(endpoint).await),
            }
        }
        if after.is_empty() {
            return;
        }
        let (joined, left) = (difference(&after, &before.backends), difference(&before.backends, &after));
        if joined.is_empty() && left.is_empty() {
            return;
        }
        let names = |backends: &[Arc<Backend>]| {
            backends.iter().map(|backend| backend.endpoint.clone()).collect::<Vec<_>>().join(", ")
        };
        tracing::info!(
            exporter = self.id(),
            backends = after.len(),
            joined = names(&joined),
            left = names(&left),
            "the backends have changed"
        );
        let count = after.len();
        *self.members.write() = Arc::new(Members::new(after));
        self.metrics.updates.inc();
        self.metrics.backends.set(i64::try_from(count).unwrap_or(i64::MAX));
        left.into_iter().for_each(|backend| self.retire(backend));
    }

    /// Builds and starts the exporter to `endpoint`.
    async fn join(&self, endpoint: &str) -> Option<Arc<Backend>> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let backend = Backend::new(number, endpoint, &self.template, Weak::clone(&self.me));
        let started = match (backend, self.host.get()) {
            (Ok(backend), Some(host)) => {
                let started = backend.delivery.start(host).await;
                started.map(|()| backend).map_err(|error| error.to_string())
            }
            (Err(error), _) => Err(error.to_string()),
            (_, None) => Err("not started yet".to_owned()),
        };
        match started {
            Ok(backend) => Some(backend),
            Err(error) => {
                let since = self.join_log.event(0)?;
                tracing::error!(
                    exporter = self.id(),
                    endpoint,
                    error,
                    failures = since.requests,
                    "cannot use this backend; going on without it"
                );
                None
            }
        }
    }

    /// `backend` has left: its queue goes to the others.
    fn retire(&self, backend: Arc<Backend>) {
        let (Some(host), Some(me)) = (self.host.get(), self.me.upgrade()) else { return };
        backend.leave();
        self.leaving.lock().push(Arc::clone(&backend));
        host.runtimes.spawn(async move {
            backend.delivery.shutdown(Instant::now() + MOVING).await;
            me.leaving.lock().retain(|other| other.number != backend.number);
        });
    }

    /// Who gets what of `batch`, in the order of their endpoints; empty if nobody is there.
    fn split(&self, batch: Batch) -> Vec<Slice> {
        let members = self.members();
        // With `overlap`, what it sees now stays with it when others join.
        if let ([only], None) = (members.backends.as_slice(), &self.pins) {
            return vec![(Arc::clone(only), batch)];
        }
        if members.backends.is_empty() {
            return Vec::new();
        }
        let (signal, metadata, edge_ids) = (batch.signal(), Arc::clone(batch.metadata()), batch.has_edge_ids());
        let bytes = batch.into_wire();
        let mut parts = match &self.pins {
            None => self.routing.split(signal, &bytes, edge_ids, |key| members.ring.owner(key)),
            Some(pins) => {
                let now = self.template.clock.now();
                self.routing.split(signal, &bytes, edge_ids, |key| pinned(pins, now, &members, key))
            }
        };
        parts.sort_unstable_by_key(|part| part.owner);
        let slice = |part: nyquist_core::wire::Owned| {
            let backend = Arc::clone(members.backends.get(part.owner)?);
            let batch = Batch::from_wire(signal, part.bytes, part.items).with_edge_ids(edge_ids);
            Some((backend, batch.with_metadata(Arc::clone(&metadata))))
        };
        parts.into_iter().filter_map(slice).collect()
    }

    /// Sets room aside for every part of `batch`.
    pub(super) async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        let slices = self.split(batch.clone());
        if slices.is_empty() {
            return Err(self.nobody().into());
        }
        reserve_each(&slices, permits).await
    }

    /// Gives every part of `batch` to its backend. Nothing is given to anybody unless all have room. Returns what is lost
    /// of what was taken, as far as the backends' exporters know by then ([`Delivery::take`]).
    ///
    /// [`Delivery::take`]: nyquist_core::delivery::Delivery::take
    pub(super) async fn place(&self, mut batch: Batch) -> Result<Lost, Unplaced> {
        let mut permits = std::mem::take(batch.permits_mut());
        let whole = batch.clone();
        let slices = self.split(batch);
        if slices.is_empty() {
            return Err(Unplaced::new(self.nobody(), whole));
        }
        if !permits.is_reserved() && slices.len() > 1 {
            permits = loop {
                let mut reserved = Permits::reserving();
                let Err(no_room) = reserve_each(&slices, &mut reserved).await else { break reserved };
                // Nobody waits with room in hand.
                drop(reserved);
                if let Err(refusal) = no_room.wait().await {
                    return Err(Unplaced::new(refusal, whole));
                }
            };
        }
        drop(whole);
        self.give(slices, permits).await
    }

    /// The same for several batches, all of which are tried.
    pub(super) async fn place_all(&self, batches: Vec<Batch>) -> Result<Lost, Unplaced> {
        let (mut lost, mut unplaced) = (Lost::default(), Vec::new());
        for placed in join_all(batches.into_iter().map(|batch| self.place(batch))).await {
            match placed {
                Ok(more) => lost.merge(more),
                Err(more) => unplaced.push(more),
            }
        }
        Unplaced::all(unplaced, lost)
    }

    /// Gives `slices` to their backends, all at once. What is refused because its backend is just leaving
    /// is split anew.
    async fn give(&self, mut slices: Vec<Slice>, permits: Permits) -> Result<Lost, Unplaced> {
        let mut permits = Some(permits);
        let (mut lost, mut unplaced) = (Lost::default(), Vec::new());
        loop {
            for (_, slice) in &mut slices {
                *slice.permits_mut() = permits.clone().unwrap_or_default();
            }
            permits = None;
            let given = slices.iter().map(|(backend, slice)| backend.delivery.take(slice.clone()));
            let answers = join_all(given).await;
            let mut again = Vec::new();
            for ((backend, mut slice), answer) in std::mem::take(&mut slices).into_iter().zip(answers) {
                let refusal = match answer {
                    Ok(more) => {
                        lost.merge(more);
                        continue;
                    }
                    Err(refusal) => refusal,
                };
                *slice.permits_mut() = Permits::default();
                if backend.has_left() && refusal.is_retryable() && !self.is_closing() {
                    again.push(slice);
                    continue;
                }
                unplaced.push(Unplaced::new(refusal, slice));
            }
            if again.is_empty() {
                return Unplaced::all(unplaced, lost);
            }
            slices = again.into_iter().flat_map(|slice| self.split(slice)).collect();
        }
    }

    fn nobody(&self) -> Refusal {
        Refusal::retryable(None, "no backend is known yet: the resolver has not answered")
    }

    /// What goes on is finished, what waits for a retry comes back: for when somebody else keeps it.
    pub(super) fn begin_shutdown(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.members().backends.iter().for_each(|backend| backend.delivery.begin_shutdown());
    }

    pub(super) async fn shutdown(&self, deadline: Instant) {
        // Those that leave need the others' queues.
        let leaving = self.leaving.lock().clone();
        if !leaving.is_empty() {
            let half = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
            let moved = async {
                while !self.leaving.lock().is_empty() {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            let _ = tokio::time::timeout_at(half, moved).await;
        }
        self.is_closing.store(true, Ordering::Release);
        let mut backends = self.leaving.lock().clone();
        backends.extend(self.members().backends.iter().cloned());
        join_all(backends.iter().map(|backend| backend.delivery.shutdown(deadline))).await;
    }

    /// Failing while no backend takes anything, since the last of them began to fail.
    pub(super) fn status(&self) -> Status {
        let all = self.parts();
        let are_failing = !all.is_empty() && all.iter().all(|(_, status)| status.failing_since.is_some());
        let error = |(name, status): &(String, Status)| Some(format!("{name}: {}", status.last_error.as_ref()?));
        let last_error = all.iter().find_map(error);
        let failing_since = all.iter().filter_map(|(_, status)| status.failing_since).max().filter(|_| are_failing);
        let is_permanent = are_failing && all.iter().all(|(_, status)| status.is_permanent);
        Status { failing_since, last_error, is_permanent }
    }

    /// How each backend is doing, by its endpoint.
    pub(super) fn parts(&self) -> Vec<(String, Status)> {
        let members = self.members();
        let status = |backend: &Arc<Backend>| (backend.endpoint.clone(), backend.delivery.status().unwrap_or_default());
        members.backends.iter().map(status).collect()
    }

    /// The signal that it balances.
    pub(super) fn signal(&self) -> Signal {
        self.template.signal
    }
}

/// Sets room aside for each of `slices`.
async fn reserve_each(slices: &[Slice], permits: &mut Permits) -> Result<(), NoRoom> {
    for (backend, slice) in slices {
        backend.delivery.reserve(slice, permits).await?;
    }
    Ok(())
}

/// The index of the member that `key` goes to.
fn pinned(pins: &Pins, now: Duration, members: &Members, key: &[u8]) -> usize {
    let by_ring = members.ring.owner(key);
    let Some(backend) = members.backends.get(by_ring) else { return by_ring };
    let owner = pins.owner(now, key, backend.number, |number| members.by_number.contains_key(&number));
    members.by_number.get(&owner).copied().unwrap_or(by_ring)
}

/// Those of `some` that are not among `others`.
fn difference(some: &[Arc<Backend>], others: &[Arc<Backend>]) -> Vec<Arc<Backend>> {
    let is_other = |backend: &&Arc<Backend>| !others.iter().any(|other| other.number == backend.number);
    some.iter().filter(is_other).cloned().collect()
}
