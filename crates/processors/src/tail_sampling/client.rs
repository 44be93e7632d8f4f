//! What is kept of the clients that sent spans: the metadata that something behind the sampler looks at.
//!
//! A resource stands below its client like a scope below its resource: the client's metadata, written as
//! below, is interned as one header more, and a record in the buffer, which names its scope, knows its client
//! through it. Kept spans leave in one request for each client. Where nobody asks for metadata, or a client sends none,
//! there is no such header.
//!
//! In the log on disk, and only there, the same bytes stand in a field of the export request of their own
//! ([`FIELD`]): what comes behind it, up to the next one, is of that client. A build that does not know the field passes
//! it over.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use nyquist_core::batch::Metadata;
use nyquist_core::wire::{Field, Fields, Value, put_len_field, put_tag, put_varint};

/// The last field number that there is: OTLP does not use it.
const FIELD: u32 = (1 << 29) - 1;
const NAME: u32 = 1;
const VALUE: u32 = 2;

/// The metadata to keep, in lower case, sorted.
#[derive(Debug, Default)]
pub(super) struct ClientKeys(Vec<String>);

impl ClientKeys {
    pub(super) fn new(mut keys: Vec<String>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self(keys)
    }

    pub(super) fn names(&self) -> &[String] {
        &self.0
    }

    /// What is kept of `metadata`: the same bytes for the same values, none if there is nothing.
    pub(super) fn encode(&self, metadata: &Metadata) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in metadata.under(&self.0) {
            put_len_field(&mut out, NAME, name.as_bytes());
            put_len_field(&mut out, VALUE, value.as_bytes());
        }
        out
    }
}

/// The metadata in `client`.
pub(super) fn decode(client: &[u8]) -> Arc<Metadata> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut headers: Vec<(String, String)> = Vec::new();
    for field in Fields::new(client) {
        match (field, headers.last_mut()) {
            (Field { number: NAME, value: Value::Len(name) }, _) => headers.push((text(name), String::new())),
            (Field { number: VALUE, value: Value::Len(value) }, Some((_, last))) => *last = text(value),
            _ => {}
        }
    }
    Arc::new(Metadata { headers })
}

/// The client that `field` of a request from the log names.
pub(super) fn named_in<'a>(field: &Field<'a>) -> Option<&'a [u8]> {
    match *field {
        Field { number: FIELD, value: Value::Len(client) } => Some(client),
        _ => None,
    }
}

/// The field that names `client`; nothing for none.
pub(super) fn field(client: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if !client.is_empty() {
        out.reserve(client.len() + 10);
        put_tag(&mut out, FIELD, 2);
        put_varint(&mut out, client.len() as u64);
        out.extend_from_slice(client);
    }
    out
}

/// `message`, which came from outside, without fields that would name a client: nobody can claim to be another one.
pub(super) fn without_names(message: &Bytes) -> Cow<'_, Bytes> {
    if Fields::new(message).all(|field| field.number != FIELD) {
        return Cow::Borrowed(message);
    }
    let mut out = Vec::with_capacity(message.len());
    let mut fields = Fields::new(message);
    let mut before = 0;
    while let Some(field) = fields.next() {
        let place = before..fields.position();
        before = place.end;
        if field.number != FIELD {
            out.extend_from_slice(message.get(place).unwrap_or_default());
        }
    }
    Cow::Owned(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(headers: &[(&str, &str)]) -> Metadata {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Metadata { headers: headers.collect() }
    }

    /// Scenario: clients that differ in what is kept, in what is not, and in the order of their headers.
    /// Guarantee: the bytes are the same exactly if what is kept is, and say it.
    #[test]
    fn clients_are_told_apart_by_what_is_kept() {
        let keys = ClientKeys::new(["x-scope-orgid", ":auth.subject", "x-scope-orgid"].map(str::to_owned).to_vec());
        let one = metadata(&[("user-agent", "a"), ("x-scope-orgid", "one"), (":auth.subject", "me")]);
        let same = metadata(&[(":auth.subject", "me"), ("x-scope-orgid", "one"), ("user-agent", "b")]);
        let other = metadata(&[(":auth.subject", "me"), ("x-scope-orgid", "onex")]);
        let bytes = keys.encode(&one);
        assert_eq!(bytes, keys.encode(&same));
        assert_ne!(bytes, keys.encode(&other));
        assert_eq!(*decode(&bytes), metadata(&[(":auth.subject", "me"), ("x-scope-orgid", "one")]));
        assert!(keys.encode(&metadata(&[("user-agent", "a")])).is_empty());
        assert!(field(&[]).is_empty());
    }

    /// Scenario: a client sends the field that names a client in the log. Guarantee: it is taken out, and all
    /// else stays.
    #[test]
    fn nobody_names_a_client_from_outside() {
        let rest = [0x0a, 3, 1, 2, 3, 0x10, 7];
        let mut message = field(b"root");
        message.extend_from_slice(&rest[..5]);
        put_tag(&mut message, FIELD, 0);
        put_varint(&mut message, 1);
        message.extend_from_slice(&rest[5..]);
        assert_eq!(without_names(&message.into()).as_ref(), &Bytes::from_static(&[0x0a, 3, 1, 2, 3, 0x10, 7]));
        let plain = Bytes::copy_from_slice(&rest);
        assert!(matches!(without_names(&plain), Cow::Borrowed(_)));
        let named = field(b"client");
        assert_eq!(Fields::new(&named).next().as_ref().and_then(named_in), Some(&b"client"[..]));
    }
}
