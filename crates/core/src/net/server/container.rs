//! Is this process in a container?

use std::path::Path;

/// Whether the process seems to run in a container: then an endpoint on the loopback interface
/// can be reached by nobody outside, which is the most frequent reason for "no data arrives".
#[must_use]
pub fn in_container() -> bool {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return true;
    }
    if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
        return true;
    }
    let cgroup = std::fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    ["docker", "kubepods", "containerd", "libpod"].iter().any(|mark| cgroup.contains(mark))
}
