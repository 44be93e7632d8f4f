//! The built-in components: the one explicit list.

use nyquist_connectors as connectors;
use nyquist_core::component::Registry;
use nyquist_exporters as exporters;
use nyquist_extensions as extensions;
use nyquist_processors as processors;
use nyquist_receivers as receivers;

/// All components that come with Nyquist. A plugin is a `push` to one of its lists.
#[must_use]
pub fn registry() -> Registry {
    Registry {
        receivers: vec![
            receivers::otlp::factory(),
            receivers::otlp_json_file::factory(),
            receivers::prometheus::factory(),
            receivers::prometheus_remote_write::factory(),
        ],
        processors: vec![
            processors::attributes::factory(),
            processors::batch::factory(),
            processors::cardinality_limit::factory(),
            processors::cumulative_to_delta::factory(),
            processors::delta_to_cumulative::factory(),
            processors::memory_limiter::factory(),
            processors::resource::factory(),
            processors::tail_sampling::factory(),
        ],
        exporters: vec![
            exporters::debug::factory(),
            exporters::file::factory(),
            exporters::load_balancing::factory(),
            exporters::nop::factory(),
            exporters::otlp::factory(),
            exporters::otlp_http::factory(),
            exporters::prometheus::factory(),
            exporters::prometheus_remote_write::factory(),
        ],
        connectors: vec![connectors::forward::factory(), connectors::span_metrics::factory()],
        extensions: vec![
            extensions::basicauth::factory(),
            extensions::bearertokenauth::factory(),
            extensions::file_storage::factory(),
            extensions::headers_setter::factory(),
            extensions::health_check::factory(),
            extensions::oidc::factory(),
        ],
    }
}
