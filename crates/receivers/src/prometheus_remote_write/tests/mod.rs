//! Senders, and a pipeline that records what arrives.

mod hostile;
mod mapping;
mod prompb;
mod protocol;
