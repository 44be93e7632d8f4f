//! Typed reading of the tree, with every error at its place.
//!
//! Serde stops at the first error. So a value that does not fit is reported with its place, noted
//! as one to leave out, and the whole is read again without it (configurations are
//! `#[serde(default)]`, so a left-out key is no error), until nothing fails. Unknown keys need no
//! second reading: a struct announces its fields, and what is not among them is reported and skipped.
//!
//! Types are not mixed, as in the Collector: `123` is no text and `"123"` no number. But what a `${...}`
//! reference brought goes as text or as what it reads as, whichever the field wants.

mod fault;
mod parts;
mod variant;

use std::cell::RefCell;
use std::collections::HashSet;

use serde::de::{self, Deserializer, Visitor};

use super::expand::join;
use super::problem::did_you_mean;
use super::scalar;
use super::types::{DURATION, ENABLED, FLAT, SECRET};
use super::{Diagnostics, Location, Node, Original, Problem, Scalar, Tree, yaml};
use fault::Fault;
use parts::{Entries, Items, Pieces};
use variant::Variant;

/// More findings than this are not worth another reading.
const MAX_FINDINGS: usize = 100;

/// A value, without what was wrong.
pub(super) struct Reading<C> {
    pub(super) value: C,
    /// The nodes that had to be left out, by address.
    pub(super) left_out: HashSet<*const Node>,
}

/// Reads `node`, the section that `diagnostics` is in, as a `C`. `None` if nothing can be made of it.
pub(super) fn read<C: de::DeserializeOwned>(node: &Node, diagnostics: &mut Diagnostics) -> Option<Reading<C>> {
    let path = diagnostics.scope_path().to_owned();
    let key = diagnostics.scope_key().clone();
    let state = RefCell::new(State {
        diagnostics,
        skipped: HashSet::new(),
        left_out: HashSet::new(),
        mentioned: HashSet::new(),
    });
    let empty = Node::empty_map(node.location.clone());
    let node = if node.is_null() { &empty } else { node };
    for _ in 0..MAX_FINDINGS {
        let reader = Reader { node, key: &key, path: path.clone(), state: &state, block: false, around: &[] };
        match C::deserialize(reader.clone()) {
            Ok(value) => {
                return Some(Reading { value, left_out: state.into_inner().left_out });
            }
            Err(Fault::Reported) => {}
            Err(fault) => {
                reader.report(fault);
                return None;
            }
        }
    }
    None
}

struct State<'a> {
    diagnostics: &'a mut Diagnostics,
    /// Nodes to leave out, by address.
    skipped: HashSet<*const Node>,
    /// Keys and values that a finding was reported for, by address: readings repeat.
    mentioned: HashSet<*const ()>,
    /// Those of `skipped` that are left out for an error, and not for being null.
    left_out: HashSet<*const Node>,
}

impl State<'_> {
    fn mention<T>(&mut self, subject: &T, problem: impl FnOnce() -> Problem) {
        if self.mentioned.insert(std::ptr::from_ref(subject).cast()) {
            self.diagnostics.push(problem());
        }
    }
}

#[derive(Clone)]
struct Reader<'n, 's, 'd> {
    node: &'n Node,
    key: &'n Location,
    path: String,
    state: &'s RefCell<State<'d>>,
    /// An optional block, whose `enabled` key is not the struct's own.
    block: bool,
    /// The keys of the struct that this one's keys stand among.
    around: &'static [&'static str],
}

impl<'n, 's, 'd> Reader<'n, 's, 'd> {
    /// Reports `fault` unless that has been done, and notes the node as one to leave out.
    fn report(&self, fault: Fault) -> Fault {
        let mut state = self.state.borrow_mut();
        let problem = match fault {
            Fault::Reported => return fault,
            Fault::Null => None,
            // What is missing may be what was left out.
            Fault::Missing(_) if self.has_skipped(&state) => {
                state.left_out.insert(std::ptr::from_ref(self.node));
                None
            }
            Fault::Missing(key) => {
                let at = if self.key.is_known() { self.key } else { &self.node.location };
                Some(Problem::error(format!("missing key {key:?}")).at(at, &self.path))
            }
            Fault::Wrong { message, suggestion } => {
                Some(Problem::error(message).at(&self.node.place(self.key), &self.path).suggest_some(suggestion))
            }
        };
        if let Some(problem) = problem {
            state.left_out.insert(std::ptr::from_ref(self.node));
            state.diagnostics.push(problem);
        }
        state.skipped.insert(std::ptr::from_ref(self.node));
        Fault::Reported
    }

    fn has_skipped(&self, state: &State<'_>) -> bool {
        self.node.entries().iter().any(|(.., value)| state.skipped.contains(&std::ptr::from_ref(value)))
    }

