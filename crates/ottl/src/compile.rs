//! From an expression to [`Test`] and [`Code`]: names are looked up, constants calculated, patterns
//! compiled.

use std::borrow::Cow;
use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

use crate::ast::{Call, CompareOp, Key, Kind, Node, Path};
use crate::compare::compare;
use crate::context::{PathEntry, Schema};
use crate::eval::{Code, EvalError, Test};
use crate::functions::ctime::Format;
use crate::functions::format;
use crate::functions::prepared::Prepared;
use crate::functions::{Builtin, CONVERTERS, MAX_ARGUMENTS, NOT_YET, Signature, call, is_pure};
use crate::math::{calculate, negate};
use crate::problem::{Problem, did_you_mean};
use crate::value::{List, Map, Value};

/// The most memory that one compiled pattern may take, in bytes.
const MAX_PATTERN_SIZE: usize = 1 << 20;
/// What other contexts there are, for messages.
const ALL_CONTEXTS: [&str; 9] =
    ["span", "spanevent", "resource", "scope", "metric", "datapoint", "log", "otelcol", "profile"];

/// Compiles conditions on the data that `schema` describes.
pub(crate) struct Compiler<'a, F: 'static> {
    pub(crate) source: &'a str,
    pub(crate) schema: &'a Schema<F>,
}

