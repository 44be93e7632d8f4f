//! How much memory the process uses, and may use.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the limiter reads memory use from.
pub(crate) trait MemorySource: Send + Sync {
    /// Bytes that the process keeps resident and cannot give back.
    fn used(&self) -> Result<u64, String>;

    /// Bytes that the process may use.
    fn total(&self) -> Result<u64, String>;
}

/// Linux: `/proc` and the control group.
#[derive(Debug, Clone)]
pub(crate) struct Linux {
    /// `/`, or a directory of recorded files in tests.
    pub(crate) root: PathBuf,
}

impl Default for Linux {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl MemorySource for Linux {
    /// What the kernel charges the process's control group with and could not take back, if the process is alone in
    /// it: that is what a container is killed for. It has what no process owns too: buffers of sockets, kernel memory.
    /// Else the process's own anonymous memory.
    fn used(&self) -> Result<u64, String> {
        if let Some(used) = self.group().and_then(|group| group.used_alone(std::process::id())) {
            return Ok(used);
        }
        let path = self.root.join("proc/self/status");
        let status = read(&path)?;
        // Anonymous memory: pages of files (the binary itself) can be dropped by the kernel.
        kib_field(&status, "RssAnon:")
            .or_else(|| kib_field(&status, "VmRSS:"))
            .ok_or_else(|| format!("{}: no RssAnon or VmRSS line", path.display()))
    }

    fn total(&self) -> Result<u64, String> {
        let path = self.root.join("proc/meminfo");
        let host = kib_field(&read(&path)?, "MemTotal:").ok_or_else(|| format!("{}: no MemTotal", path.display()))?;
        Ok(self.group().and_then(|group| group.limit()).map_or(host, |limit| limit.min(host)))
    }
}

impl Linux {
    /// The control group that counts the process's memory.
    fn group(&self) -> Option<Group> {
        let mounts = self.root.join("sys/fs/cgroup");
        let groups = fs::read_to_string(self.root.join("proc/self/cgroup")).ok()?;
        let mut unified = None;
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if controllers.split(',').any(|controller| controller == "memory") {
                // Where version 1 has the memory controller, version 2 has not.
                return Some(Group { mount: mounts.join("memory"), path: relative(path), names: &V1 });
            }
            if controllers.is_empty() {
                unified = Some(Group { mount: mounts.clone(), path: relative(path), names: &V2 });
            }
        }
        unified
    }
}

/// `path` below the mount point: no way out of it, whatever the kernel says of other namespaces (`/../..`).
fn relative(path: &str) -> PathBuf {
    let relative = Path::new(path.trim_start_matches('/'));
    if relative.components().any(|part| part.as_os_str() == "..") { PathBuf::new() } else { relative.to_owned() }
}

/// What the files of a control group are called.
struct Names {
    limit: &'static str,
    usage: &'static str,
    /// In `memory.stat`: pages of files, which the kernel takes back before it kills.
    files: [&'static str; 2],
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    files: ["total_inactive_file", "total_active_file"],
};
const V2: Names = Names { limit: "memory.max", usage: "memory.current", files: ["inactive_file", "active_file"] };

/// A control group. In a container its own path is often not visible, and the mount point is the container's.
struct Group {
    mount: PathBuf,
    path: PathBuf,
    names: &'static Names,
}

impl Group {
    /// The lowest limit from the group up to the mount point.
    fn limit(&self) -> Option<u64> {
        self.path.ancestors().filter_map(|path| number(&self.mount.join(path).join(self.names.limit))).min()
    }

    /// Bytes that the group uses and that the kernel could not take back; `None` if other processes than `process` are
    /// in it, or it does not say.
    fn used_alone(&self, process: u32) -> Option<u64> {
        let own = self.mount.join(&self.path);
        let directory = if own.join("cgroup.procs").exists() { own } else { self.mount.clone() };
        let processes = fs::read_to_string(directory.join("cgroup.procs")).ok()?;
        let mut processes = processes.lines().map(str::trim).filter(|line| !line.is_empty());
        if processes.next()?.parse() != Ok(process) || processes.next().is_some() {
            return None;
        }
        let usage = number(&directory.join(self.names.usage))?;
        let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
        let of = |name: &str| {
            let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| value.trim().parse::<u64>().ok())
        };
        let files = self.names.files.iter().map(|name| of(name)).sum::<Option<u64>>()?;
        Some(usage.saturating_sub(files))
    }
}

/// The number in a file, which may also say `max`.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
