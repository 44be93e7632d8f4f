//! `nyquist components`: the component types of this binary, as YAML in the Collector's shape.

use std::fmt::Write;

use nyquist_core::component::{Info, Registry, Stability};

/// The list.
pub(super) fn list(registry: &Registry) -> String {
    let mut out = String::from("buildinfo:\n    command: nyquist\n");
    let _ = writeln!(out, "    description: {}", env!("CARGO_PKG_DESCRIPTION").replace(": ", " - "));
    let _ = writeln!(out, "    version: {}", env!("CARGO_PKG_VERSION"));
    section(&mut out, "receivers", registry.receivers.iter().map(|factory| factory.info));
    section(&mut out, "processors", registry.processors.iter().map(|factory| factory.info));
    section(&mut out, "exporters", registry.exporters.iter().map(|factory| factory.info));
    section(&mut out, "connectors", std::iter::empty());
    section(&mut out, "extensions", registry.extensions.iter().map(|factory| factory.info));
    out
}

fn section(out: &mut String, name: &str, infos: impl Iterator<Item = Info>) {
    let mut infos: Vec<Info> = infos.collect();
    infos.sort_by_key(|info| info.name);
    if infos.is_empty() {
        let _ = writeln!(out, "{name}: []");
        return;
    }
    let _ = writeln!(out, "{name}:");
    for info in infos {
        let _ = writeln!(out, "    - name: {}", info.name);
        if !info.aliases.is_empty() {
            let _ = writeln!(out, "      aliases: [{}]", info.aliases.join(", "));
        }
        let stability = match info.stability {
            Stability::Alpha => "Alpha",
            Stability::Beta => "Beta",
            Stability::Stable => "Stable",
        };
        let _ = writeln!(out, "      stability:");
        if info.signals.is_empty() {
            let _ = writeln!(out, "        extension: {stability}");
        }
        let mut signals: Vec<&str> = info.signals.iter().map(|signal| signal.name()).collect();
        signals.sort_unstable();
        for signal in signals {
            let _ = writeln!(out, "        {signal}: {stability}");
        }
    }
}