impl<F: Copy + PartialEq> Compiler<'_, F> {
    fn problem(&self, at: &Range<usize>, message: impl Into<String>) -> Problem {
        Problem::new(self.source, at.clone(), message)
    }

    pub(crate) fn test(&self, node: &Node) -> Result<Test<F>, Problem> {
        match &node.kind {
            Kind::Bool(value) => Ok(Test::Const(*value)),
            Kind::And(parts) => Ok(Test::All(self.tests(parts)?)),
            Kind::Or(parts) => Ok(Test::Any(self.tests(parts)?)),
            Kind::Not(part) => Ok(Test::Not(Box::new(self.test(part)?))),
            Kind::Compare { op, left, right } => {
                let (left, right) = (self.code(left)?, self.code(right)?);
                if let (Code::Const(left), Code::Const(right)) = (&left, &right) {
                    return Ok(Test::Const(compare(*op, left, right)));
                }
                // Constants stand on the right.
                Ok(match left {
                    Code::Const(_) => Test::Compare { op: mirrored(*op), left: right, right: left },
                    left => Test::Compare { op: *op, left, right },
                })
            }
            _ => match self.code(node)? {
                Code::Const(Value::Bool(value)) => Ok(Test::Const(value)),
                Code::Const(other) => {
                    let message = format!("a condition has to be a boolean, and this is {}", other.type_name());
                    Err(self.problem(&node.at, message))
                }
                code => Ok(Test::Value(code)),
            },
        }
    }

    fn tests(&self, nodes: &[Node]) -> Result<Box<[Test<F>]>, Problem> {
        nodes.iter().map(|node| self.test(node)).collect()
    }

    fn code(&self, node: &Node) -> Result<Code<F>, Problem> {
        Ok(match &node.kind {
            Kind::Nil => Code::Const(Value::Nil),
            Kind::Bool(value) => Code::Const(Value::Bool(*value)),
            Kind::Int(number) => Code::Const(Value::Int(*number)),
            Kind::Double(number) => Code::Const(Value::Double(*number)),
            Kind::Text(text) => Code::Const(Value::owned_text(text.as_slice())),
            Kind::Bytes(bytes) => Code::Const(Value::Bytes(Cow::Owned(bytes.clone()))),
            Kind::List(items) => self.list(items)?,
            Kind::Map(entries) => self.map(entries)?,
            Kind::Enum(name) => Code::Const(Value::Int(self.enum_value(name, &node.at)?)),
            Kind::Path(path) => self.path(path, &node.at)?,
            Kind::Call(called) => self.call(called)?,
            Kind::Negate(part) => match self.code(part)? {
                Code::Const(value) => Code::Const(self.constant(negate(&value), &node.at)?),
                code => Code::Negate(Box::new(code)),
            },
            Kind::Math { first, rest } => {
                let mut first = self.code(first)?;
                let mut left = Vec::new();
                for (op, part) in rest {
                    let code = self.code(part)?;
                    match (&first, &code) {
                        (Code::Const(one), Code::Const(other)) if left.is_empty() => {
                            first = Code::Const(self.constant(calculate(*op, one, other), &part.at)?);
                        }
                        _ => left.push((*op, code)),
                    }
                }
                if left.is_empty() { first } else { Code::Math { first: Box::new(first), rest: left.into() } }
            }
            Kind::Compare { .. } | Kind::And(_) | Kind::Or(_) | Kind::Not(_) => {
                return Err(self.problem(&node.at, "this says yes or no and is not a value"));
            }
        })
    }

    /// A value that is known now; failures are mistakes of the expression.
    fn constant(&self, result: Result<Value<'_>, EvalError>, at: &Range<usize>) -> Result<Value<'static>, Problem> {
        result.map(owned).map_err(|error| self.problem(at, error.to_string()))
    }

    fn list(&self, items: &[Node]) -> Result<Code<F>, Problem> {
        let parts: Vec<Code<F>> = items.iter().map(|item| self.code(item)).collect::<Result<_, _>>()?;
        let constants: Option<Vec<Value<'static>>> = parts.iter().map(constant_of).collect();
        Ok(match constants {
            Some(values) => Code::Const(Value::List(List::Made(values))),
            None => Code::List(parts.into()),
        })
    }

    fn map(&self, entries: &[(Vec<u8>, Node)]) -> Result<Code<F>, Problem> {
        let mut parts: Vec<(Box<[u8]>, Code<F>)> = Vec::new();
        for (key, node) in entries {
            if parts.iter().any(|(known, _)| **known == **key) {
                return Err(self.problem(&node.at, "this key is in the map already"));
            }
            parts.push((key.as_slice().into(), self.code(node)?));
        }
        let constants: Option<Vec<_>> =
            parts.iter().map(|(key, part)| Some((Cow::Owned(key.to_vec()), constant_of(part)?))).collect();
        Ok(match constants {
            Some(entries) => Code::Const(Value::Map(Map::Made(entries))),
            None => Code::Map(parts.into()),
        })
    }

    fn enum_value(&self, name: &str, at: &Range<usize>) -> Result<i64, Problem> {
        if let Some((_, value)) = self.schema.enums.iter().find(|(known, _)| *known == name) {
            return Ok(*value);
        }
        let converter = self.schema.converters.iter().any(|(known, _)| *known == name)
            || CONVERTERS.iter().any(|known| known.name == name);
        let message = if converter {
            format!("`{name}` is a converter: write {name}(..)")
        } else {
            let known = self.schema.enums.iter().map(|(known, _)| *known);
            format!("unknown enum `{name}`{}", did_you_mean(name, known))
        };
        Err(self.problem(at, message))
    }

    fn path(&self, path: &Path, at: &Range<usize>) -> Result<Code<F>, Problem> {
        let first = path.names.first().map_or("", String::as_str);
        let named = self.schema.contexts.iter().find(|context| path.names.len() > 1 && context.is_called(first));
        let default = self.schema.contexts.iter().find(|context| context.name == self.schema.default);
        let Some(context) = named.or(default) else {
            return Err(self.problem(at, "there are no paths here"));
        };
        let below = if named.is_some() { path.names.get(1..) } else { path.names.get(..) };
        let below = below.unwrap_or_default().join(".");
        let Some(entry) = context.fields.iter().find(|entry| entry.path == below) else {
            return Err(self.problem(at, self.unknown_path(path, context.name, &below, context.fields)));
        };
        if path.keys.is_empty() {
            return Ok(Code::Field(entry.field));
        }
        if !entry.keyed {
            return Err(self.problem(at, format!("{}.{below} has no keys", context.name)));
        }
        Ok(Code::Index { base: Box::new(Code::Field(entry.field)), keys: self.keys(&path.keys)? })
    }

    fn unknown_path(&self, path: &Path, context: &str, below: &str, fields: &[PathEntry<F>]) -> String {
        let first = path.names.first().map_or("", String::as_str);
        let here = |name: &str| self.schema.contexts.iter().any(|context| context.is_called(name));
        if path.names.len() == 1 && here(first) {
            return format!("`{first}` is not a value; name one of its fields, as in {first}.attributes[\"..\"]");
        }
        if path.names.len() > 1 && ALL_CONTEXTS.contains(&first) && !here(first) {
            let contexts: Vec<&str> = self.schema.contexts.iter().map(|context| context.name).collect();
            return format!("there is no `{first}` here; the contexts are {}", contexts.join(", "));
        }
        if below == "cache" {
            return "`cache` is not available in conditions".to_owned();
        }
        let prefix = format!("{below}.");
        let inside: Vec<&str> =
            fields.iter().map(|entry| entry.path).filter(|known| known.starts_with(&prefix)).collect();
        if !inside.is_empty() {
            return format!("`{below}` is not a value; its fields are {}", inside.join(", "));
        }
        if let Some(key) = below.strip_prefix("attributes.") {
            return format!("keys stand in brackets: write attributes[\"{key}\"]");
        }
        let hint = did_you_mean(below, fields.iter().map(|entry| entry.path));
        format!("{context} has no field `{below}`{hint}")
    }

    fn keys(&self, keys: &[Key]) -> Result<Box<[Code<F>]>, Problem> {
        keys.iter().map(|key| self.code(&key.node)).collect()
    }

    fn call(&self, called: &Call) -> Result<Code<F>, Problem> {
        let at = &called.name_at;
        let code = if let Some((_, field)) = self.schema.converters.iter().find(|(name, _)| *name == called.name) {
            if !called.arguments.is_empty() {
                return Err(self.problem(at, format!("{} takes no arguments", called.name)));
            }
            Code::Field(*field)
        } else {
            let Some(signature) = CONVERTERS.iter().find(|signature| signature.name == called.name) else {
                return Err(self.problem(at, self.unknown_converter(&called.name)));
            };
            self.builtin(signature, self.bound(called, signature)?, at)?
        };
        if called.keys.is_empty() {
            return Ok(code);
        }
        Ok(Code::Index { base: Box::new(code), keys: self.keys(&called.keys)? })
    }

    fn unknown_converter(&self, name: &str) -> String {
        if let Some((_, instead)) = NOT_YET.iter().find(|(names, _)| names.contains(&name)) {
            return format!("the converter {name} is not available: {instead}");
        }
        let here = self.schema.converters.iter().map(|(name, _)| *name);
        let known = CONVERTERS.iter().map(|signature| signature.name).chain(here);
        format!("unknown converter `{name}`{}", did_you_mean(name, known))
    }

    /// The arguments in the order of the parameters.
    fn bound<'n>(&self, called: &'n Call, signature: &Signature) -> Result<[Option<&'n Node>; MAX_ARGUMENTS], Problem> {
        let takes = || format!("{}({})", signature.name, signature.parameters.join(", "));
        let mut bound = [None; MAX_ARGUMENTS];
        for (position, argument) in called.arguments.iter().enumerate() {
            let place = match &argument.name {
                None => Some(position),
                Some(name) => signature.parameters.iter().position(|parameter| parameter == name),
            };
            let Some(place) = place.filter(|&place| place < signature.parameters.len()) else {
                let message = match &argument.name {
                    Some(name) => {
                        let hint = did_you_mean(name, signature.parameters.iter().copied());
                        format!("there is no argument `{name}`{hint}; it is {}", takes())
                    }
                    None => format!("too many arguments; it is {}", takes()),
                };
                return Err(self.problem(&argument.value.at, message));
            };
            let slot = bound.get_mut(place).filter(|slot| slot.is_none());
            let Some(slot) = slot else {
                return Err(self.problem(&argument.value.at, "this argument is given twice"));
            };
            *slot = Some(&argument.value);
        }
        for (slot, parameter) in bound.iter().zip(signature.parameters).take(signature.required) {
            if slot.is_none() {
                let message = format!("the argument `{parameter}` is missing; it is {}", takes());
                return Err(self.problem(&called.name_at, message));
            }
        }
        Ok(bound)
    }

    fn builtin(
        &self,
        signature: &Signature,
        bound: [Option<&Node>; MAX_ARGUMENTS],
        at: &Range<usize>,
    ) -> Result<Code<F>, Problem> {
        if let [Some(target), Some(with), ..] = bound
            && let Some(with) = self.prepared(signature.builtin, with, bound)?
        {
            return match self.code(target)? {
                Code::Const(target) if with.is_pure() => Ok(Code::Const(self.constant(with.apply(target), at)?)),
                target => Ok(Code::Prepared { target: Box::new(target), with: Box::new(with) }),
            };
        }
        if signature.builtin == Builtin::Format
            && let Some(format) = bound[0]
        {
            self.check_format(format)?;
        }
        let mut arguments = Vec::new();
        for slot in bound.iter().take(signature.parameters.len()) {
            arguments.push(match slot {
                Some(node) => self.code(node)?,
                None => Code::Const(Value::Nil),
            });
        }
        let constants: Option<Vec<Value<'static>>> = arguments.iter().map(constant_of).collect();
        if let Some(constants) = constants.filter(|_| is_pure(signature.builtin)) {
            let mut values = [const { Value::Nil }; MAX_ARGUMENTS];
            for (slot, value) in values.iter_mut().zip(constants) {
                *slot = value;
            }
            return Ok(Code::Const(self.constant(call(signature.builtin, values), at)?));
        }
        if signature.builtin == Builtin::ContainsValue
            && let [Code::Const(Value::List(List::Made(list))), _] = arguments.as_slice()
        {
            let list = list.as_slice().into();
            let item = Box::new(arguments.pop().unwrap_or(Code::Const(Value::Nil)));
            return Ok(Code::OneOf { list, item });
        }
        Ok(Code::Call { builtin: signature.builtin, arguments: arguments.into() })
    }

    /// Mistakes in the format of `Format`, which has to be constant, as in the Collector.
    fn check_format(&self, node: &Node) -> Result<(), Problem> {
        let Kind::Text(text) = &node.kind else {
            return Err(self.problem(&node.at, "the format has to be a text in double quotes, such as \"%s-%02d\""));
        };
        format::check(text).map_err(|error| self.problem(&node.at, error.to_string()))
    }

    /// What is compiled of a converter's second argument; `None` for converters that have none of that kind.
    fn prepared(
        &self,
        builtin: Builtin,
        with: &Node,
        bound: [Option<&Node>; MAX_ARGUMENTS],
    ) -> Result<Option<Prepared>, Problem> {
        Ok(Some(match builtin {
            Builtin::IsMatch => Prepared::Match(self.pattern(with)?),
            Builtin::ExtractPatterns => {
                let pattern = self.pattern(with)?;
                if pattern.capture_names().flatten().next().is_none() {
                    let message = "the pattern has no named group, such as (?P<name>..), so it would extract nothing";
                    return Err(self.problem(&with.at, message));
                }
                Prepared::Extract(pattern)
            }
            Builtin::FormatTime => Prepared::WriteTime(self.time_format(with)?),
            Builtin::Time => {
                let [_, _, location, locale, _] = bound;
                self.only(location, &["", "UTC"], "times without a zone are UTC; say the offset in the text (%z)")?;
                self.only(locale, &["", "en", "en-US", "en-GB"], "names of months and days are read in English")?;
                Prepared::ReadTime(self.time_format(with)?)
            }
            _ => return Ok(None),
        }))
    }

    fn time_format(&self, node: &Node) -> Result<Format, Problem> {
        let Kind::Text(format) = &node.kind else {
            let message = "the format has to be a text in double quotes, such as \"%Y-%m-%d\"";
            return Err(self.problem(&node.at, message));
        };
        Format::compile(&String::from_utf8_lossy(format)).map_err(|message| self.problem(&node.at, message))
    }

    /// An argument of which only some values are available; what else there is says `instead`.
    fn only(&self, node: Option<&Node>, known: &[&str], instead: &str) -> Result<(), Problem> {
        let Some(node) = node else { return Ok(()) };
        let Kind::Text(text) = &node.kind else {
            return Err(self.problem(&node.at, "this has to be a text in double quotes"));
        };
        if known.iter().any(|known| known.as_bytes() == text.as_slice()) {
            return Ok(());
        }
        let message = format!("`{}` is not available yet: {instead}", String::from_utf8_lossy(text));
        Err(self.problem(&node.at, message))
    }

    fn pattern(&self, node: &Node) -> Result<Regex, Problem> {
        let Kind::Text(pattern) = &node.kind else {
            let message = "the pattern has to be a text in double quotes: patterns are compiled once, at the start";
            return Err(self.problem(&node.at, message));
        };
        let Ok(pattern) = std::str::from_utf8(pattern) else {
            return Err(self.problem(&node.at, "the pattern is not UTF-8"));
        };
        RegexBuilder::new(pattern)
            .size_limit(MAX_PATTERN_SIZE)
            .dfa_size_limit(MAX_PATTERN_SIZE)
            .build()
            .map_err(|error| self.problem(&node.at, regex_message(&error)))
    }
}

