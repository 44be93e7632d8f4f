//! Whom a request is from, as far as the backend can tell: the client's metadata that is sent on as headers.
//!
//! Series of different tenants are different ones, even if their names and labels are equal: all that is remembered of
//! series is remembered by hashes of the tenant's partition, and what is due later goes out with its headers.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use nyquist_core::batch::Metadata;

use crate::prometheus_mapping::{HashSeed, Owner, Partition};

/// What a header takes in memory besides its text, roughly, in bytes.
const HEADER_BYTES: usize = 100;

/// Headers, and the partition of those who have them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tenant {
    headers: Arc<HeaderMap>,
    partition: Partition,
}

impl Tenant {
    /// Whom `metadata` is of, as told by what it has under `keys` (in lower case).
    pub(super) fn of(metadata: &Metadata, keys: &[String], seed: &HashSeed) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in metadata.under(keys) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
            {
                headers.append(name, value);
            }
        }
        // In the order of the keys, whatever the client's was.
        let partition = seed.partition(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        Self { headers: Arc::new(headers), partition }
    }

    pub(super) fn headers(&self) -> &Arc<HeaderMap> {
        &self.headers
    }

    pub(super) fn partition(&self) -> Partition {
        self.partition
    }
}

impl PartialEq for Tenant {
    fn eq(&self, other: &Self) -> bool {
        self.partition == other.partition
    }
}

impl Owner for Tenant {
    fn bytes(&self) -> usize {
        let of = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + HEADER_BYTES;
        self.headers.iter().map(of).sum()
    }
}
