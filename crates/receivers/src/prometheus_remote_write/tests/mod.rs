//! Senders, and a pipeline that records what arrives.

mod hostile;
mod mapping;
#[path = "../../../../../tests/support/prompb.rs"]
mod messages;
mod prompb;
mod protocol;
