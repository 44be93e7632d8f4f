//! Names for scrapers that know only Prometheus' classic alphabet.
//!
//! Escaped, several names become one. A page that says a thing twice is invalid as a whole, so that nobody gets
//! anything: metrics of one name and type become one family, labels of one name are joined with `;`, and of series that
//! are equal then one is shown. What is left out is counted and named.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::store::{Series, Snapshot, compare_labels};
use crate::prometheus_mapping::{LostLabels, MetricType, decoded_labels, put_label};

/// Is it a classic metric name?
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'_' || letter == b':')
}

/// Is it a classic label name?
pub(super) fn is_plain_label(name: &[u8]) -> bool {
    !name.first().is_some_and(u8::is_ascii_digit)
        && name.iter().all(|letter| letter.is_ascii_alphanumeric() || *letter == b'_')
}

/// A name with `_` for everything that a classic name cannot have.
fn underscored(name: &[u8], with_colons: bool) -> String {
    let mut out = String::with_capacity(name.len() + 1);
    if name.first().is_some_and(u8::is_ascii_digit) {
        out.push('_');
    }
    for letter in String::from_utf8_lossy(name).chars() {
        let is_kept = letter.is_ascii_alphanumeric() || (with_colons && letter == ':');
        out.push(if is_kept { letter } else { '_' });
    }
    out
}

/// Metrics whose names are not their own on a page.
#[derive(Debug, Default)]
pub(super) struct Renamed(HashMap<String, String>);

impl Renamed {
    /// The name of `metric` on the page.
    pub(super) fn shown<'a>(&'a self, metric: &'a str) -> &'a str {
        if self.0.is_empty() {
            return metric;
        }
        self.0.get(metric).map_or(metric, String::as_str)
    }
}

/// What a page says otherwise than it came, or not at all: by the names of metrics as they came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Clashes {
    /// Series that are not on the page.
    pub(super) series: BTreeMap<String, usize>,
    /// Labels.
    pub(super) labels: BTreeMap<String, LostLabels>,
}

/// Escapes all names. Nothing is on the page twice then.
pub(super) fn escape_names(snapshot: &mut Snapshot) -> Clashes {
    let mut clashes = Clashes::default();
    let mut escaped = HashSet::new();
    for series in &mut snapshot.series {
        if !is_plain_name(&series.family.name) && !snapshot.renamed.0.contains_key(&series.family.name) {
            let shown = underscored(series.family.name.as_bytes(), true);
            snapshot.renamed.0.insert(series.family.name.clone(), shown);
        }
        if escape_labels_of(series, &mut clashes) {
            escaped.insert(series.hash);
        }
    }
    if !snapshot.renamed.0.is_empty() {
        one_type_each(snapshot, &mut clashes);
    }
    if !snapshot.renamed.0.is_empty() || !escaped.is_empty() {
        one_series_each(snapshot, &escaped, &mut clashes);
    }
    clashes
}

/// Of the metrics that share a name on the page those stay that have the type of one: of the metric that came with this
/// name, or else the first.
fn one_type_each(snapshot: &mut Snapshot, clashes: &mut Clashes) {
    let Snapshot { series, families, renamed } = snapshot;
    let mut types: HashMap<&str, MetricType> = HashMap::new();
    let type_of = |one: &Series| {
        let known = families.get(&one.family.name);
        known.map_or(one.family.sample_type(), |info| info.metric_type)
    };
    let mut described = Vec::new();
    let (own, others): (Vec<&Series>, Vec<&Series>) =
        series.iter().partition(|one| renamed.shown(&one.family.name) == one.family.name);
    for one in own.into_iter().chain(others) {
        let shown = renamed.shown(&one.family.name);
        types.entry(shown).or_insert_with(|| {
            described.push((shown.to_owned(), families.get(&one.family.name).cloned()));
            type_of(one)
        });
    }
    let is_kept: Vec<bool> =
        series.iter().map(|one| types.get(renamed.shown(&one.family.name)) == Some(&type_of(one))).collect();
    let mut is_kept = is_kept.into_iter();
    series.retain(|one| {
        let is_kept = is_kept.next().unwrap_or(true);
        if !is_kept {
            *clashes.series.entry(one.family.name.clone()).or_default() += 1;
        }
        is_kept
    });
    for (shown, info) in described {
        if let Some(info) = info {
            families.insert(shown, info);
        }
    }
}

/// Orders the series as they are called now; of equal ones that one stays whose names are its own.
fn one_series_each(snapshot: &mut Snapshot, escaped: &HashSet<u64>, clashes: &mut Clashes) {
    let Snapshot { series, renamed, .. } = snapshot;
    let is_changed = |one: &Series| renamed.0.contains_key(&one.family.name) || escaped.contains(&one.hash);
    series.sort_unstable_by(|left, right| {
        let by_name = renamed.shown(&left.family.name).cmp(renamed.shown(&right.family.name));
        let by_labels = by_name.then_with(|| compare_labels(&left.labels, &right.labels));
        let by_form = by_labels.then_with(|| left.is_native.cmp(&right.is_native));
        let by_change = by_form.then_with(|| is_changed(left).cmp(&is_changed(right)));
        // The same one on every page.
        by_change.then_with(|| (&left.family.name, left.hash).cmp(&(&right.family.name, right.hash)))
    });
    series.dedup_by(|later, first| {
        let is_equal = renamed.shown(&later.family.name) == renamed.shown(&first.family.name)
            && later.labels == first.labels
            && later.is_native == first.is_native;
        if is_equal {
            *clashes.series.entry(later.family.name.clone()).or_default() += 1;
        }
        is_equal
    });
}

/// Escapes the names of its labels, and of its exemplars' labels. Were there any to escape?
fn escape_labels_of(series: &mut Series, clashes: &mut Clashes) -> bool {
    let mut lost = LostLabels::default();
    let labels = escaped_labels(&series.labels, &mut lost);
    let is_changed = labels.is_some();
    if let Some(labels) = labels {
        series.labels = labels.into();
    }
    for exemplar in &mut series.exemplars {
        if let Some(labels) = escaped_labels(&exemplar.labels, &mut lost) {
            exemplar.labels = labels.into();
        }
    }
    if lost != LostLabels::default() {
        let all = clashes.labels.entry(series.family.name.clone()).or_default();
        all.joined += lost.joined;
        all.overwritten += lost.overwritten;
    }
    is_changed
}

/// Encoded labels with escaped names, sorted; `None` if their names are plain.
fn escaped_labels(encoded: &[u8], lost: &mut LostLabels) -> Option<Vec<u8>> {
    if decoded_labels(encoded).all(|(name, _)| is_plain_label(name)) {
        return None;
    }
    // By name on the page and name as it came.
    let mut labels = BTreeMap::new();
    for (name, value) in decoded_labels(encoded) {
        let shown =
            if is_plain_label(name) { String::from_utf8_lossy(name).into_owned() } else { underscored(name, false) };
        labels.insert((shown, name), value);
    }
    let mut joined: Vec<(String, Vec<u8>)> = Vec::with_capacity(labels.len());
    for ((shown, _), value) in labels {
        match joined.last_mut() {
            _ if shown == "__name__" => lost.overwritten += 1,
            Some((last, text)) if *last == shown => {
                lost.joined += 1;
                if text != value {
                    text.push(b';');
                    text.extend_from_slice(value);
                }
            }
            _ => joined.push((shown, value.to_vec())),
        }
    }
    let mut out = Vec::with_capacity(encoded.len() + joined.len());
    joined.iter().for_each(|(name, value)| put_label(&mut out, name.as_bytes(), value));
    Some(out)
}
