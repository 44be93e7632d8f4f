//! A real Prometheus that takes remote write.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::ports::free_port;
use super::process::Process;
use super::{eventually, http, peer, unix_nanos};

/// A running Prometheus.
pub(crate) struct Prometheus {
    process: Process,
    pub(crate) port: u16,
    directory: TempDir,
    flags: Vec<String>,
}

impl Prometheus {
    /// Starts it and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::start_with("global: {}\n", &[])
    }

    /// `start` with a configuration, in which `@PORT@` is its own port, and further arguments.
    pub(crate) fn start_with(configuration: &str, arguments: &[&str]) -> Self {
        let port = free_port();
        let text = configuration.replace("@PORT@", &port.to_string());
        let directory = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(directory.path().join("prometheus.yml"), text).expect("the configuration is written");
        let flags: Vec<String> = arguments.iter().map(|flag| (*flag).to_owned()).collect();
        let process = spawn(port, &directory, &flags);
        let prometheus = Self { process, port, directory, flags };
        prometheus.wait_until_ready();
        prometheus
    }

    /// Ends it (`signal`: `TERM` or `KILL`) and starts it again, where it was and with its data.
    pub(crate) fn restart(&mut self, signal: &str) {
        self.process.signal(signal);
        self.process.wait(Duration::from_secs(60));
        self.process = spawn(self.port, &self.directory, &self.flags);
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        eventually("Prometheus is ready", || match http::get(self.port, "/-/ready") {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.status.to_string()),
            Err(error) => Err(error),
        });
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

    /// The exemplars of the series that `query` selects, of the last hour: their labels and values.
    pub(crate) fn exemplars(&self, query: &str) -> Vec<(Value, f64)> {
        let now = unix_nanos() / 1_000_000_000;
        let (start, end) = ((now - 3600).to_string(), (now + 3600).to_string());
        let data = self.data("/api/v1/query_exemplars", &[("query", query), ("start", &start), ("end", &end)]);
        let series = data.as_array().cloned().unwrap_or_default();
        let exemplars = series.iter().filter_map(|series| series["exemplars"].as_array()).flatten();
        let read = |row: &Value| {
            let value = row["value"].as_str().and_then(|text| text.parse().ok());
            (row["labels"].clone(), value.unwrap_or_else(|| panic!("{query}: {row}")))
        };
        exemplars.map(read).collect()
    }

    /// The `data` of a query API: `path` with its parameters, whose values are encoded here.
    pub(crate) fn data(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let parameters: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
        let json =
            http::get(self.port, &format!("{path}?{}", parameters.join("&"))).expect("Prometheus answers").json();
        assert_eq!(json["status"], "success", "{path}: {json}");
        json["data"].clone()
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

fn spawn(port: u16, directory: &TempDir, flags: &[String]) -> Process {
    let path = |name: &str| directory.path().join(name).display().to_string();
    Process::spawn(
        "prometheus",
        Command::new(peer("prometheus"))
            .arg(format!("--config.file={}", path("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", path("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-remote-write-receiver")
            .args(flags),
    )
}

fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}
