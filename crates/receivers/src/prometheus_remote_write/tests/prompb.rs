//! Requests as senders write them.

pub(super) use super::messages::*;

/// Labels from `name{a=b,c=d}`.
fn parsed(series: &str) -> Vec<(String, String)> {
    let (name, rest) = series.split_once('{').unwrap_or((series, "}"));
    let mut labels = Vec::new();
    if !name.is_empty() {
        labels.push(("__name__".to_owned(), name.to_owned()));
    }
    let pairs = rest.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
    labels.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    labels
}

/// Labels of 1.0 from `name{a=b,c=d}`.
pub(super) fn labels(series: &str) -> Vec<Label> {
    parsed(series).into_iter().map(|(name, value)| Label { name, value }).collect()
}

/// A series of 1.0.
pub(super) fn series(text: &str, samples: &[(f64, i64)]) -> TimeSeries {
    let samples = samples.iter().map(|&(value, timestamp)| Sample { value, timestamp, start: 0 }).collect();
    TimeSeries { labels: labels(text), samples, ..TimeSeries::default() }
}

impl Request2 {
    pub(super) fn new() -> Self {
        Self { symbols: vec![String::new()], ..Self::default() }
    }

    pub(super) fn symbol(&mut self, text: &str) -> u32 {
        let found = self.symbols.iter().position(|own| own == text);
        let index = found.unwrap_or_else(|| {
            self.symbols.push(text.to_owned());
            self.symbols.len() - 1
        });
        u32::try_from(index).expect("few symbols")
    }

    pub(super) fn refs(&mut self, series: &str) -> Vec<u32> {
        parsed(series).iter().flat_map(|(name, value)| [self.symbol(name), self.symbol(value)]).collect()
    }

    /// Adds a series of type `kind`; more can be set on it.
    pub(super) fn add(&mut self, series: &str, kind: i32, samples: &[(f64, i64, i64)]) -> &mut TimeSeries2 {
        let labels_refs = self.refs(series);
        let (help_ref, unit_ref) = (self.symbol("Help."), self.symbol(""));
        let samples = samples.iter().map(|&(value, timestamp, start)| Sample { value, timestamp, start }).collect();
        let metadata = Some(Metadata2 { kind, help_ref, unit_ref });
        self.timeseries.push(TimeSeries2 { labels_refs, samples, metadata, ..TimeSeries2::default() });
        self.timeseries.last_mut().expect("just added")
    }
}
