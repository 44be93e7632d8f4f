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
    connectors(&mut out, registry);
    section(&mut out, "extensions", registry.extensions.iter().map(|factory| factory.info));
    out
}

/// Connectors are listed by what they take and what they make of it.
fn connectors(out: &mut String, registry: &Registry) {
    let mut factories: Vec<_> = registry.connectors.iter().collect();
    factories.sort_by_key(|factory| factory.info.name);
    heading(out, "connectors", factories.is_empty());
    for factory in factories {
        let pairs = factory.pairs.iter().map(|(from, to)| format!("{}-to-{}", from.name(), to.name()));
        component(out, &factory.info, pairs.collect());
    }
}

fn section(out: &mut String, name: &str, infos: impl Iterator<Item = Info>) {
    let mut infos: Vec<Info> = infos.collect();
    infos.sort_by_key(|info| info.name);
    heading(out, name, infos.is_empty());
    for info in infos {
        let signals = info.signals.iter().map(|signal| signal.name().to_owned()).collect();
        component(out, &info, signals);
    }
}

fn heading(out: &mut String, name: &str, is_empty: bool) {
    let _ = writeln!(out, "{name}:{}", if is_empty { " []" } else { "" });
}

/// One component, which is as stable as `info` says for everything in `uses`.
fn component(out: &mut String, info: &Info, mut uses: Vec<String>) {
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
    if uses.is_empty() {
        let _ = writeln!(out, "        extension: {stability}");
    }
    uses.sort_unstable();
    for one in uses {
        let _ = writeln!(out, "        {one}: {stability}");
    }
}
