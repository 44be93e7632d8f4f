//! The `attributes` processor: changes the attributes of spans, data points and log records.
//!
//! It works on the encoded message: what an action changes is written anew, everything else
//! (unknown fields included) is copied as it came.

pub(crate) mod actions;
mod matching;
mod set;
#[cfg(test)]
mod tests;
mod value;
mod wire_edit;

use std::sync::Arc;

use nyquist_core::batch::{Batch, Metadata, Refusal, Signal};
use nyquist_core::component::{
    self, BatchProcessor, BuildError, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory, Stability,
    Stateless,
};
use nyquist_core::config::{Check, Validate};
use nyquist_core::wire::MetricView;
use serde::Deserialize;

pub use actions::ActionConfig;
use actions::Actions;
pub use matching::{AttributeConfig, LibraryConfig, MatchConfig, RegexpConfig, SeverityConfig};
use matching::{Filter, Verdict};
pub(crate) use set::AttributeSet;
pub use value::ConfigValue;
pub(crate) use wire_edit::{put_nested, rewrite};

/// Configuration of the `attributes` processor.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AttributesConfig {
    /// What to do, in order.
    pub actions: Vec<ActionConfig>,
    /// Work only on what matches.
    pub include: Option<MatchConfig>,
    /// Leave alone what matches.
    pub exclude: Option<MatchConfig>,
}

impl Validate for AttributesConfig {
    fn validate(&self, check: &mut Check<'_>) {
        Actions::validate(&self.actions, "actions", check);
        for (name, config) in [("include", &self.include), ("exclude", &self.exclude)] {
            if let Some(config) = config {
                config.validate(name, check);
            }
        }
    }
}

/// The component type `attributes`.
#[must_use]
pub fn factory() -> ProcessorFactory {
    component::processor::<AttributesConfig>(Info {
        name: "attributes",
        aliases: &[],
        signals: &Signal::ALL,
        stability: Stability::Beta,
    })
}

impl ProcessorConfig for AttributesConfig {
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        let actions = Actions::compile(&self.actions).map_err(|_| BuildError::new(&["actions"], "not valid"))?;
        let filter = Filter::compile(self.include.as_ref(), self.exclude.as_ref(), context.signal)
            .map_err(|(name, (field, message))| BuildError::new(&[name, field], message))?;
        Ok(Stateless::new(AttributesProcessor { actions, filter }, context.next, context.ledger))
    }
}

struct AttributesProcessor {
    actions: Actions,
    filter: Filter,
}

impl BatchProcessor for AttributesProcessor {
    fn process(&self, batch: &mut Batch) -> Result<(), Refusal> {
        let items = batch.items();
        let signal = batch.signal();
        let metadata = Arc::clone(batch.metadata());
        let message = batch.wire().clone();
        let mut out = Vec::with_capacity(message.len() + message.len() / 8);
        let mut edit = Edit { processor: self, signal, metadata: &metadata, changed: false };
        rewrite(&message, &mut out, |number, resource, out| number == 1 && edit.resource(resource, out));
        if edit.changed {
            batch.set_wire(out.into(), items);
        }
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.actions.metadata_keys()
    }
}

/// One pass over a batch.
struct Edit<'a> {
    processor: &'a AttributesProcessor,
    signal: Signal,
    metadata: &'a Metadata,
    changed: bool,
}

impl Edit<'_> {
    fn resource(&mut self, message: &[u8], out: &mut Vec<u8>) -> bool {
        let verdict = self.processor.filter.resource(message);
        if matches!(verdict, Verdict::None) {
            return false;
        }
        put_nested(out, 1, |out| {
            rewrite(message, out, |number, scope, out| number == 2 && self.scope(verdict, scope, out));
        });
        true
    }

    fn scope(&mut self, above: Verdict, message: &[u8], out: &mut Vec<u8>) -> bool {
        let verdict = self.processor.filter.scope(above, message);
        if matches!(verdict, Verdict::None) {
            return false;
        }
        put_nested(out, 2, |out| {
            rewrite(message, out, |number, item, out| {
                number == 2
                    && match self.signal {
                        Signal::Traces => self.item(verdict, item, 9, 2, out),
                        Signal::Logs => self.item(verdict, item, 6, 2, out),
                        Signal::Metrics => self.metric(verdict, item, out),
                    }
            });
        });
        true
    }

    fn metric(&mut self, above: Verdict, message: &[u8], out: &mut Vec<u8>) -> bool {
        let verdict = self.processor.filter.metric(above, MetricView::new(message).name());
        if matches!(verdict, Verdict::None) {
            return false;
        }
        put_nested(out, 2, |out| {
            rewrite(message, out, |data_number, data, out| {
                let attributes = match data_number {
                    5 | 7 | 11 => 7,
                    9 => 9,
                    10 => 1,
                    _ => return false,
                };
                put_nested(out, data_number, |out| {
                    rewrite(data, out, |number, point, out| {
                        number == 1 && self.item(verdict, point, attributes, 1, out)
                    });
                });
                true
            });
        });
        true
    }

    /// Writes the changed `message` as field `number`, unless nothing changes. Its attributes
    /// are in field `attributes`.
    fn item(&mut self, above: Verdict, message: &[u8], attributes: u32, number: u32, out: &mut Vec<u8>) -> bool {
        if !self.processor.filter.item(above, self.signal, message, attributes) {
            return false;
        }
        let mut set = AttributeSet::new(message, attributes);
        self.processor.actions.apply(&mut set, self.metadata);
        if !set.changed() {
            return false;
        }
        self.changed = true;
        put_nested(out, number, |out| {
            rewrite(message, out, |field, _, _| field == attributes);
            set.put(out, attributes);
        });
        true
    }
}
