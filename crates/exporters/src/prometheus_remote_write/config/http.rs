//! How requests are sent: what remote write asks of the common settings of HTTP clients.

use nyquist_core::config::{Check, Validate};
use nyquist_core::net::client::HttpEndpoint;

use super::super::protocol::RESERVED_HEADERS;
use crate::http_client::HttpClientConfig;

/// Checks settings that stand at `at`.
pub(super) fn check(check: &mut Check<'_>, at: &[&str], http: &HttpClientConfig) {
    check.nested(at, &Client(http));
}

/// The settings, in the eyes of remote write.
struct Client<'a>(&'a HttpClientConfig);

impl Validate for Client<'_> {
    fn validate(&self, check: &mut Check<'_>) {
        let Self(http) = *self;
        if http.endpoint.is_empty() {
            check.error(
                &["endpoint"],
                "requires a non-empty \"endpoint\", for example http://prometheus:9090/api/v1/write",
            );
        } else if let Err(problem) = HttpEndpoint::parse(&http.endpoint) {
            check.error(&["endpoint"], problem);
        }
        let compression = http.compression.as_deref();
        if let Some(other) = compression.filter(|name| !matches!(*name, "" | "snappy")) {
            let message = format!("remote write is always compressed with snappy; remove compression: {other}");
            check.error(&["compression"], message);
        }
        if http.compression_params.level != 0 {
            let path = ["compression_params", "level"];
            let message = "remote write is compressed with snappy, which has no levels; remove the setting";
            // The Collector, too, looks at it only if it has been told how to compress.
            match compression {
                Some("snappy") => check.error(&path, message),
                _ => check.warning(&path, message),
            }
        }
        if http.max_conns_per_host > 0 {
            let message = "has no effect: each shard has one request on its way; set max_batch_request_parallelism";
            check.warning(&["max_conns_per_host"], message);
        }
        for (name, _) in &http.headers.0 {
            check_header(check, &["headers", name], name);
        }
        http.validate(check);
    }
}

/// Refuses the headers of the protocol.
pub(super) fn check_header(check: &mut Check<'_>, path: &[&str], name: &str) {
    if RESERVED_HEADERS.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        check.error(path, format!("the header {name:?} belongs to the remote write protocol and cannot be set"));
    }
}
