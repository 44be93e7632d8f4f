//! The built-in components: the one explicit list.

use nyquist_core::component::Registry;

/// All components that come with Nyquist. A plugin is a `push` to one of its lists.
#[must_use]
pub fn registry() -> Registry {
    Registry {
        receivers: vec![],
        processors: vec![],
        exporters: vec![],
        extensions: vec![nyquist_extensions::health_check::factory()],
    }
}
