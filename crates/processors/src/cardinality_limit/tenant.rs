//! Whose budgets: tenants, as many as are told apart, and one for all others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::hash::Table;

/// Of a tenant's name so much is kept, for people.
const MAX_NAME: usize = 64;
/// What a tenant takes.
const TENANT_BYTES: usize = size_of::<Tenant>() + 16 + MAX_NAME;

/// One of those whose budgets are kept apart.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    /// The hash of its name; 0 for all that have no budgets of their own.
    pub(super) hash: u64,
    pub(super) name: Box<[u8]>,
    /// Series of all its metrics.
    series: AtomicUsize,
    /// What started before this (Unix nanoseconds) may have been counted with the others.
    pub(super) horizon: u64,
}

impl Tenant {
    pub(super) fn series(&self) -> usize {
        self.series.load(Ordering::Relaxed)
    }

    pub(super) fn take_slot(&self) {
        self.series.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn give_slots(&self, count: usize) {
        self.series.fetch_sub(count, Ordering::Relaxed);
    }
}

/// All tenants.
#[derive(Debug)]
pub(super) struct Tenants {
    known: Mutex<Known>,
    most: usize,
    /// Those that have no budgets of their own.
    rest: Arc<Tenant>,
}

#[derive(Debug, Default)]
struct Known {
    tenants: Table<Arc<Tenant>>,
    /// Somebody has been counted with the others.
    is_rest_used: bool,
}

impl Tenants {
    pub(super) fn new(most: usize) -> Self {
        Self { known: Mutex::default(), most, rest: Arc::new(Tenant { name: (*b"other").into(), ..Tenant::default() }) }
    }

    /// The one that stands for all that have no budgets of their own.
    pub(super) fn rest(&self) -> &Arc<Tenant> {
        &self.rest
    }

    /// The tenant called `name`, which is `hash`; made if it is not known and there is room. `now` in
    /// Unix nanoseconds.
    pub(super) fn find(&self, hash: u64, name: &[u8], now: u64) -> Arc<Tenant> {
        let mut known = self.known.lock();
        if let Some(tenant) = known.tenants.get(&hash) {
            return Arc::clone(tenant);
        }
        if known.tenants.len() >= self.most {
            known.is_rest_used = true;
            return Arc::clone(&self.rest);
        }
        let horizon = if known.is_rest_used { now } else { 0 };
        let name = name.get(..MAX_NAME).unwrap_or(name).into();
        let tenant = Arc::new(Tenant { hash, name, horizon, ..Tenant::default() });
        known.tenants.insert(hash, Arc::clone(&tenant));
        tenant
    }

    /// Forgets those of whom there is no state.
    pub(super) fn sweep(&self) {
        self.known.lock().tenants.retain(|_, tenant| Arc::strong_count(tenant) > 1);
    }

    pub(super) fn bytes(&self) -> usize {
        let known = self.known.lock();
        known.tenants.allocation_size() + known.tenants.len() * TENANT_BYTES
    }

    /// How the `most` tenants with the most series are doing, and all others together.
    pub(super) fn usage(&self, most: usize) -> TenantUsage {
        let known = self.known.lock();
        let mut usage: Vec<(usize, &Arc<Tenant>)> =
            known.tenants.values().map(|tenant| (tenant.series(), tenant)).collect();
        usage.sort_unstable_by(|(one, a), (other, b)| other.cmp(one).then_with(|| a.name.cmp(&b.name)));
        let (named, others) = usage.split_at(most.min(usage.len()));
        let others = others.iter().map(|(series, _)| series).sum::<usize>() + self.rest.series();
        let mut busiest: Vec<_> = named.iter().map(|(series, tenant)| (tenant.name.to_vec(), *series)).collect();
        busiest.push((self.rest.name.to_vec(), others));
        TenantUsage { count: usage.len(), busiest }
    }
}

/// How tenants are doing.
#[derive(Debug)]
pub(super) struct TenantUsage {
    /// Those that have budgets of their own.
    pub(super) count: usize,
    /// The busiest by name, and then all others: how many series they have.
    pub(super) busiest: Vec<(Vec<u8>, usize)>,
}
