//! `GET /explain?trace_id=...`: what the processors of a running gateway know of a trace.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::Graph;
use crate::net::page::{Page, text};

/// Where the page is, beside the gateway's own metrics.
pub const EXPLAIN_PATH: &str = "/explain";

/// The page: a JSON list of [`Account`](super::Account)s. Names of components and rules, numbers and
/// times; nothing that a span says of itself.
pub struct ExplainPage(pub Arc<Graph>);

impl Page for ExplainPage {
    fn respond(&self, request: &Request<Incoming>) -> Response<Bytes> {
        let query = request.uri().query().unwrap_or_default();
        let Some(id) = query.split('&').find_map(|pair| pair.strip_prefix("trace_id=")) else {
            return text(StatusCode::BAD_REQUEST, format!("write {EXPLAIN_PATH}?trace_id=ID\n"));
        };
        let id = match parse_trace_id(id) {
            Ok(id) => id,
            Err(message) => return text(StatusCode::BAD_REQUEST, format!("{message}\n")),
        };
        let accounts = self.0.explain(&id);
        let Ok(body) = serde_json::to_vec(&accounts) else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "an account cannot be written as JSON\n");
        };
        let mut response = text(StatusCode::OK, body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// A trace id as people paste it: 32 hexadecimal digits, in any case, with dashes if need be.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_trace_id(text: &str) -> Result<[u8; 16], String> {
    let digits: String = text.trim().chars().filter(|letter| *letter != '-').take(33).collect();
    let mut id = [0; 16];
    match hex::decode_to_slice(&digits, &mut id) {
        Ok(()) if id == [0; 16] => Err("a trace id is not all zeros".to_owned()),
        Ok(()) => Ok(id),
        Err(_) => Err("a trace id has 32 hexadecimal digits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_ids_as_people_paste_them() {
        let id = parse_trace_id("5b8efff798038103d269b633813fc60c").unwrap();
        assert_eq!(parse_trace_id(" 5B8EFFF798038103D269B633813FC60C ").unwrap(), id);
        assert_eq!(parse_trace_id("5b8efff7-9803-8103-d269-b633813fc60c").unwrap(), id);
        for wrong in ["", "5b8e", "5b8efff798038103d269b633813fc60c0", "no", &"0".repeat(32), &"g".repeat(32)] {
            assert!(parse_trace_id(wrong).is_err(), "{wrong}");
        }
    }
}
