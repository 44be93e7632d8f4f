//! A started receiver, targets that it scrapes, and a pipeline that records what arrives.

mod config;
mod hostile;
mod receiver;
mod relabelling;
mod targets;
