//! Relabelling, as in Prometheus' `model/relabel`.

use md5::{Digest, Md5};

use super::config::{Action, RelabelConfig};
use super::labels::Labels;

/// Applies `rules` in their order; `false` if one of them drops what has these labels.
pub(crate) fn relabel(rules: &[RelabelConfig], labels: &mut Labels<'_>) -> bool {
    let mut source = String::new();
    rules.iter().all(|rule| apply(rule, labels, &mut source))
}

fn apply(rule: &RelabelConfig, labels: &mut Labels<'_>, source: &mut String) -> bool {
    source.clear();
    for (index, name) in rule.source_labels.iter().enumerate() {
        if index > 0 {
            source.push_str(&rule.separator);
        }
        source.push_str(labels.get(name));
    }
    let regex = rule.regex.regex();
    match rule.action {
        Action::Keep => return regex.is_match(source),
        Action::Drop => return !regex.is_match(source),
        Action::KeepEqual => return labels.get(&rule.target_label) == source,
        Action::DropEqual => return labels.get(&rule.target_label) != source,
        Action::Replace => replace(rule, labels, source),
        Action::Lowercase => labels.set(rule.target_label.clone(), source.to_lowercase()),
        Action::Uppercase => labels.set(rule.target_label.clone(), source.to_uppercase()),
        Action::HashMod => {
            let bucket = hash(source) % rule.modulus.max(1);
            labels.set(rule.target_label.clone(), bucket.to_string());
        }
        Action::LabelMap => {
            let matching = labels.iter().filter(|(name, _)| regex.is_match(name));
            let renamed = |(name, value): (&str, &str)| {
                (regex.replace_all(name, rule.replacement.as_str()).into_owned(), value.to_owned())
            };
            let copies: Vec<(String, String)> = matching.map(renamed).collect();
            copies.into_iter().filter(|(name, _)| !name.is_empty()).for_each(|(name, value)| labels.set(name, value));
        }
        Action::LabelDrop => labels.retain(|name| !regex.is_match(name)),
        Action::LabelKeep => labels.retain(|name| regex.is_match(name)),
    }
    true
}

fn replace(rule: &RelabelConfig, labels: &mut Labels<'_>, source: &str) {
    let Some(groups) = rule.regex.regex().captures(source) else { return };
    let mut target = String::new();
    groups.expand(&rule.target_label, &mut target);
    if target.is_empty() {
        return;
    }
    let mut value = String::new();
    groups.expand(&rule.replacement, &mut value);
    labels.set(target, value);
}

/// The last eight bytes of the MD5 sum: what shards of Prometheus agree on.
fn hash(text: &str) -> u64 {
    let sum: [u8; 16] = Md5::digest(text.as_bytes()).into();
    sum.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
