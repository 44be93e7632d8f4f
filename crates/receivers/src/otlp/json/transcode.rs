//! JSON in, protobuf out, along the table.
//!
//! A sub-message is written where it belongs, behind one byte for its length; if the length needs
//! more bytes the content is moved up by as many. A byte moves once for each level it is nested
//! in, which costs far less than parsing it did.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use nyquist_core::wire::{put_len_field, put_tag, put_varint, varint_len};
use serde::de::{self, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use nyquist_core::otlp_json::schema::{ANY_VALUE, Field, Kind, Message, Presence};

/// How deep `AnyValue`s may be nested: what the ingress check accepts.
const MAX_VALUE_DEPTH: u32 = 32;

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// "Either standard or URL-safe base64 encoding with/without paddings are accepted", says protobuf's mapping.
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

/// Writes the JSON object in `json` as the protobuf message `message`.
pub(super) fn transcode(message: &'static Message, json: &[u8], limit: usize) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Out { bytes: Vec::with_capacity(json.len() / 2), limit, value_depth: 0 };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.deserialize_map(Fields { message, out: &mut out })?;
    Ok(out.bytes)
}

struct Out {
    bytes: Vec<u8>,
    limit: usize,
    value_depth: u32,
}

impl Out {
    fn check_size<E: de::Error>(&self) -> Result<(), E> {
        if self.bytes.len() > self.limit {
            return Err(E::custom("http: request body too large"));
        }
        Ok(())
    }

    /// Begins a length-delimited field; the answer goes to [`Out::end`].
    fn begin(&mut self, number: u32) -> usize {
        put_tag(&mut self.bytes, number, 2);
        self.bytes.push(0);
        self.bytes.len()
    }

    /// Ends the field whose content began at `start`: its length goes in front.
    fn end(&mut self, start: usize) {
        let len = self.bytes.len() - start;
        let more = varint_len(len as u64) - 1;
        if more == 0 {
            self.bytes[start - 1] = len as u8;
            return;
        }
        self.bytes.resize(self.bytes.len() + more, 0);
        self.bytes.copy_within(start..start + len, start + more);
        let mut prefix = Vec::with_capacity(more + 1);
        put_varint(&mut prefix, len as u64);
        self.bytes[start - 1..start + more].copy_from_slice(&prefix);
    }
}

/// The fields of one message, from a JSON object.
struct Fields<'a> {
    message: &'static Message,
    out: &'a mut Out,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let is_value = std::ptr::eq(self.message, &raw const ANY_VALUE);
        if is_value {
            self.out.value_depth += 1;
            if self.out.value_depth > MAX_VALUE_DEPTH {
                return Err(A::Error::custom(format!("values are nested deeper than {MAX_VALUE_DEPTH}")));
            }
        }
        while let Some(known) = map.next_key_seed(FieldName(self.message))? {
            match known {
                Some(field) => map.next_value_seed(FieldValue { field, out: self.out })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            self.out.check_size()?;
        }
        if is_value {
            self.out.value_depth -= 1;
        }
        Ok(())
    }
}

/// Looks a field's name up.
struct FieldName(&'static Message);

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Option<&'static Field>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a field name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let found = self.0.fields.iter().find(|field| field.name == name);
        if found.is_some() || !name.contains('_') {
            return Ok(found);
        }
        let name = lower_camel(name);
        Ok(self.0.fields.iter().find(|field| field.name == name))
    }
}

/// `trace_id` as `traceId`.
fn lower_camel(snake: &str) -> String {
    let mut camel = String::with_capacity(snake.len());
    let mut is_start = false;
    for letter in snake.chars() {
        match letter {
            '_' => is_start = true,
            letter if is_start => {
                camel.push(letter.to_ascii_uppercase());
                is_start = false;
            }
            letter => camel.push(letter),
        }
    }
    camel
}

/// A field's value. `null` is an absent text, list or message, and nothing else.
struct FieldValue<'a> {
    field: &'static Field,
    out: &'a mut Out,
}

impl<'de> DeserializeSeed<'de> for FieldValue<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let may_be_null = matches!(self.field.kind, Kind::Text | Kind::Bytes | Kind::Message(_));
        if self.field.presence == Presence::Repeated || may_be_null {
            return deserializer.deserialize_option(self);
        }
        self.visit_some(deserializer)
    }
}

