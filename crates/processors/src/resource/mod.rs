//! The `resource` processor: changes the attributes of resources.
//!
//! Only the `Resource` messages are written anew; what lies below them is copied as it came.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use nyquist_core::batch::{Batch, Metadata, Refusal, Signal};
use nyquist_core::component::{
    self, BatchProcessor, BuildError, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory, Stability,
    Stateless,
};
use nyquist_core::config::{Check, Validate};
use nyquist_core::wire::{Fields, Value};
use serde::Deserialize;

use crate::attributes::actions::Actions;
use crate::attributes::{ActionConfig, AttributeSet, put_nested, rewrite};

/// Configuration of the `resource` processor.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceConfig {
    /// What to do, in order: the actions of the `attributes` processor.
    pub attributes: Vec<ActionConfig>,
}

impl Validate for ResourceConfig {
    fn validate(&self, check: &mut Check<'_>) {
        Actions::validate(&self.attributes, "attributes", check);
    }
}

/// The component type `resource`.
#[must_use]
pub fn factory() -> ProcessorFactory {
    component::processor::<ResourceConfig>(Info {
        name: "resource",
        aliases: &[],
        signals: &Signal::ALL,
        stability: Stability::Beta,
    })
}

impl ProcessorConfig for ResourceConfig {
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        let actions = Actions::compile(&self.attributes).map_err(|_| BuildError::new(&["attributes"], "not valid"))?;
        Ok(Stateless::new(ResourceProcessor { actions }, context.next, context.ledger))
    }
}

struct ResourceProcessor {
    actions: Actions,
}

impl BatchProcessor for ResourceProcessor {
    fn process(&self, batch: &mut Batch) -> Result<(), Refusal> {
        let items = batch.items();
        let metadata = Arc::clone(batch.metadata());
        let message = batch.wire().clone();
        let mut out = Vec::with_capacity(message.len() + 256);
        let mut changed = false;
        rewrite(&message, &mut out, |number, holder, out| {
            let is_changed = number == 1 && self.edit(holder, &metadata, out);
            changed |= is_changed;
            is_changed
        });
        if changed {
            batch.set_wire(out.into(), items);
        }
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.actions.metadata_keys()
    }
}

impl ResourceProcessor {
    /// Writes the `ResourceSpans`, `ResourceMetrics` or `ResourceLogs` in `holder` with a changed
    /// resource, unless nothing changes.
    fn edit(&self, holder: &[u8], metadata: &Metadata, out: &mut Vec<u8>) -> bool {
        let resource = resource(holder);
        let mut set = AttributeSet::new(&resource, 1);
        self.actions.apply(&mut set, metadata);
        if !set.changed() {
            return false;
        }
        put_nested(out, 1, |out| {
            put_nested(out, 1, |out| {
                rewrite(&resource, out, |field, _, _| field == 1);
                set.put(out, 1);
            });
            rewrite(holder, out, |field, _, _| field == 1);
        });
        true
    }
}

/// The resource, put together from the pieces in which it may have been written.
fn resource(holder: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let mut whole = std::borrow::Cow::Borrowed(&[][..]);
    for field in Fields::new(holder) {
        let Value::Len(piece) = field.value else { continue };
        if field.number != 1 {
            continue;
        }
        if whole.is_empty() {
            whole = piece.into();
        } else {
            whole.to_mut().extend_from_slice(piece);
        }
    }
    whole
}