    fn expected(&self, what: &str) -> Fault {
        if self.node.is_null() {
            return Fault::Null;
        }
        Fault::wrong(format!("expected {what}, found {}", self.node.describe()))
    }

    fn text(&self) -> Result<&'n str, Fault> {
        if let Some(text) = self.node.as_text() {
            return Ok(text);
        }
        let mut fault = self.expected("text");
        if let (Fault::Wrong { suggestion, .. }, Some(written)) = (&mut fault, self.node.written()) {
            *suggestion = Some(format!("write it in quotes: \"{written}\""));
        }
        Err(fault)
    }

    fn integer(&self) -> Result<i64, Fault> {
        match &self.node.tree {
            Tree::Scalar(Scalar::Int(value)) => Ok(*value),
            Tree::Scalar(Scalar::Float(value)) if value.fract() == 0.0 && value.abs() < 9.2e18 => Ok(*value as i64),
            Tree::Scalar(Scalar::String(text)) => {
                let mut fault = self.expected("an integer");
                if let Fault::Wrong { suggestion, .. } = &mut fault
                    && scalar::integer(text).is_some()
                {
                    *suggestion = Some("remove the quotes".to_owned());
                }
                Err(fault)
            }
            _ => Err(self.expected("an integer")),
        }
    }

    fn unsigned(&self) -> Result<u64, Fault> {
        let value = self.integer()?;
        u64::try_from(value).map_err(|_| Fault::wrong(format!("{value} must not be negative")))
    }

    /// The entries of a mapping, without what is left out.
    fn entries(&self, fields: Option<&'static [&'static str]>) -> Result<Entries<'n, 's, 'd>, Fault> {
        let Tree::Map(entries) = &self.node.tree else {
            if self.node.as_text() == Some("") {
                return Err(Fault::Null);
            }
            let mut fault = self.expected("a mapping");
            let fixed = self.node.as_text().and_then(yaml::missing_space);
            if let (Fault::Wrong { message, suggestion }, Some(fixed), Some(fields)) = (&mut fault, fixed, fields)
                && fixed.split_once(':').is_some_and(|(key, _)| fields.contains(&key))
            {
                message.push_str(": missing space after the colon");
                *suggestion = Some(format!("write `{fixed}`"));
            }
            return Err(fault);
        };
        let mut state = self.state.borrow_mut();
        let mut kept = Vec::with_capacity(entries.len());
        let flat = fields.filter(|fields| fields.contains(&FLAT));
        for entry in entries {
            let (key, at, value) = entry;
            let is_of_another =
                (self.block && key == "enabled") || (self.around.contains(&key.as_str()) && key != FLAT);
            if state.skipped.contains(&std::ptr::from_ref(value)) || is_of_another {
                continue;
            }
            match fields {
                Some(fields) if !fields.contains(&key.as_str()) || key == FLAT => {
                    // What no field is for may be for those of the struct within.
                    if flat.is_none() {
                        let own = fields.iter().filter(|field| !self.around.contains(field));
                        let known: Vec<&str> = self.around.iter().chain(own).copied().collect();
                        state.mention(at, || unknown_key(key, value, &known, self.block).at(at, join(&self.path, key)));
                    }
                }
                _ => kept.push(entry),
            }
        }
        let flat = flat.map(|fields| Reader { around: fields, ..self.clone() });
        Ok(Entries { entries: kept.into_iter(), value: None, flat, path: self.path.clone(), state: self.state })
    }
}

fn unknown_key(key: &str, value: &Node, fields: &[&str], block: bool) -> Problem {
    let problem = Problem::error(format!("unknown key {key:?}"));
    if let (true, Some(fixed)) = (value.is_null(), yaml::missing_space(key)) {
        return Problem::error(format!("unknown key {key:?}: missing space after the colon"))
            .suggest(format!("write `{fixed}`"));
    }
    let fields = fields.iter().copied().filter(|&field| field != FLAT);
    let known: Vec<&str> = fields.chain(block.then_some("enabled")).collect();
    let hint = did_you_mean(key, known.iter().copied()).unwrap_or_else(|| match known.len() {
        0 => "there are no keys here".to_owned(),
        1..=12 => format!("the keys here are {}", known.join(", ")),
        _ => format!("the keys here are {}, ...", known.iter().take(12).copied().collect::<Vec<_>>().join(", ")),
    });
    problem.suggest(hint)
}

