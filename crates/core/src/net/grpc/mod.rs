//! gRPC over hyper, by hand: unary calls, their framing and their statuses.

mod status;

pub use status::{encode_status, http_status, retry_delay, status_from_headers, with_retry};
