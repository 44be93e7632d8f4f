//! Nyquist with one more processor: `tag_team` writes the owning team on every resource.

use std::process::ExitCode;
use std::sync::Arc;

use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::component::{
    BatchProcessor, BuildError, Info, Processor, ProcessorConfig, ProcessorContext, Stability, Stateless, processor,
};
use nyquist_core::config::{Check, Validate};
use nyquist_core::proto::common::v1::{AnyValue, KeyValue, any_value::Value};
use serde::Deserialize;

/// The section in YAML, and the processor itself.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct TagTeam {
    team: String,
}

// The processor: what happens to one batch.
impl BatchProcessor for TagTeam {
    fn process(&self, batch: &mut Batch) -> Result<(), Refusal> {
        let traces = batch.traces_mut().map_err(|error| Refusal::permanent(error.to_string()))?;
        for resource_spans in &mut traces.resource_spans {
            let value = AnyValue { value: Some(Value::StringValue(self.team.clone())) };
            let tag = KeyValue { key: "team".into(), value: Some(value), ..KeyValue::default() };
            resource_spans.resource.get_or_insert_default().attributes.push(tag);
        }
        Ok(())
    }
}

// Its configuration: checked with all other sections, errors located in the file.
impl Validate for TagTeam {
    fn validate(&self, check: &mut Check<'_>) {
        if self.team.is_empty() {
            check.error(&["team"], "must not be empty: whose spans are these?");
        }
    }
}

impl ProcessorConfig for TagTeam {
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        Ok(Stateless::new(self.clone(), context.next, context.ledger))
    }
}

// The binary: the built-in components, and this one.
fn main() -> ExitCode {
    let mut components = nyquist::components::registry();
    let info = Info { name: "tag_team", aliases: &[], signals: &[Signal::Traces], stability: Stability::Alpha };
    components.processors.push(processor::<TagTeam>(info));
    nyquist::cli::main_with(components)
}
