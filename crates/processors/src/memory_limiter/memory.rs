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
    fn used(&self) -> Result<u64, String> {
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
        Ok(self.cgroup_limit().map_or(host, |limit| limit.min(host)))
    }
}

impl Linux {
    /// The lowest limit of the process's control group and its ancestors, version 2 or 1.
    fn cgroup_limit(&self) -> Option<u64> {
        let mounts = self.root.join("sys/fs/cgroup");
        let groups = fs::read_to_string(self.root.join("proc/self/cgroup")).unwrap_or_default();
        let mut limits = Vec::new();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if controllers.is_empty() {
                limits.extend(limits_up(&mounts, group, "memory.max"));
            } else if controllers.split(',').any(|controller| controller == "memory") {
                limits.extend(limits_up(&mounts.join("memory"), group, "memory.limit_in_bytes"));
            }
        }
        limits.into_iter().min()
    }
}

/// The limits in `file` from `group` up to the mount point. In a container the group's own path
/// is often not visible, and the mount point holds the container's limit.
fn limits_up(mount: &Path, group: &str, file: &str) -> Vec<u64> {
    let relative = Path::new(group.trim_start_matches('/'));
    // No way out of the mount point, whatever the kernel says of other namespaces ("/../..").
    let relative = if relative.components().any(|part| part.as_os_str() == "..") { Path::new("") } else { relative };
    let limit = |directory: &Path| fs::read_to_string(mount.join(directory).join(file)).ok()?.trim().parse().ok();
    relative.ancestors().filter_map(limit).collect()
}

fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