impl<'de> Visitor<'de> for FieldValue<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a value for {}", self.field.name)
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.field.presence == Presence::Repeated {
            return deserializer.deserialize_seq(self);
        }
        Single { field: self.field, form: Form::of(self.field), out: self.out }.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let is_packed = !matches!(self.field.kind, Kind::Text | Kind::Bytes | Kind::Id(_) | Kind::Message(_));
        if !is_packed {
            while elements.next_element_seed(Element { field: self.field, out: self.out })?.is_some() {
                self.out.check_size()?;
            }
            return Ok(());
        }
        let tag_at = self.out.bytes.len();
        let start = self.out.begin(self.field.number);
        while elements.next_element_seed(Single { field: self.field, form: Form::Packed, out: self.out })?.is_some() {
            self.out.check_size()?;
        }
        if self.out.bytes.len() == start {
            self.out.bytes.truncate(tag_at);
        } else {
            self.out.end(start);
        }
        Ok(())
    }
}

/// An element of a list that is not packed; `null` is an empty one.
struct Element<'a> {
    field: &'static Field,
    out: &'a mut Out,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "an element of {}", self.field.name)
    }

    fn visit_none<E>(self) -> Result<(), E> {
        put_len_field(&mut self.out.bytes, self.field.number, &[]);
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        Single { field: self.field, form: Form::Tagged, out: self.out }.deserialize(deserializer)
    }
}

/// How one value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// With its tag, unless it is zero or empty.
    TaggedUnlessDefault,
    /// With its tag.
    Tagged,
    /// As an element of a packed list.
    Packed,
}

impl Form {
    fn of(field: &Field) -> Self {
        if field.presence == Presence::Implicit { Self::TaggedUnlessDefault } else { Self::Tagged }
    }
}

/// One value of a field.
struct Single<'a> {
    field: &'static Field,
    form: Form,
    out: &'a mut Out,
}

