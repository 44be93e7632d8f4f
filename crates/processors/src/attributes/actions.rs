//! The Collector's attribute actions, shared by `attributes` and `resource`.

use nyquist_core::batch::Metadata;
use nyquist_core::config::Check;
use nyquist_core::wire::AnyValue;
use regex::bytes::Regex;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::set::AttributeSet;
use super::value::{self, ConfigValue};

/// One action, as written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ActionConfig {
    /// The attribute that is changed.
    pub key: String,
    /// For `extract`: the regular expression with named groups. For `delete` and `hash`: which keys.
    pub pattern: String,
    /// `insert`, `update`, `upsert`, `delete`, `hash`, `extract` or `convert`.
    pub action: String,
    /// The value to set.
    pub value: Option<ConfigValue>,
    /// The attribute whose value is to be set.
    pub from_attribute: String,
    /// What of the client's request is to be set: `metadata.<header>`.
    pub from_context: String,
    /// The value to set if `from_attribute` or `from_context` finds none.
    pub default_value: Option<ConfigValue>,
    /// For `convert`: `int`, `double` or `string`.
    pub converted_type: String,
}

/// Actions, ready to be applied.
#[derive(Debug, Default)]
pub(crate) struct Actions(Vec<Action>);

#[derive(Debug)]
enum Action {
    Set { key: Vec<u8>, when: When, source: Source, default: Option<Vec<u8>> },
    Delete(Keys),
    Hash(Keys),
    Extract { key: Vec<u8>, pattern: Regex, targets: Vec<(String, Vec<u8>)> },
    Convert { key: Vec<u8>, to: Type },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Absent,
    Present,
    Always,
}

/// Where a value to set comes from. Constants are `AnyValue` messages.
#[derive(Debug)]
enum Source {
    Constant(Vec<u8>),
    Attribute(Vec<u8>),
    Metadata(String),
}

/// Which attributes: one key and those whose keys match a pattern.
#[derive(Debug)]
struct Keys {
    key: Option<Vec<u8>>,
    pattern: Option<Regex>,
}

impl Keys {
    fn contain(&self, key: &[u8]) -> bool {
        self.key.as_ref().is_some_and(|wanted| wanted == key)
            || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(key))
    }
}

#[derive(Debug, Clone, Copy)]
enum Type {
    Int,
    Double,
    String,
}