macro_rules! integers {
    ($($deserialize:ident $visit:ident $read:ident $type:ty;)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let value = self.$read()?;
            let value = <$type>::try_from(value)
                .map_err(|_| Fault::wrong(format!("{value} is out of range: the limits are {} and {}", <$type>::MIN, <$type>::MAX)))?;
            visitor.$visit(value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_, '_, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.tree {
            Tree::Scalar(Scalar::Null) => visitor.visit_unit(),
            Tree::Scalar(Scalar::Bool(value)) => visitor.visit_bool(*value),
            Tree::Scalar(Scalar::Int(value)) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Tree::Scalar(Scalar::Float(value)) => visitor.visit_f64(*value),
            Tree::Scalar(Scalar::String(text)) => visitor.visit_str(text),
            Tree::List(_) => self.deserialize_seq(visitor),
            Tree::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.tree {
            Tree::Scalar(Scalar::Bool(value)) => visitor.visit_bool(*value),
            _ => Err(self.expected("true or false")),
        }
    }

    integers! {
        deserialize_i8 visit_i8 integer i8;
        deserialize_i16 visit_i16 integer i16;
        deserialize_i32 visit_i32 integer i32;
        deserialize_i64 visit_i64 integer i64;
        deserialize_i128 visit_i128 integer i128;
        deserialize_u8 visit_u8 unsigned u8;
        deserialize_u16 visit_u16 unsigned u16;
        deserialize_u32 visit_u32 unsigned u32;
        deserialize_u64 visit_u64 unsigned u64;
        deserialize_u128 visit_u128 unsigned u128;
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.tree {
            Tree::Scalar(Scalar::Int(value)) => visitor.visit_f64(*value as f64),
            Tree::Scalar(Scalar::Float(value)) => visitor.visit_f64(*value),
            _ => Err(self.expected("a number")),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bytes(self.text()?.as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let has_text = matches!(&self.node.original, Original::Referenced(text) if !text.is_empty());
        if self.node.is_null() && !has_text { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.node.is_null() { visitor.visit_unit() } else { Err(self.expected("nothing")) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match name {
            ENABLED => match self.node.get("enabled") {
                Some(Node { tree: Tree::Scalar(Scalar::Bool(false)), .. }) => visitor.visit_none(),
                Some(Node { tree: Tree::Scalar(Scalar::Bool(true) | Scalar::Null), .. }) | None => {
                    self.block = true;
                    if self.node.is_null() { visitor.visit_unit() } else { visitor.visit_newtype_struct(self) }
                }
                Some(enabled) => {
                    let key = self.node.entry("enabled").map_or(self.key, |(at, _)| at);
                    let path = join(&self.path, "enabled");
                    let reader = Reader { node: enabled, key, path, ..self };
                    let problem = reader.expected("true or false");
                    Err(reader.report_block(problem))
                }
            },
            DURATION => {
                if let Tree::Scalar(Scalar::Int(nanos @ 1..)) = self.node.tree {
                    let problem = || {
                        let at = self.node.place(self.key);
                        let message = format!("a duration without a unit counts nanoseconds: this is {nanos} ns");
                        Problem::warning(message).at(&at, &self.path).suggest(format!("did you mean {nanos}s?"))
                    };
                    self.state.borrow_mut().mention(self.node, problem);
                }
                visitor.visit_newtype_struct(self)
            }
            SECRET => {
                self.state.borrow_mut().diagnostics.secrets.push(self.node.location.clone());
                visitor.visit_newtype_struct(self)
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.tree {
            Tree::List(items) => {
                let items: Vec<(usize, &Node)> = items.iter().enumerate().collect();
                visitor.visit_seq(Items { items: items.into_iter(), path: &self.path, state: self.state })
            }
            _ => {
                let Some(text) = self.node.as_text() else { return Err(self.expected("a list")) };
                let pieces: Vec<&str> = text.split(',').map(str::trim).filter(|piece| !piece.is_empty()).collect();
                visitor.visit_seq(Pieces { pieces: pieces.into_iter(), text })
            }
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(self.entries(None)?)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_map(self.entries(Some(fields))?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if let [(name, at, value)] = self.node.entries() {
            let path = join(&self.path, name);
            let content = Reader { node: value, key: at, path, state: self.state, block: false, around: &[] };
            return visitor.visit_enum(Variant { name, content: Some(content) });
        }
        match self.node.as_text() {
            Some(name) => visitor.visit_enum(Variant { name, content: None }),
            None => match self.text() {
                Err(Fault::Wrong { .. }) if self.node.written().is_none() => {
                    Err(self.expected(&format!("one of {}", variants.join(", "))))
                }
                result => result.and_then(|name| visitor.visit_enum(Variant { name, content: None })),
            },
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

impl Reader<'_, '_, '_> {
    /// Reports a fault in the `enabled` key of a block; the key, not the block, is left out.
    fn report_block(&self, fault: Fault) -> Fault {
        let Fault::Wrong { message, .. } = fault else { return self.report(fault) };
        let problem = || Problem::error(message).at(&self.node.place(self.key), &self.path);
        let mut state = self.state.borrow_mut();
        state.left_out.insert(std::ptr::from_ref(self.node));
        state.mention(self.node, problem);
        // The block itself is left out by whoever reads it.
        Fault::Null
    }
}