impl<'de> DeserializeSeed<'de> for Single<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.field.kind {
            Kind::Message(message) => {
                let start = self.out.begin(self.field.number);
                Fields { message, out: self.out }.deserialize(deserializer)?;
                self.out.end(start);
                Ok(())
            }
            // As bytes: escaped lone surrogates, which JavaScript writes, are no valid text.
            Kind::Text => deserializer.deserialize_bytes(self),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl Single<'_> {
    fn text<E: de::Error>(self, text: &[u8]) -> Result<(), E> {
        match self.field.kind {
            Kind::Text => self.len_delimited(String::from_utf8_lossy(text).as_bytes()),
            Kind::Bytes => {
                let is_url_safe = text.iter().any(|byte| b"-_".contains(byte));
                match if is_url_safe { URL_SAFE.decode(text) } else { STANDARD.decode(text) } {
                    Ok(bytes) => self.len_delimited(&bytes),
                    Err(error) => return Err(self.invalid(format!("invalid base64: {error}"))),
                }
            }
            Kind::Id(len) => {
                let id = match hex::decode(text) {
                    Ok(id) => id,
                    Err(error) => return Err(self.invalid(format!("invalid hex digits: {error}"))),
                };
                if !id.is_empty() && id.len() != len {
                    return Err(self.invalid(format!("length mismatch: {} bytes instead of {len}", id.len())));
                }
                self.len_delimited(&id);
            }
            Kind::Bool => return Err(self.invalid("expected true or false")),
            Kind::Double => {
                let text = std::str::from_utf8(text).unwrap_or_default();
                let value = match text {
                    "NaN" => Some(f64::NAN),
                    "Infinity" => Some(f64::INFINITY),
                    "-Infinity" => Some(f64::NEG_INFINITY),
                    // Rust also reads "inf" and "infinity", which no encoder writes.
                    text if text.bytes().any(|byte| byte.is_ascii_alphabetic() && !b"eE".contains(&byte)) => None,
                    text => text.parse().ok(),
                };
                match value {
                    Some(value) => self.double(value),
                    None => return Err(self.invalid(format!("invalid number {text:?}"))),
                }
            }
            Kind::Enum(names) => match names.iter().position(|name| name.as_bytes() == text) {
                Some(number) => return self.integer(number as i128),
                None => {
                    let name = String::from_utf8_lossy(text).into_owned();
                    return Err(self.invalid(format!("unknown enum value {name:?}")));
                }
            },
            _ => {
                let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i128>().ok());
                return match parsed {
                    Some(number) => self.integer(number),
                    None => Err(self.invalid("expected an integer, or one in quotes")),
                };
            }
        }
        Ok(())
    }

    fn integer<E: de::Error>(mut self, number: i128) -> Result<(), E> {
        // The value as the varint or fixed bits of its type; None if the type cannot hold it.
        let bits = match self.field.kind {
            Kind::Double => {
                self.double(number as f64);
                return Ok(());
            }
            Kind::Int64 | Kind::Sfixed64 => i64::try_from(number).ok().map(|number| number as u64),
            Kind::Uint64 | Kind::Fixed64 => u64::try_from(number).ok(),
            Kind::Uint32 | Kind::Fixed32 => u32::try_from(number).ok().map(u64::from),
            // Zigzag.
            Kind::Sint32 => i32::try_from(number).ok().map(|number| u64::from((number << 1 ^ number >> 31) as u32)),
            // Negative enum values are ten bytes, like every negative int32.
            Kind::Enum(_) => i32::try_from(number).ok().map(|number| i64::from(number) as u64),
            _ => return Err(self.invalid("did not expect a number")),
        };
        let Some(bits) = bits else { return Err(self.invalid(format!("{number} is out of range"))) };
        let wire_type = match self.field.kind {
            Kind::Fixed64 | Kind::Sfixed64 => 1,
            Kind::Fixed32 => 5,
            _ => 0,
        };
        if self.tag(wire_type, bits == 0) {
            match wire_type {
                1 => self.out.bytes.extend_from_slice(&bits.to_le_bytes()),
                5 => self.out.bytes.extend_from_slice(&(bits as u32).to_le_bytes()),
                _ => put_varint(&mut self.out.bytes, bits),
            }
        }
        Ok(())
    }

    fn double(mut self, value: f64) {
        // Only positive zero is the default: -0.0 has a bit set.
        if self.tag(1, value.to_bits() == 0) {
            self.out.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn len_delimited(self, bytes: &[u8]) {
        if self.form == Form::TaggedUnlessDefault && bytes.is_empty() {
            return;
        }
        put_len_field(&mut self.out.bytes, self.field.number, bytes);
    }

    /// Writes the tag, if this form has one. `false` if the value is not written at all.
    fn tag(&mut self, wire_type: u8, is_default: bool) -> bool {
        match self.form {
            Form::TaggedUnlessDefault if is_default => return false,
            Form::Packed => {}
            _ => put_tag(&mut self.out.bytes, self.field.number, wire_type),
        }
        true
    }

    fn invalid<E: de::Error>(&self, what: impl fmt::Display) -> E {
        E::custom(format_args!("{}: {what}", self.field.name))
    }
}

impl<'de> Visitor<'de> for Single<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.field.kind {
            Kind::Text => "text",
            Kind::Bytes => "base64 text",
            Kind::Id(_) => "hex digits in quotes",
            Kind::Bool => "true or false",
            Kind::Double => "a number",
            Kind::Enum(_) => "a number or a name",
            Kind::Message(_) => "an object",
            _ => "an integer, or one in quotes",
        };
        write!(out, "{what} for {}", self.field.name)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.text(text.as_bytes())
    }

    fn visit_bytes<E: de::Error>(self, text: &[u8]) -> Result<(), E> {
        self.text(text)
    }

    fn visit_bool<E: de::Error>(mut self, value: bool) -> Result<(), E> {
        if !matches!(self.field.kind, Kind::Bool) {
            return Err(E::invalid_type(de::Unexpected::Bool(value), &self));
        }
        if self.tag(0, !value) {
            self.out.bytes.push(u8::from(value));
        }
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        self.integer(i128::from(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.integer(i128::from(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        /// Up to here every integer has a double of its own.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match self.field.kind {
            Kind::Double => {
                self.double(number);
                Ok(())
            }
            // `1.0` and `1e3` are integers too.
            _ if number.fract() == 0.0 && number.abs() <= EXACT => self.integer(number as i128),
            _ => Err(E::invalid_type(de::Unexpected::Float(number), &self)),
        }
    }
}
