//! The parts of mappings and lists.

use std::cell::RefCell;
use std::vec;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::fault::Fault;
use super::{Reader, State};
use crate::config::expand::join;
use crate::config::node::shorten;
use crate::config::types::FLAT;
use crate::config::{Location, Node, Problem};

/// The entries of a mapping.
pub(super) struct Entries<'n, 's, 'd> {
    pub(super) entries: vec::IntoIter<&'n (String, Location, Node)>,
    pub(super) value: Option<&'n (String, Location, Node)>,
    /// Comes last, if the struct has a field whose keys stand among its own.
    pub(super) flat: Option<Reader<'n, 's, 'd>>,
    pub(super) path: String,
    pub(super) state: &'s RefCell<State<'d>>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(entry) = self.entries.next() else {
            self.value = None;
            let flat = self.flat.is_some().then(|| seed.deserialize(StrDeserializer::<Fault>::new(FLAT)));
            return flat.transpose();
        };
        self.value = Some(entry);
        let (name, at, value) = entry;
        let key: StrDeserializer<'_, Fault> = name.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|fault| {
            // A key that its type refuses: the error is about the key, and its value is left out.
            let reader = Reader {
                node: value,
                key: at,
                path: join(&self.path, name),
                state: self.state,
                block: false,
                around: &[],
            };
            match fault {
                Fault::Wrong { message, suggestion } => {
                    let problem = Problem::error(message).at(at, &reader.path).suggest_some(suggestion);
                    let mut state = self.state.borrow_mut();
                    state.left_out.insert(std::ptr::from_ref(value));
                    state.mention(at, || problem);
                    drop(state);
                    reader.report(Fault::Null)
                }
                fault => reader.report(fault),
            }
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, at, value)) = self.value.take() else {
            let Some(flat) = self.flat.take() else { return Err(Fault::wrong("a value without a key")) };
            return seed.deserialize(flat.clone()).map_err(|fault| flat.report(fault));
        };
        let reader =
            Reader { node: value, key: at, path: join(&self.path, key), state: self.state, block: false, around: &[] };
        seed.deserialize(reader.clone()).map_err(|fault| reader.report(fault))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// The items of a list.
pub(super) struct Items<'n, 's, 'd> {
    pub(super) items: vec::IntoIter<(usize, &'n Node)>,
    pub(super) path: &'s str,
    pub(super) state: &'s RefCell<State<'d>>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        for (index, node) in self.items.by_ref() {
            if self.state.borrow().skipped.contains(&std::ptr::from_ref(node)) {
                continue;
            }
            let path = format!("{}[{index}]", self.path);
            let reader = Reader { node, key: &node.location, path, state: self.state, block: false, around: &[] };
            return seed.deserialize(reader.clone()).map(Some).map_err(|fault| reader.report(fault));
        }
        Ok(None)
    }
}

/// The pieces of a text that stands for a list.
pub(super) struct Pieces<'n> {
    pub(super) pieces: vec::IntoIter<&'n str>,
    pub(super) text: &'n str,
}

impl<'de> SeqAccess<'de> for Pieces<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(piece) = self.pieces.next() else { return Ok(None) };
        seed.deserialize(Piece { piece, text: self.text }).map(Some)
    }
}

/// One piece: text, and nothing else.
struct Piece<'n> {
    piece: &'n str,
    text: &'n str,
}

impl<'de> Deserializer<'de> for Piece<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.piece)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(self.piece.into_deserializer())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fault> {
        Err(Fault::wrong(format!("expected a list of mappings, found the text {:?}", shorten(self.text))))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}
