//! Where a component's log is: what extensions offer, and how directories are named.

use async_trait::async_trait;

use super::{Error, Log, Recovered};
use crate::batch::Signal;
use crate::config::ComponentId;

/// Who uses a log: names its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `exporter`, `processor`.
    pub role: &'static str,
    /// The component's type: the one name of its factory, not an alias, so that another spelling in
    /// the configuration finds the same log.
    pub kind: String,
    /// The component's name; empty if it has none.
    pub name: String,
    /// What tells the instances of one component apart: a signal, a pipeline; empty if there is one.
    pub part: String,
    /// The version of the storage format (docs/storage-format.md) whose builds can read the payloads: 1, unless they have
    /// changed since.
    pub format: u32,
}

impl Owner {
    /// The exporter `kind/name` of `signal`.
    #[must_use]
    pub fn exporter(kind: &str, name: &str, signal: Signal) -> Self {
        let (kind, name, part) = (kind.to_owned(), name.to_owned(), signal.name().to_owned());
        Self { role: "exporter", kind, name, part, format: 1 }
    }

    /// The processor `kind/name` of `pipeline`.
    #[must_use]
    pub fn processor(kind: &str, name: &str, pipeline: &ComponentId, format: u32) -> Self {
        let (kind, name, part) = (kind.to_owned(), name.to_owned(), pipeline.to_string());
        Self { role: "processor", kind, name, part, format }
    }

    /// The name of its directory: `exporter_otlp_main_traces`. Different owners have different ones.
    #[must_use]
    pub fn directory_name(&self) -> String {
        // File systems take 255 bytes.
        const LONGEST: usize = 120;
        let mut name = String::new();
        for part in [self.role, &self.kind, &self.name, &self.part] {
            if !name.is_empty() {
                name.push('_');
            }
            for byte in part.bytes() {
                // An underscore inside a part must not look like one between parts.
                if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' {
                    name.push(char::from(byte));
                } else {
                    name.push_str(&format!("~{byte:02x}"));
                }
            }
        }
        if name.len() > LONGEST {
            // FNV-1a: the same for ever.
            let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, step);
            name.truncate(LONGEST);
            name.push_str(&format!("~{hash:016x}"));
        }
        name
    }
}

/// What an extension offers that gives components a place to keep things.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Opens the log of `owner`. Called in a component's `start`, once; extensions have started by
    /// then.
    ///
    /// # Errors
    /// If there is no such place, or another process uses it.
    async fn open(&self, owner: &Owner) -> Result<(Log, Recovered), Error>;
}
