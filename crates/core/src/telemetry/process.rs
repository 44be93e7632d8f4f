//! The process itself as metrics: uptime, CPU, memory.

use std::fs;
use std::time::Duration;

use super::{Gauge, Telemetry};

/// `otelcol_process_*`, read from `/proc` when somebody looks.
pub struct ProcessMetrics {
    uptime: Gauge,
    cpu: Gauge,
    resident: Gauge,
}

impl ProcessMetrics {
    /// Registers the metrics.
    #[must_use]
    pub fn new(telemetry: &Telemetry) -> Self {
        let gauge = |name: &str, help: &str| telemetry.float_gauge(name, help, &[]);
        Self {
            uptime: gauge("otelcol_process_uptime", "Uptime of the process, in seconds."),
            cpu: gauge("otelcol_process_cpu_seconds", "CPU time spent by the process, user and system, in seconds."),
            resident: gauge("otelcol_process_memory_rss", "Resident memory of the process, in bytes."),
        }
    }

    /// Reads the current values.
    pub fn update(&self, uptime: Duration) {
        self.uptime.set(uptime.as_secs_f64());
        if let Some(seconds) = cpu_seconds() {
            self.cpu.set(seconds);
        }
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes as f64);
        }
    }
}

/// Resident memory of this process in bytes; `None` where `/proc` does not tell.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn cpu_seconds() -> Option<f64> {
    // Fields after the command name, which may hold spaces and parentheses; in clock ticks, of
    // which Linux reports 100 a second on every architecture.
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}
