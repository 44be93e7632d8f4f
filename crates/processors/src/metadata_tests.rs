//! What stages behind a processor look at is kept by those before it.

use std::sync::Arc;

use nyquist_core::batch::Signal;
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Extensions, ProcessorConfig};
use nyquist_core::telemetry::Telemetry;
use serde::de::DeserializeOwned;

use crate::cardinality_limit::CardinalityLimitConfig;
use crate::cumulative_to_delta::CumulativeToDeltaConfig;
use crate::delta_to_cumulative::DeltaToCumulativeConfig;
use crate::test_util::{Sink, context};

/// The metadata that a processor in front of one that looks at `x-scope-orgid` asks for.
fn asks_for<C: ProcessorConfig + DeserializeOwned>(yaml: &str) -> Vec<String> {
    let config: C = serde_yaml::from_str(yaml).unwrap();
    let (extensions, telemetry) = (Extensions::default(), Telemetry::new());
    let next = Arc::new(Sink { reads: &["x-scope-orgid"], ..Sink::default() });
    let clock = Arc::new(SystemClock::default());
    config.build(context(Signal::Metrics, next, &extensions, &telemetry, clock)).unwrap().metadata_keys()
}

#[test]
fn what_is_looked_at_behind_a_processor_is_asked_for() {
    assert_eq!(asks_for::<CumulativeToDeltaConfig>("{}"), ["x-scope-orgid"]);
    assert_eq!(asks_for::<DeltaToCumulativeConfig>("{}"), ["x-scope-orgid"]);
    assert_eq!(asks_for::<CardinalityLimitConfig>("{}"), ["x-scope-orgid"]);
    let of_tenants = "{tenant_from: 'metadata[\"X-Tenant\"]'}";
    assert_eq!(asks_for::<CardinalityLimitConfig>(of_tenants), ["x-scope-orgid", "x-tenant"]);
}
