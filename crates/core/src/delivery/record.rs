//! A queued request as a record of the storage log: `docs/storage-format.md`, "Queue records".

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Request;
use crate::batch::{Metadata, Signal};

/// The kind of record: a request that waits to be sent.
pub(super) const KIND: u8 = 1;
const VERSION: u8 = 1;

/// The payload of `request`, in pieces. Of its metadata it has what is under `keys`.
pub(super) fn encode(request: &Request, keys: &[String]) -> Vec<Bytes> {
    let headers = || request.metadata().under(keys);
    // More, or longer ones, do not come through any HTTP server.
    let fitting = headers().filter(|(name, _)| name.len() <= usize::from(u16::MAX)).take(usize::from(u16::MAX));
    let mut prefix = BytesMut::with_capacity(4 + headers().map(|(n, v)| 6 + n.len() + v.len()).sum::<usize>());
    prefix.put_u8(VERSION);
    prefix.put_u8(request.signal() as u8);
    prefix.put_u16_le(fitting.clone().count() as u16);
    for (name, value) in fitting {
        prefix.put_u16_le(name.len() as u16);
        prefix.put_u32_le(u32::try_from(value.len()).unwrap_or(u32::MAX));
        prefix.put_slice(name.as_bytes());
        prefix.put_slice(value.as_bytes());
    }
    let mut pieces = vec![prefix.freeze()];
    pieces.extend(request.parts().iter().cloned());
    pieces
}

/// The request in `payload`, which holds `items` items of `signal`; `None` if it is none.
pub(super) fn decode(signal: Signal, mut payload: Bytes, items: usize) -> Option<Request> {
    let version = payload.try_get_u8().ok()?;
    let written = payload.try_get_u8().ok()?;
    if version != VERSION || written != signal as u8 {
        return None;
    }
    let mut headers = Vec::new();
    for _ in 0..payload.try_get_u16_le().ok()? {
        let name = usize::from(payload.try_get_u16_le().ok()?);
        let value = payload.try_get_u32_le().ok()? as usize;
        if payload.len() < name.checked_add(value)? {
            return None;
        }
        let text = |bytes: Bytes| String::from_utf8(bytes.into()).ok();
        headers.push((text(payload.split_to(name))?, text(payload.split_to(value))?));
    }
    Some(Request::new(signal, payload, items).with_metadata(Arc::new(Metadata { headers })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_as_it_was() {
        let headers = vec![("x-tenant".to_owned(), "ünïcode".to_owned()), (String::new(), String::new())];
        for headers in [headers, Vec::new()] {
            let request = Request::new(Signal::Metrics, Bytes::from_static(b"message"), 7);
            let request = request.with_metadata(Arc::new(Metadata { headers }));
            let keys: Vec<String> = request.metadata().headers.iter().map(|(name, _)| name.clone()).collect();
            let payload = Bytes::from(encode(&request, &keys).concat());
            let back = decode(Signal::Metrics, payload.clone(), 7).unwrap();
            assert_eq!((back.bytes(), back.items(), back.metadata()), (request.bytes(), 7, request.metadata()));
            assert!(decode(Signal::Traces, payload.clone(), 7).is_none());
            // Cut off or damaged anywhere: no panic.
            for length in 0..payload.len() {
                let _ = decode(Signal::Metrics, payload.slice(..length), 7);
                let mut damaged = payload.to_vec();
                damaged[length] ^= 0xff;
                let _ = decode(Signal::Metrics, damaged.into(), 7);
            }
        }
    }

    #[test]
    fn only_metadata_that_is_looked_at_is_written() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = vec![header("x-tenant", "a"), header("x-api-key", "hunter2"), header("x-tenant", "b")];
        let request = Request::new(Signal::Logs, Bytes::from_static(b"message"), 1);
        let request = request.with_metadata(Arc::new(Metadata { headers }));
        let payload = Bytes::from(encode(&request, &["x-tenant".to_owned()]).concat());
        assert!(!payload.windows(7).any(|bytes| bytes == b"hunter2"));
        let back = decode(Signal::Logs, payload, 1).unwrap();
        assert_eq!(back.metadata().headers, [header("x-tenant", "a"), header("x-tenant", "b")]);
    }
}
