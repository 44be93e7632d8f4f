//! Conditions in OpenTelemetry's transformation language (OTTL).
//!
//! They are asked of each span when it arrives, beside the fold: the answer is a bit. With
//! `error_mode: propagate` a second bit says that a condition had no value on some span.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use nyquist_core::wire::{Field, Fields, Value};
use nyquist_ottl::traces::{SPAN, SPAN_EVENT, SpanContext, TraceField};
use nyquist_ottl::{Condition, Context, EvalError, Schema};

use super::Bits;
use super::compile::{Builder, Place};
use super::expr::Expr;
use crate::tail_sampling::config::{ErrorMode, OttlConditionConfig};

type Conditions = Vec<Condition<TraceField>>;

/// How often all bytes of a request may be read for conditions, and how many bytes beyond that: far
/// more than any that is not made for it takes, and a limit to what one that is can cost.
const READ_TIMES: usize = 256;
const READ_ALWAYS: usize = 64 << 20;

/// All conditions of a configuration.
#[derive(Debug, Default)]
pub(crate) struct OttlTests(Vec<OttlTest>);

/// One `ottl_condition`.
#[derive(Debug)]
struct OttlTest {
    /// The first policy that has it.
    policy: String,
    span: Conditions,
    event: Conditions,
    on_error: OnError,
    /// Some condition holds.
    bit: u16,
}

#[derive(Debug)]
enum OnError {
    Silent,
    /// Counts the errors, so that not each of them is logged.
    Warn(AtomicU64),
    /// Sets this bit.
    Fail(u16),
}

/// What spans stand in, without the spans: conditions may ask for it. Kept from request to request.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    resource_spans: Vec<u8>,
    scope_spans: Vec<u8>,
    /// How many bytes conditions may still read for this request.
    budget: Cell<usize>,
}

impl Surroundings {
    /// Begins a request of `size` bytes.
    pub(crate) fn begin(&mut self, size: usize) {
        self.budget.set(size.saturating_mul(READ_TIMES).saturating_add(READ_ALWAYS));
    }

    /// `header` is a `ResourceSpans` without its `scope_spans`.
    pub(crate) fn set_resource(&mut self, header: &[u8]) {
        self.resource_spans.clear();
        self.resource_spans.extend_from_slice(header);
    }

    /// Copies the fields of `scope_spans` that are not spans, wherever they stand.
    pub(crate) fn set_scope(&mut self, scope_spans: &[u8]) {
        self.scope_spans.clear();
        let mut before = 0;
        let mut fields = Fields::new(scope_spans);
        while let Some(Field { number, value }) = fields.next() {
            if !matches!((number, value), (2, Value::Len(_))) {
                self.scope_spans.extend_from_slice(scope_spans.get(before..fields.position()).unwrap_or_default());
            }
            before = fields.position();
        }
    }

    /// Gives back the memory of unusually large headers.
    pub(crate) fn shrink(&mut self, keep: usize) {
        for buffer in [&mut self.resource_spans, &mut self.scope_spans] {
            if buffer.capacity() > keep {
                *buffer = Vec::new();
            }
        }
    }
}

impl OttlTests {
    /// Are there none, so that nobody needs to know what spans stand in?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the bits of the conditions that `span` meets.
    pub(crate) fn fold(&self, span: &[u8], around: &Surroundings, bits: &mut Bits) {
        let context = SpanContext::new(span, &around.resource_spans, &around.scope_spans);
        let context = context.with_budget(&around.budget);
        for test in &self.0 {
            match test.holds(&context) {
                Ok(true) => bits.set(test.bit),
                Ok(false) => {}
                Err(failed) => bits.set(failed),
            }
        }
    }
}

impl OttlTest {
    /// Asks until a condition holds. The error is the bit to set for it.
    fn holds(&self, context: &SpanContext<'_>) -> Result<bool, u16> {
        if self.any(&self.span, context)? {
            return Ok(true);
        }
        if self.event.is_empty() {
            return Ok(false);
        }
        for event in context.events() {
            if self.any(&self.event, &event)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn any(&self, conditions: &Conditions, context: &impl Context<Field = TraceField>) -> Result<bool, u16> {
        for condition in conditions {
            match condition.eval(context) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => self.failed(condition, &error)?,
            }
        }
        Ok(false)
    }

    #[cold]
    fn failed(&self, condition: &Condition<TraceField>, error: &EvalError) -> Result<(), u16> {
        let (policy, condition) = (&*self.policy, condition.source());
        match &self.on_error {
            OnError::Silent => Ok(()),
            OnError::Warn(errors) => {
                let errors = errors.fetch_add(1, Ordering::Relaxed) + 1;
                // The 1st, 2nd, 4th, 8th ..., so that hostile spans cannot fill a disk.
                if errors.is_power_of_two() {
                    tracing::warn!(policy, condition, %error, errors, "a condition has no value on a span");
                }
                Ok(())
            }
            OnError::Fail(bit) => {
                tracing::debug!(policy, condition, %error, "a condition has no value on a span");
                Err(*bit)
            }
        }
    }
}

impl Builder<'_> {
    /// An `ottl_condition` of `policy`.
    pub(super) fn ottl(&mut self, config: &OttlConditionConfig, policy: &str, place: &Place) -> Option<Expr> {
        if config.span.is_empty() && config.spanevent.is_empty() {
            self.error(place, "a condition is required, below `span:` or `spanevent:`");
            return None;
        }
        let span = self.conditions(&config.span, &SPAN, &place.key("span"));
        let event = self.conditions(&config.spanevent, &SPAN_EVENT, &place.key("spanevent"));
        let (span, event) = (span?, event?);
        let identity = format!("ottl {config:?}");
        let (bit, new) = self.bit(identity.clone());
        let failed = match config.error_mode {
            ErrorMode::Propagate => Some(self.bit(format!("failed {identity}")).0),
            ErrorMode::Ignore | ErrorMode::Silent => None,
        };
        if new {
            let on_error = match (failed, config.error_mode) {
                (Some(bit), _) => OnError::Fail(bit),
                (None, ErrorMode::Ignore) => OnError::Warn(AtomicU64::new(0)),
                (None, _) => OnError::Silent,
            };
            self.plan.ottl.0.push(OttlTest { policy: policy.to_owned(), span, event, on_error, bit });
        }
        Some(failed.map_or(Expr::Bit(bit), |failed| Expr::Fallible { bit, failed }))
    }

    /// An `ottl` condition of a rule, where there are no votes to abstain from.
    pub(super) fn ottl_in_rule(&mut self, config: &OttlConditionConfig, place: &Place) -> Option<Expr> {
        if config.error_mode == ErrorMode::Propagate {
            let message = "rules have no votes, so an error cannot be one: use ignore or silent; a condition with an \
                           error does not hold";
            self.error(&place.key("error_mode"), message);
            return None;
        }
        self.ottl(config, "rules", place)
    }

    fn conditions(&mut self, sources: &[String], schema: &Schema<TraceField>, place: &Place) -> Option<Conditions> {
        let mut conditions = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            match Condition::compile(source, schema) {
                Ok(condition) => conditions.push(condition),
                Err(problem) => self.error(&place.index(index), problem.summary()),
            }
        }
        (conditions.len() == sources.len()).then_some(conditions)
    }
}
