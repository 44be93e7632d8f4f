//! `relabel_configs` and `metric_relabel_configs`: the keys.

use std::fmt;
use std::sync::Arc;

use nyquist_core::config::{Check, Validate};
use regex::Regex;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// One rule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct RelabelConfig {
    /// The labels whose values, joined, are what the rule looks at.
    pub source_labels: Vec<String>,
    /// What stands between them.
    pub separator: String,
    /// The label to set or to compare with.
    pub target_label: String,
    /// Must match the whole of it.
    pub regex: Anchored,
    /// For `hashmod`: how many values there are.
    pub modulus: u64,
    /// What to set, `$1` or `${1}` for what the groups of `regex` matched.
    pub replacement: String,
    /// What to do.
    pub action: Action,
}

impl Default for RelabelConfig {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            target_label: String::new(),
            regex: Anchored::default(),
            modulus: 0,
            replacement: "$1".to_owned(),
            action: Action::Replace,
        }
    }
}

/// `action`, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Set `target_label` to `replacement` if `regex` matches.
    Replace,
    /// Go on only with what matches.
    Keep,
    /// Go on only with what does not match.
    Drop,
    /// Go on only if the source equals the target label.
    KeepEqual,
    /// Go on only if it does not.
    DropEqual,
    /// Set `target_label` to the MD5 hash of the source, modulo `modulus`.
    HashMod,
    /// Copy the labels whose names match, under the name `replacement`.
    LabelMap,
    /// Remove the labels whose names match.
    LabelDrop,
    /// Remove the labels whose names do not match.
    LabelKeep,
    /// Set `target_label` to the source in small letters.
    Lowercase,
    /// Set `target_label` to the source in capitals.
    Uppercase,
}

const ACTIONS: [(&str, Action); 11] = [
    ("replace", Action::Replace),
    ("keep", Action::Keep),
    ("drop", Action::Drop),
    ("keepequal", Action::KeepEqual),
    ("dropequal", Action::DropEqual),
    ("hashmod", Action::HashMod),
    ("labelmap", Action::LabelMap),
    ("labeldrop", Action::LabelDrop),
    ("labelkeep", Action::LabelKeep),
    ("lowercase", Action::Lowercase),
    ("uppercase", Action::Uppercase),
];

const ACTION_NAMES: &[&str] = &[
    "replace",
    "keep",
    "drop",
    "keepequal",
    "dropequal",
    "hashmod",
    "labelmap",
    "labeldrop",
    "labelkeep",
    "lowercase",
    "uppercase",
];

impl Action {
    fn name(self) -> &'static str {
        ACTIONS.iter().find(|(_, action)| *action == self).map_or("", |(name, _)| name)
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl Visitor<'_> for Reading {
            type Value = Action;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an action")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Action, E> {
                let wanted = text.to_lowercase();
                let found = ACTIONS.iter().find(|(name, _)| *name == wanted);
                found.map(|(_, action)| *action).ok_or_else(|| E::unknown_variant(text, ACTION_NAMES))
            }
        }
        deserializer.deserialize_str(Reading)
    }
}

/// A regular expression that must match the whole of a text.
#[derive(Debug, Clone)]
pub struct Anchored {
    written: String,
    compiled: Arc<Regex>,
}

impl PartialEq for Anchored {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Default for Anchored {
    fn default() -> Self {
        const ALL: &str = "(.*)";
        // An expression that compiles; were it not so, every test would say so.
        Self::new(ALL).unwrap_or_else(|_| unreachable!("{ALL} is a regular expression"))
    }
}

impl Anchored {
    /// Compiles `written`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(written: &str) -> Result<Self, String> {
        let compiled = Regex::new(&format!("^(?s:{written})$")).map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("invalid regular expression \"{written}\": {last}")
        })?;
        Ok(Self { written: written.to_owned(), compiled: Arc::new(compiled) })
    }

    /// The compiled expression, anchored at both ends.
    #[must_use]
    pub fn regex(&self) -> &Regex {
        &self.compiled
    }
}

impl<'de> Deserialize<'de> for Anchored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl Visitor<'_> for Reading {
            type Value = Anchored;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a regular expression")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Anchored, E> {
                Anchored::new(text).map_err(E::custom)
            }

            // Nothing, or a variable that is not set.
            fn visit_unit<E: de::Error>(self) -> Result<Anchored, E> {
                Ok(Anchored::default())
            }

            // `regex: true` is common: Prometheus' YAML reader takes any scalar as text.
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Anchored, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Anchored, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Anchored, E> {
                self.visit_str(&value.to_string())
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

impl Validate for RelabelConfig {
    fn validate(&self, check: &mut Check<'_>) {
        use Action::{DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, Lowercase, Replace, Uppercase};
        let name = self.action.name();
        let needs_target = matches!(self.action, Replace | KeepEqual | DropEqual | HashMod | Lowercase | Uppercase);
        if needs_target && self.target_label.is_empty() {
            check.error(&["target_label"], format!("the action {name} needs a target_label"));
        }
        if self.action == HashMod && self.modulus == 0 {
            check.error(&["modulus"], "the action hashmod needs a modulus of at least 1");
        }
        let only: &[&str] = match self.action {
            KeepEqual | DropEqual => &["source_labels", "target_label"],
            LabelDrop | LabelKeep => &["regex"],
            _ => return,
        };
        for key in ["source_labels", "separator", "target_label", "regex", "modulus", "replacement"] {
            if !only.contains(&key) && check.is_written(&[key]) {
                check.error(&[key], format!("the action {name} takes no {key}: only {}", only.join(" and ")));
            }
        }
    }
}
