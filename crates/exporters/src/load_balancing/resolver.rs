//! Where the list of backends comes from.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

/// Finds the backends.
#[async_trait]
pub(super) trait Resolver: Send + Sync {
    /// Its name in YAML and in metrics.
    fn name(&self) -> &'static str;

    /// How often to ask again; `None` if the answer never changes.
    fn interval(&self) -> Option<Duration>;

    /// The endpoints, in any order.
    ///
    /// # Errors
    /// Why there is no answer now; the list that was known stays in force.
    async fn resolve(&self) -> Result<Vec<String>, String>;
}

/// `resolver.static`.
pub(super) struct Static(pub(super) Vec<String>);

#[async_trait]
impl Resolver for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    fn interval(&self) -> Option<Duration> {
        None
    }

    async fn resolve(&self) -> Result<Vec<String>, String> {
        Ok(self.0.clone())
    }
}

/// Asks for the addresses of a name.
pub(super) type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync;

/// `resolver.dns`: every address of a name is a backend.
pub(super) struct Dns {
    pub(super) hostname: String,
    /// Empty: endpoints have none, which stands for 4317.
    pub(super) port: String,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) lookup: Box<Lookup>,
}

/// Asks the system, as it is configured.
pub(super) fn system_lookup() -> Box<Lookup> {
    async fn ask(name: String) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
    Box::new(|name| Box::pin(ask(name)))
}

#[async_trait]
impl Resolver for Dns {
    fn name(&self) -> &'static str {
        "dns"
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }

    async fn resolve(&self) -> Result<Vec<String>, String> {
        let hostname = &self.hostname;
        let found = timeout(self.timeout, (self.lookup)(hostname.clone()))
            .await
            .map_err(|_| format!("no answer for {hostname:?} within {:?} (resolver.dns.timeout)", self.timeout))?
            .map_err(|error| format!("cannot resolve {hostname:?}: {error}"))?;
        Ok(found.into_iter().map(|address| endpoint(address, &self.port)).collect())
    }
}

/// As the Collector writes it: the ring depends on every letter.
pub(super) fn endpoint(address: IpAddr, port: &str) -> String {
    let host = match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    if port.is_empty() { host } else { format!("{host}:{port}") }
}

/// `resolver.file`: one endpoint on each line.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) interval: Duration,
}

/// A longer file is no list of endpoints.
const LONGEST_FILE: u64 = 1 << 20;

#[async_trait]
impl Resolver for File {
    fn name(&self) -> &'static str {
        "file"
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }

    async fn resolve(&self) -> Result<Vec<String>, String> {
        let failed = |error: std::io::Error| format!("cannot read {}: {error}", self.path.display());
        let length = tokio::fs::metadata(&self.path).await.map_err(failed)?.len();
        if length > LONGEST_FILE {
            return Err(format!("{} is {length} bytes long: this is no list of endpoints", self.path.display()));
        }
        let text = tokio::fs::read_to_string(&self.path).await.map_err(failed)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(lines.map(str::to_owned).collect())
    }
}
