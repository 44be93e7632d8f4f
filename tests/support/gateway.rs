//! The gateway under test: the real binary with a configuration file and ports of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::metrics::Samples;
use super::otlp_client::OtlpClient;
use super::ports::free_port;
use super::process::Process;
use super::{eventually, http};

/// A running gateway. Dropping it kills it; `terminate` asks it to leave.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) grpc_port: u16,
    pub(crate) http_port: u16,
    pub(crate) metrics_port: u16,
    pub(crate) health_port: u16,
    pub(crate) directory: TempDir,
}

/// Own metrics and health on ports of the test's choice: appended to every configuration's
/// `service:` and `extensions:`. The placeholders are filled in by `Gateway::start`.
pub(crate) const TELEMETRY: &str = "
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
";

impl Gateway {
    /// Starts the gateway with `config`, in which `@GRPC@`, `@HTTP@`, `@METRICS@` and `@HEALTH@`
    /// stand for ports and `@DIR@` for a folder that lives as long as the gateway. Returns when it
    /// is ready.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// `start` with environment variables.
    pub(crate) fn start_with(config: &str, environment: &[(&str, &str)]) -> Self {
        let mut gateway = Self::spawn(config, environment, &[]);
        gateway.wait_until_ready(config.contains("@HEALTH@"));
        gateway
    }

    /// `start` of a gateway whose health port does not answer at `/`.
    pub(crate) fn start_without_health(config: &str) -> Self {
        let mut gateway = Self::spawn(config, &[], &[]);
        gateway.wait_until_ready(false);
        gateway
    }

    /// `start` with arguments of the command line.
    pub(crate) fn start_with_args(config: &str, args: &[&str]) -> Self {
        let mut gateway = Self::spawn(config, &[], args);
        gateway.wait_until_ready(config.contains("@HEALTH@"));
        gateway
    }

    /// Starts the gateway with a configuration with which it ends by itself; gives its exit code and
    /// output.
    pub(crate) fn fail_to_start(config: &str) -> (Option<i32>, String) {
        Self::fail_to_start_with(config, &[])
    }

    /// `fail_to_start` with environment variables.
    pub(crate) fn fail_to_start_with(config: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut gateway = Self::spawn(config, environment, &[]);
        let status = gateway.process.wait(Duration::from_secs(60));
        (status.code(), gateway.process.output())
    }

    fn spawn(config: &str, environment: &[(&str, &str)], args: &[&str]) -> Self {
        let [grpc_port, http_port, metrics_port, health_port] = [0; 4].map(|_| free_port());
        let directory = tempfile::tempdir().expect("a temporary folder");
        let path = directory.path().join("gateway.yaml");
        let config = config
            .replace("@GRPC@", &grpc_port.to_string())
            .replace("@HTTP@", &http_port.to_string())
            .replace("@METRICS@", &metrics_port.to_string())
            .replace("@HEALTH@", &health_port.to_string())
            .replace("@DIR@", &directory.path().display().to_string());
        std::fs::write(&path, &config).expect("the configuration can be written");
        let mut command = Command::new(binary());
        command.arg("--config").arg(&path).args(args).current_dir(directory.path()).envs(environment.iter().copied());
        let process = Process::spawn("nyquist", &mut command);
        Self { process, grpc_port, http_port, metrics_port, health_port, directory }
    }

    fn wait_until_ready(&mut self, has_health: bool) {
        eventually("the gateway is ready", || {
            if let Some(status) = self.process.exited() {
                panic!("the gateway ended with {status} instead of starting:\n{}", self.process.output());
            }
            if has_health {
                return self.health().and_then(|status| if status == 200 { Ok(()) } else { Err(status.to_string()) });
            }
            let address = ("127.0.0.1", self.grpc_port);
            std::net::TcpStream::connect(address).map(drop).map_err(|error| error.to_string())
        });
    }

    /// The status of the health endpoint.
    pub(crate) fn health(&self) -> Result<u16, String> {
        http::get(self.health_port, "/").map(|answer| answer.status)
    }

    /// Its own metrics.
    pub(crate) fn metrics(&self) -> Samples {
        let answer = http::get(self.metrics_port, "/metrics").expect("the gateway serves its metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Samples::parse(&answer.text())
    }

    /// A connection to its OTLP/gRPC port.
    pub(crate) fn client(&self) -> OtlpClient {
        OtlpClient::connect(self.grpc_port)
    }

    /// Sends SIGTERM and waits for a clean end.
    pub(crate) fn terminate(mut self) -> Ended {
        self.process.signal("TERM");
        let status = self.process.wait(Duration::from_secs(60));
        Ended { code: status.code(), output: self.process.output() }
    }

    /// `kill -9`; returns when the process is gone.
    pub(crate) fn kill(mut self) {
        self.process.signal("KILL");
        self.process.wait(Duration::from_secs(60));
    }

    /// Fails if the process has ended.
    pub(crate) fn assert_alive(&mut self) {
        if let Some(status) = self.process.exited() {
            panic!("the gateway ended with {status}:\n{}", self.process.output());
        }
    }
}

/// How the gateway ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
}

/// The binary under test. `NYQUIST_BIN` names another one: a release build, or a Collector, to see
/// whether a test asks for more than the Collector gives.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("NYQUIST_BIN").map_or_else(|| env!("CARGO_BIN_EXE_nyquist").into(), PathBuf::from)
}
