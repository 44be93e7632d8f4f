//! A real Prometheus that takes remote write.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::ports::free_port;
use super::process::Process;
use super::{eventually, http, peer};

/// A running Prometheus.
pub(crate) struct Prometheus {
    process: Process,
    pub(crate) port: u16,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts it and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::start_with("global: {}\n")
    }

    /// `start` with a configuration, in which `@PORT@` is its own port.
    pub(crate) fn start_with(config: &str) -> Self {
        let port = free_port();
        let text = config.replace("@PORT@", &port.to_string());
        let directory = tempfile::tempdir().expect("a temporary folder");
        let config = directory.path().join("prometheus.yml");
        std::fs::write(&config, text).expect("the configuration can be written");
        let process = Process::spawn(
            "prometheus",
            Command::new(peer("prometheus"))
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .arg("--web.enable-remote-write-receiver"),
        );
        let prometheus = Self { process, port, _directory: directory };
        eventually("Prometheus is ready", || match http::get(port, "/-/ready") {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.status.to_string()),
            Err(error) => Err(error),
        });
        prometheus
    }

    /// Where remote write goes.
    pub(crate) fn write_url(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/write", self.port)
    }

    /// The vector that `query` gives now: (labels, value).
    pub(crate) fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let path = format!("/api/v1/query?query={}", percent_encode(query));
        let json = http::get(self.port, &path).expect("Prometheus answers").json();
        assert_eq!(json["status"], "success", "{query}: {json}");
        let result = json["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {json}"));
        let read = |row: &Value| {
            let value = row["value"][1].as_str().and_then(|text| text.parse().ok());
            (row["metric"].clone(), value.unwrap_or_else(|| panic!("{query}: {row}")))
        };
        result.iter().map(read).collect()
    }

    /// Every float series that `query` gives at `time`, in seconds since 1970: labels as one text, and values.
    pub(crate) fn series_at(&self, query: &str, time: f64) -> BTreeMap<String, String> {
        let path = format!("/api/v1/query?query={}&time={time}", percent_encode(query));
        let json = http::get(self.port, &path).expect("Prometheus answers").json();
        assert_eq!(json["status"], "success", "{query}: {json}");
        let rows = json["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {json}"));
        let floats =
            rows.iter().filter_map(|row| Some((row["metric"].to_string(), row["value"][1].as_str()?.to_owned())));
        floats.collect()
    }

    /// `kill -9`.
    pub(crate) fn kill(self) {
        self.process.signal("KILL");
    }

    /// The single value of `query`; nothing when it gives no series or several.
    pub(crate) fn value(&self, query: &str) -> Option<f64> {
        match self.query(query).as_slice() {
            [(_, value)] => Some(*value),
            _ => None,
        }
    }

    /// Waits until `query` gives exactly `expected`.
    pub(crate) fn wait_for(&self, query: &str, expected: f64) {
        eventually(&format!("{query} = {expected}"), || match self.value(query) {
            Some(value) if (value - expected).abs() <= 1e-9 * expected.abs() => Ok(()),
            other => Err(other),
        });
    }
}

fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}
