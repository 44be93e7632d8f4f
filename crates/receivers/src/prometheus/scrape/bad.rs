//! Samples that make no point: counted by reason, and their metrics named.

use std::borrow::Cow;

/// So many metrics of a scrape are named: the log has no room for more.
const MAX_NAMED: usize = 100;

/// Why a sample makes no point: the `reason` label of `bad_samples`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadSample {
    /// Relabelling has left it without a name.
    NoName,
    /// It is there twice.
    Duplicate,
    /// A bucket or quantile whose bound is no number.
    Bound,
    /// One bucket or quantile too many.
    TooManyBuckets,
    /// A `_created` that is no time.
    Created,
    /// A native histogram that OTLP has no place for, or that contradicts itself.
    NativeHistogram,
    /// Samples of a histogram or counter without the one that says how many.
    Incomplete,
}

impl BadSample {
    pub(crate) const ALL: [Self; 7] = [
        Self::NoName,
        Self::Duplicate,
        Self::Bound,
        Self::TooManyBuckets,
        Self::Created,
        Self::NativeHistogram,
        Self::Incomplete,
    ];

    /// The label value.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoName => "no_name",
            Self::Duplicate => "duplicate",
            Self::Bound => "bound",
            Self::TooManyBuckets => "too_many_buckets",
            Self::Created => "created",
            Self::NativeHistogram => "native_histogram",
            Self::Incomplete => "incomplete",
        }
    }

    /// What is wrong and what to do, for the log.
    fn advice(self) -> &'static str {
        match self {
            Self::NoName => "metric_relabel_configs leaves samples without a name: let them keep __name__",
            Self::Duplicate => {
                "a series is on the page twice, or relabelling makes two into one: the first sample counts"
            }
            Self::Bound => "the le or quantile of a sample is no number",
            Self::TooManyBuckets => "a histogram or summary has more than 16384 buckets or quantiles",
            Self::Created => "a _created sample is no time",
            Self::NativeHistogram => "a native histogram has no equivalent in OTLP",
            Self::Incomplete => "a histogram has neither count nor buckets, or a counter has no value",
        }
    }
}

/// A sample that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    why: BadSample,
    advice: Cow<'static, str>,
}

impl Unusable {
    /// A native histogram, with what is wrong with it.
    pub(super) fn native(problem: String) -> Self {
        Self { why: BadSample::NativeHistogram, advice: problem.into() }
    }
}

impl From<BadSample> for Unusable {
    fn from(why: BadSample) -> Self {
        Self { why, advice: why.advice().into() }
    }
}

/// The bad samples of a scrape.
#[derive(Debug, Default)]
pub(super) struct Bad {
    counts: [u64; BadSample::ALL.len()],
    named: Vec<Named>,
}

/// Bad samples of one metric.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) metric: String,
    pub(super) reason: &'static str,
    pub(super) advice: Cow<'static, str>,
    pub(super) samples: usize,
}

impl Bad {
    pub(super) fn add(&mut self, metric: &str, unusable: Unusable) {
        let Unusable { why, advice } = unusable;
        if let Some(count) = self.counts.get_mut(why as usize) {
            *count += 1;
        }
        let is_this = |named: &Named| named.reason == why.name() && named.metric == metric;
        if let Some(named) = self.named.iter_mut().rev().find(|named| is_this(named)) {
            named.samples += 1;
        } else if self.named.len() < MAX_NAMED {
            self.named.push(Named { metric: metric.to_owned(), reason: why.name(), advice, samples: 1 });
        }
    }

    /// How many there are for each reason.
    pub(super) fn counts(&self) -> impl Iterator<Item = (BadSample, u64)> {
        BadSample::ALL.into_iter().zip(self.counts)
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whose they are.
    pub(super) fn named(&self) -> &[Named] {
        &self.named
    }
}
