//! Enums: `name`, or `name: content`.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, VariantAccess, Visitor};

use super::Reader;
use super::fault::Fault;

/// A variant of an enum: `name`, or `name: content`.
pub(super) struct Variant<'n, 's, 'd> {
    pub(super) name: &'n str,
    pub(super) content: Option<Reader<'n, 's, 'd>>,
}

impl<'de, 'n, 's, 'd> EnumAccess<'de> for Variant<'n, 's, 'd> {
    type Error = Fault;
    type Variant = Content<'n, 's, 'd>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'n, 's, 'd>), Fault> {
        let name: StrDeserializer<'_, Fault> = self.name.into_deserializer();
        let value = seed.deserialize(name)?;
        Ok((value, Content { name: self.name, content: self.content }))
    }
}

pub(super) struct Content<'n, 's, 'd> {
    name: &'n str,
    content: Option<Reader<'n, 's, 'd>>,
}

impl<'n, 's, 'd> Content<'n, 's, 'd> {
    fn content(self) -> Result<Reader<'n, 's, 'd>, Fault> {
        let name = self.name;
        if let Some(reader) = &self.content
            && reader.state.borrow().skipped.contains(&std::ptr::from_ref(reader.node))
        {
            // Already reported: the whole goes with its content.
            return Err(Fault::Null);
        }
        self.content.ok_or_else(|| Fault::wrong(format!("{name:?} needs a value: write `{name}: ...`")))
    }
}

impl<'de> VariantAccess<'de> for Content<'_, '_, '_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            Some(reader) if !reader.node.is_null() => {
                Err(Fault::wrong(format!("{:?} takes no value, found {}", self.name, reader.node.describe())))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        let reader = self.content()?;
        seed.deserialize(reader.clone()).map_err(|fault| reader.report(fault))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.content()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        let reader = self.content()?;
        let entries = reader.entries(Some(fields));
        entries.and_then(|entries| visitor.visit_map(entries)).map_err(|fault| reader.report(fault))
    }
}