/// What is wrong with an action: which field, and why.
type Problem = (&'static str, String);

impl Actions {
    /// Makes `configs` ready.
    ///
    /// # Errors
    /// The index of each action that is wrong, the field, and a message.
    pub(crate) fn compile(configs: &[ActionConfig]) -> Result<Self, Vec<(usize, Problem)>> {
        let mut actions = Vec::new();
        let mut problems = Vec::new();
        for (index, config) in configs.iter().enumerate() {
            match compile(config) {
                Ok(action) => actions.push(action),
                Err(problem) => problems.push((index, problem)),
            }
        }
        if problems.is_empty() { Ok(Self(actions)) } else { Err(problems) }
    }

    /// Reports what is wrong with `configs`, which stand under `key`.
    pub(crate) fn validate(configs: &[ActionConfig], key: &str, check: &mut Check<'_>) {
        if configs.is_empty() {
            check.error(&[key], "at least one action is needed: list what to insert, update, upsert, delete, ...");
        }
        for (index, (field, message)) in Self::compile(configs).err().unwrap_or_default() {
            check.error(&[key, &index.to_string(), field], message);
        }
    }

    /// The metadata that they look at.
    pub(crate) fn metadata_keys(&self) -> Vec<String> {
        let keys = self.0.iter().filter_map(|action| match action {
            Action::Set { source: Source::Metadata(header), .. } => Some(header.clone()),
            _ => None,
        });
        keys.collect()
    }

    /// Applies all actions in order.
    pub(crate) fn apply(&self, attributes: &mut AttributeSet<'_>, metadata: &Metadata) {
        for action in &self.0 {
            action.apply(attributes, metadata);
        }
    }
}

fn compile(config: &ActionConfig) -> Result<Action, Problem> {
    let name = config.action.to_lowercase();
    let key = config.key.clone().into_bytes();
    let by_pattern = matches!(name.as_str(), "delete" | "hash");
    if config.key.is_empty() && (!by_pattern || config.pattern.is_empty()) {
        return Err(("key", "missing required field \"key\"".to_owned()));
    }
    let sources = [config.value.is_some(), !config.from_attribute.is_empty(), !config.from_context.is_empty()];
    let sources = sources.into_iter().filter(|&is_set| is_set).count();
    let sets = matches!(name.as_str(), "insert" | "update" | "upsert");
    if sets && sources == 0 {
        let message = format!("action \"{name}\" needs one of \"value\", \"from_attribute\" and \"from_context\"");
        return Err(("action", message));
    }
    if sources > 1 {
        return Err(("value", "only one of \"value\", \"from_attribute\" and \"from_context\" can be set".to_owned()));
    }
    if !sets && sources > 0 {
        let message =
            format!("action \"{name}\" does not use \"value\", \"from_attribute\" or \"from_context\": remove it");
        return Err(("action", message));
    }
    if config.default_value.is_some() && (!sets || config.value.is_some()) {
        let message = "\"default_value\" goes with \"from_attribute\" or \"from_context\" only: remove it";
        return Err(("default_value", message.to_owned()));
    }
    if !config.pattern.is_empty() && !by_pattern && name != "extract" {
        return Err(("pattern", format!("action \"{name}\" does not use the \"pattern\" field: remove it")));
    }
    if !config.converted_type.is_empty() && name != "convert" {
        let message = format!("action \"{name}\" does not use the \"converted_type\" field: remove it");
        return Err(("converted_type", message));
    }
    let set = |when| {
        let source = source(config)?;
        let default = config.default_value.as_ref().map(ConfigValue::encode);
        Ok(Action::Set { key: key.clone(), when, source, default })
    };
    let keys = || {
        let pattern = if config.pattern.is_empty() { None } else { Some(regex(&config.pattern)?) };
        Ok(Keys { key: (!key.is_empty()).then(|| key.clone()), pattern })
    };
    match name.as_str() {
        "insert" => set(When::Absent),
        "update" => set(When::Present),
        "upsert" => set(When::Always),
        "delete" => Ok(Action::Delete(keys()?)),
        "hash" => Ok(Action::Hash(keys()?)),
        "extract" => extract(config),
        "convert" => Ok(Action::Convert { key, to: converted_type(&config.converted_type)? }),
        "" => Err(("action", "missing required field \"action\"".to_owned())),
        _ => {
            let known = "insert, update, upsert, delete, hash, extract, convert";
            Err(("action", format!("unsupported action {:?}: known are {known}", config.action)))
        }
    }
}

fn source(config: &ActionConfig) -> Result<Source, Problem> {
    if let Some(value) = &config.value {
        return Ok(Source::Constant(value.encode()));
    }
    if !config.from_attribute.is_empty() {
        return Ok(Source::Attribute(config.from_attribute.clone().into_bytes()));
    }
    match config.from_context.strip_prefix("metadata.") {
        Some(header) if !header.is_empty() => Ok(Source::Metadata(header.to_lowercase())),
        _ if config.from_context == "client.address" || config.from_context.starts_with("auth.") => {
            let message = format!("{:?} is not there yet: use metadata.<header>", config.from_context);
            Err(("from_context", message))
        }
        _ => {
            let message = format!("unknown context key {:?}: write metadata.<header>", config.from_context);
            Err(("from_context", message))
        }
    }
}

fn extract(config: &ActionConfig) -> Result<Action, Problem> {
    if config.pattern.is_empty() {
        return Err(("pattern", "missing required field \"pattern\" for action \"extract\"".to_owned()));
    }
    let pattern = regex(&config.pattern)?;
    let mut targets = Vec::new();
    for name in pattern.capture_names().skip(1) {
        let Some(name) = name else {
            let message = "the pattern contains at least one unnamed matcher group: write (?P<name>...) or (?:...)";
            return Err(("pattern", message.to_owned()));
        };
        targets.push((name.to_owned(), name.as_bytes().to_vec()));
    }
    if targets.is_empty() {
        let message = "the pattern contains no named matcher groups: write (?P<name>...) for each attribute to extract";
        return Err(("pattern", message.to_owned()));
    }
    Ok(Action::Extract { key: config.key.clone().into_bytes(), pattern, targets })
}

fn converted_type(name: &str) -> Result<Type, Problem> {
    match name {
        "int" => Ok(Type::Int),
        "double" => Ok(Type::Double),
        "string" => Ok(Type::String),
        "" => Err(("converted_type", "missing required field \"converted_type\" for action \"convert\"".to_owned())),
        _ => Err(("converted_type", format!("invalid value {name:?}: known are int, double, string"))),
    }
}

fn regex(pattern: &str) -> Result<Regex, Problem> {
    Regex::new(pattern).map_err(|error| ("pattern", format!("invalid regular expression: {error}")))
}

impl Action {
    fn apply(&self, attributes: &mut AttributeSet<'_>, metadata: &Metadata) {
        match self {
            Self::Set { key, when, source, default } => {
                let wanted = match when {
                    When::Absent => !attributes.contains(key),
                    When::Present => attributes.contains(key),
                    When::Always => true,
                };
                if !wanted {
                    return;
                }
                let found = match source {
                    Source::Constant(value) => return attributes.set(key, value),
                    Source::Attribute(from) => attributes.encoded(from),
                    Source::Metadata(header) => from_metadata(metadata, header),
                };
                if let Some(value) = found.as_ref().or(default.as_ref()) {
                    attributes.set(key, value);
                }
            }
            Self::Delete(keys) => attributes.remove(|key| keys.contain(key)),
            Self::Hash(keys) => {
                for key in attributes.keys(|key| keys.contain(key)) {
                    if let Some(hash) = attributes.get(&key).map(hash) {
                        attributes.set_any(&key, AnyValue::String(hash.as_bytes()));
                    }
                }
            }
            Self::Extract { key, pattern, targets } => {
                let Some(AnyValue::String(text)) = attributes.get(key) else { return };
                let Some(captures) = pattern.captures(text) else { return };
                let found: Vec<(&[u8], Vec<u8>)> = targets
                    .iter()
                    .map(|(name, target)| {
                        let part = captures.name(name).map(|part| part.as_bytes().to_vec());
                        (target.as_slice(), part.unwrap_or_default())
                    })
                    .collect();
                for (target, part) in found {
                    attributes.set_any(target, AnyValue::String(&part));
                }
            }
            Self::Convert { key, to } => {
                let mut text = Vec::new();
                let Some(value) = attributes.get(key) else { return };
                if let Some(converted) = convert(value, *to, &mut text) {
                    attributes.set_any(key, converted);
                }
            }
        }
    }
}

/// All values of a header, joined by `;`.
fn from_metadata(metadata: &Metadata, header: &str) -> Option<Vec<u8>> {
    let values: Vec<&str> =
        metadata.headers.iter().filter(|(name, _)| name == header).map(|(_, value)| value.as_str()).collect();
    if values.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    value::put_any(AnyValue::String(values.join(";").as_bytes()), &mut out);
    Some(out)
}

/// SHA-256 in hexadecimal of the value's bytes (integers and doubles as eight bytes, little
/// endian); nothing for empty and composite values. The Collector's rule.
fn hash(value: AnyValue<'_>) -> String {
    let digest = match value {
        AnyValue::String([]) | AnyValue::Empty => return String::new(),
        AnyValue::Array(_) | AnyValue::KvList(_) | AnyValue::Bytes(_) => return String::new(),
        AnyValue::String(text) => Sha256::digest(text),
        AnyValue::Bool(flag) => Sha256::digest([u8::from(flag)]),
        AnyValue::Int(number) => Sha256::digest(number.to_le_bytes()),
        AnyValue::Double(number) => Sha256::digest(number.to_le_bytes()),
    };
    hex::encode(digest)
}

/// `value` as another type; `None` leaves it as it is. Text is built in `buffer`.
fn convert<'a>(value: AnyValue<'_>, to: Type, buffer: &'a mut Vec<u8>) -> Option<AnyValue<'a>> {
    let as_str = |text: &[u8]| std::str::from_utf8(text).ok().map(str::to_owned);
    match (to, value) {
        (Type::Int, AnyValue::String(text)) => as_str(text)?.parse().ok().map(AnyValue::Int),
        (Type::Int, AnyValue::Double(number)) => Some(AnyValue::Int(number as i64)),
        (Type::Int, AnyValue::Bool(flag)) => Some(AnyValue::Int(i64::from(flag))),
        (Type::Double, AnyValue::String(text)) => as_str(text)?.parse().ok().map(AnyValue::Double),
        (Type::Double, AnyValue::Int(number)) => Some(AnyValue::Double(number as f64)),
        (Type::Double, AnyValue::Bool(flag)) => Some(AnyValue::Double(f64::from(u8::from(flag)))),
        (Type::String, AnyValue::String(_)) => None,
        (Type::String, other) => {
            *buffer = value::text(other).into_owned();
            Some(AnyValue::String(buffer))
        }
        _ => None,
    }
}
