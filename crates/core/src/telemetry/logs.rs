//! The gateway's own logs: structured, to standard error.

use tracing_subscriber::EnvFilter;

/// How log lines are written (`service.telemetry.logs.encoding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// For people.
    #[default]
    Console,
    /// One JSON object a line.
    Json,
}

/// What the HTTP/2 library says of its peers: a client could have it write a line for each frame of 17 bytes. The server
/// has lines of its own for what matters, one in a while.
const OTHERS: &str = "h2=error";

/// Starts logging for the whole process. `level` is `debug`, `info`, `warn` or `error`; the
/// environment variable `NYQUIST_LOG` (a `tracing` filter) overrides it. A second call does
/// nothing.
pub fn init(level: &str, encoding: Encoding) {
    let filter = std::env::var("NYQUIST_LOG").ok().and_then(|filter| EnvFilter::try_new(filter).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(format!("{level},{OTHERS}")));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let _ = match encoding {
        Encoding::Console => builder.with_target(false).try_init(),
        Encoding::Json => builder.json().flatten_event(true).try_init(),
    };
}