/// The regex crate draws its own picture; of that, the sentence that says what is wrong.
fn regex_message(error: &regex::Error) -> String {
    let what = match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    };
    format!("invalid regular expression: {what}")
}

fn mirrored(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Less => CompareOp::Greater,
        CompareOp::LessOrEqual => CompareOp::GreaterOrEqual,
        CompareOp::Greater => CompareOp::Less,
        CompareOp::GreaterOrEqual => CompareOp::LessOrEqual,
        same => same,
    }
}

fn constant_of<F>(code: &Code<F>) -> Option<Value<'static>> {
    match code {
        Code::Const(value) => Some(value.clone()),
        _ => None,
    }
}

/// A value of its own. Constants never come from the wire.
fn owned(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Nil | Value::TraceState(_) | Value::Messages { .. } => Value::Nil,
        Value::Bool(flag) => Value::Bool(flag),
        Value::Int(number) => Value::Int(number),
        Value::Double(number) => Value::Double(number),
        Value::Text(text) => Value::owned_text(text.into_owned()),
        Value::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
        Value::TraceId(id) => Value::TraceId(id),
        Value::SpanId(id) => Value::SpanId(id),
        Value::Time(nanos) => Value::Time(nanos),
        Value::Duration(nanos) => Value::Duration(nanos),
        Value::List(list) => Value::List(List::Made(list.iter().map(owned).collect())),
        Value::Map(map) => {
            let entries = map.iter().map(|(key, value)| (Cow::Owned(key.into_owned()), owned(value)));
            Value::Map(Map::Made(entries.collect()))
        }
    }
}
