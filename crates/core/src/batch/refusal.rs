//! Why a stage did not accept a batch.

use std::borrow::Cow;
use std::time::Duration;

/// gRPC status codes, as tonic has them.
pub use tonic::Code;

/// Why items were dropped: the `reason` label of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// A zero or wrong-length trace or span id.
    InvalidId,
    /// The queue was full and `on_full: drop` is set.
    QueueFull,
    /// The backend refused for good.
    Rejected,
    /// The backend took the request but not these items (`partial_success`).
    PartlyRejected,
    /// Retries went on for longer than `max_elapsed_time`.
    RetriesExhausted,
    /// The drain deadline passed before they were delivered.
    Shutdown,
    /// What the destination's format cannot express; a translation error.
    Untranslatable,
    /// A processor could not work on them.
    ProcessorError,
    /// State had to be given up under memory pressure.
    MemoryPressure,
    /// Cardinality: `on_exceed: drop_point`.
    OverLimit,
    /// They were on disk and cannot be read back.
    Unreadable,
    /// The code that worked on them failed: a bug, which the log tells of.
    InternalError,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::InvalidId,
        Self::QueueFull,
        Self::Rejected,
        Self::PartlyRejected,
        Self::RetriesExhausted,
        Self::Shutdown,
        Self::Untranslatable,
        Self::ProcessorError,
        Self::MemoryPressure,
        Self::OverLimit,
        Self::Unreadable,
        Self::InternalError,
    ];

    /// The label value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidId => "invalid_id",
            Self::QueueFull => "queue_full",
            Self::Rejected => "rejected",
            Self::PartlyRejected => "partly_rejected",
            Self::RetriesExhausted => "retries_exhausted",
            Self::Shutdown => "shutdown",
            Self::Untranslatable => "untranslatable",
            Self::ProcessorError => "processor_error",
            Self::MemoryPressure => "memory_pressure",
            Self::OverLimit => "over_limit",
            Self::Unreadable => "unreadable",
            Self::InternalError => "internal_error",
        }
    }
}

/// A stage's answer to a batch that it does not accept. Responsibility stays with the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    code: Code,
    retry: Option<Option<Duration>>,
    message: Cow<'static, str>,
}

impl Refusal {
    /// The batch may be offered again, after `delay` if one is given. `UNAVAILABLE` / 503.
    pub fn retryable(delay: Option<Duration>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Code::Unavailable, retry: Some(delay), message: message.into() }
    }

    /// The batch will never be accepted. `INTERNAL` / 500 unless [`Refusal::with_code`] says more.
    pub fn permanent(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Code::Internal, retry: None, message: message.into() }
    }

    /// The same refusal with the gRPC status that a receiver answers.
    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// The gRPC status that a receiver answers.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// May the batch be offered again?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retry.is_some()
    }

    /// How long the refusing stage asks to be left alone.
    #[must_use]
    pub fn retry_delay(&self) -> Option<Duration> {
        self.retry.flatten()
    }

    /// The message for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}
