//! Remote write 2.0 as a receiver reads it. Symbols are resolved into the messages of 1.0.

use std::collections::HashSet;

use prost::Message;

use super::prompb::{Exemplar, Label, Request2, TimeSeries, WriteRequest};

/// What 1.0 has no place for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Described {
    pub(super) kind: i32,
    pub(super) help: String,
    pub(super) unit: String,
}

/// A request, resolved: its series as in 1.0, and the metadata of each. Checks what the protocol demands of both.
pub(super) fn resolve(message: &[u8]) -> (WriteRequest, Vec<Described>) {
    assert_eq!(WriteRequest::decode(message).unwrap(), WriteRequest::default(), "to 1.0 it is empty");
    let Request2 { symbols, timeseries } = Request2::decode(message).unwrap();
    assert_eq!(symbols[0], "");
    assert_eq!(symbols.iter().collect::<HashSet<_>>().len(), symbols.len(), "a symbol is there twice");
    assert!(!timeseries.is_empty(), "an empty request");
    let mut used: HashSet<u32> = HashSet::from([0]);
    let mut labels = |refs: &[u32]| -> Vec<Label> {
        used.extend(refs);
        assert_eq!(refs.len() % 2, 0);
        let text = |number: u32| symbols[number as usize].clone();
        refs.chunks(2).map(|pair| Label { name: text(pair[0]), value: text(pair[1]) }).collect()
    };
    let mut described = Vec::new();
    let mut resolved = Vec::new();
    let mut texts = Vec::new();
    for series in timeseries {
        let exemplars = series.exemplars.into_iter().map(|exemplar| Exemplar {
            labels: labels(&exemplar.labels_refs),
            value: exemplar.value,
            timestamp: exemplar.timestamp,
        });
        let exemplars = exemplars.collect();
        let metadata = series.metadata.expect("metadata at each series");
        texts.extend([metadata.help_ref, metadata.unit_ref]);
        described.push(Described {
            kind: metadata.kind,
            help: symbols[metadata.help_ref as usize].clone(),
            unit: symbols[metadata.unit_ref as usize].clone(),
        });
        let (samples, histograms) = (series.samples, series.histograms);
        resolved.push(TimeSeries { labels: labels(&series.labels_refs), samples, exemplars, histograms });
    }
    used.extend(texts);
    assert_eq!(used.len(), symbols.len(), "each symbol is used");
    (WriteRequest { timeseries: resolved, metadata: Vec::new() }, described)
}
