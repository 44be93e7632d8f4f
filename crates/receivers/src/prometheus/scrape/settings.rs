//! What the reading of a target's pages needs to know.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use nyquist_core::proto::common::v1::KeyValue;

use crate::prometheus::config::RelabelConfig;
use crate::prometheus::exposition::protobuf::Natives;
use crate::prometheus::labels::{Labels, NAME};
use crate::prometheus::model::text;

/// Limits of a page; 0 for none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// Samples after relabelling.
    pub(crate) samples: u64,
    /// Labels of a sample, its name among them.
    pub(crate) labels: u64,
    /// Bytes of a label's name.
    pub(crate) label_name: u64,
    /// Bytes of a label's value.
    pub(crate) label_value: u64,
}

impl Limits {
    /// Checks the `nth` sample of a page.
    pub(super) fn check(&self, labels: &Labels<'_>, nth: u64) -> Result<(), String> {
        let is_over = |value: usize, limit: u64| limit > 0 && value as u64 > limit;
        if self.samples > 0 && nth > self.samples {
            return Err(format!("sample limit exceeded: there are more than {} samples (sample_limit)", self.samples));
        }
        let metric = labels.get(NAME);
        if is_over(labels.len(), self.labels) {
            let (count, limit) = (labels.len(), self.labels);
            return Err(format!("label_limit exceeded: {metric} has {count} labels, and the limit is {limit}"));
        }
        if self.label_name == 0 && self.label_value == 0 {
            return Ok(());
        }
        for (name, value) in labels.iter() {
            if is_over(name.len(), self.label_name) {
                let (length, limit) = (name.len(), self.label_name);
                return Err(format!(
                    "label_name_length_limit exceeded: a label of {metric} has a name of {length} bytes, and the limit is {limit}"
                ));
            }
            if is_over(value.len(), self.label_value) {
                let (length, limit) = (value.len(), self.label_value);
                return Err(format!(
                    "label_value_length_limit exceeded: the label {name} of {metric} has {length} bytes, and the limit is {limit}"
                ));
            }
        }
        Ok(())
    }
}

/// How the samples of one target are read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// The target's labels.
    pub(crate) labels: Labels<'static>,
    /// `http` or `https`.
    pub(crate) scheme: String,
    pub(crate) external: Arc<[(String, String)]>,
    pub(crate) metric_relabel: Arc<[RelabelConfig]>,
    pub(crate) honor_labels: bool,
    pub(crate) honor_timestamps: bool,
    pub(crate) track_timestamps: bool,
    pub(crate) trim_suffixes: bool,
    pub(crate) limits: Limits,
    /// What to do with native histograms.
    pub(crate) natives: Natives,
}

impl Settings {
    /// Adds the target's labels to those of a sample.
    pub(super) fn join<'s: 'a, 'a>(&'s self, labels: &mut Labels<'a>) {
        for (name, value) in self.labels.iter() {
            if self.honor_labels {
                if labels.get(name).is_empty() {
                    labels.set(name, value);
                }
            } else {
                if let Some(exposed) = labels.remove(name) {
                    let mut exported = format!("exported_{name}");
                    while !labels.get(&exported).is_empty() || !self.labels.get(&exported).is_empty() {
                        exported.insert_str(0, "exported_");
                    }
                    labels.set(Cow::Owned(exported), exposed);
                }
                labels.set(name, value);
            }
        }
    }

    /// Adds `external_labels` that are not there.
    pub(super) fn add_external<'s: 'a, 'a>(&'s self, labels: &mut Labels<'a>) {
        for (name, value) in self.external.iter() {
            if labels.get(name).is_empty() {
                labels.set(name.as_str(), value.as_str());
            }
        }
    }

    /// The attributes of the resource of `job` and `instance`.
    pub(super) fn resource(&self, job: &str, instance: &str) -> Vec<KeyValue> {
        let mut attributes = Vec::new();
        let mut add = |key: &str, value: &str| {
            if !value.is_empty() {
                attributes.push(text(key, value));
            }
        };
        add("service.name", job);
        add("service.instance.id", instance);
        let (host, port) = host_and_port(instance);
        if is_telling(host) {
            add("server.address", host);
        }
        add("server.port", port);
        add("url.scheme", &self.scheme);
        attributes
    }
}

/// Host and port of `host:port`; the brackets of an IPv6 address come off.
pub(crate) fn host_and_port(address: &str) -> (&str, &str) {
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() => (host, port),
        _ => (address, ""),
    };
    // An IPv6 address without brackets has no port.
    let (host, port) = if host.contains(':') && !host.starts_with('[') { (address, "") } else { (host, port) };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// Whether `host` tells hosts apart: loopback and wildcard addresses are the same everywhere.
fn is_telling(host: &str) -> bool {
    let is_special = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    host != "localhost" && !host.parse::<IpAddr>().is_ok_and(is_special)
}
