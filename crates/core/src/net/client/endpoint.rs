//! Where a backend is.

use std::fmt;
use std::path::PathBuf;

use http::Uri;

/// The endpoint of a gRPC backend, in the Collector's spellings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcEndpoint {
    /// A name or an address; IPv6 addresses in brackets. `localhost` for a Unix socket, as gRPC has it.
    pub host: String,
    /// The port; 0 for a Unix socket.
    pub port: u16,
    /// It says `https://`: TLS even where the settings turn it off.
    pub is_https: bool,
    /// The path of a Unix socket, if it is one.
    pub socket: Option<PathBuf>,
}

impl GrpcEndpoint {
    /// Reads `host:port`, with `http://`, `https://`, `dns:///` or `passthrough:///` in front, or `unix:path`,
    /// `unix:///path`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("requires a non-empty \"endpoint\", for example backend:4317".to_owned());
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::socket(text, path);
        }
        let (is_https, rest) = strip_scheme(text)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !path.is_empty() {
            return Err(format!(
                "{text:?} has a path, and gRPC takes none; this looks like OTLP/HTTP: use the otlp_http exporter"
            ));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => (host, port),
            _ => return Err(format!("{text:?}: port missing; 4317 is usual: {authority}:4317")),
        };
        let port = port
            .parse::<u16>()
            .ok()
            .filter(|&port| port > 0)
            .ok_or_else(|| format!("{text:?}: invalid port {port:?}: it must be a number from 1 to 65535"))?;
        if host.is_empty() {
            return Err(format!("{text:?}: host missing; write host:{port}"));
        }
        if host.contains(':') && !host.starts_with('[') {
            return Err(format!("{text:?}: write an IPv6 address in brackets: [::1]:{port}"));
        }
        if format!("{host}:{port}").parse::<http::uri::Authority>().is_err() {
            return Err(format!("{text:?} is not a host and a port"));
        }
        Ok(Self { host: host.to_owned(), port, is_https, socket: None })
    }

    /// `text` is `unix:` and `path`, which may begin with an empty authority.
    fn socket(text: &str, path: &str) -> Result<Self, String> {
        let path = match path.strip_prefix("//") {
            Some(absolute) if absolute.starts_with('/') => absolute,
            Some(_) => return Err(format!("{text:?}: write unix:///path, with three slashes, or unix:path")),
            None => path,
        };
        if path.is_empty() || path.ends_with('/') {
            return Err(format!("{text:?} names no socket; write unix:///path"));
        }
        Ok(Self { host: "localhost".to_owned(), port: 0, is_https: false, socket: Some(path.into()) })
    }

    /// What requests say where they go to: `host:port`, or `localhost` over a Unix socket.
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.socket {
            Some(_) => self.host.clone(),
            None => format!("{}:{}", self.host, self.port),
        }
    }
}

/// For people: `host:port` or `unix:path`.
impl fmt::Display for GrpcEndpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => write!(out, "unix:{}", path.display()),
            None => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

fn strip_scheme(text: &str) -> Result<(bool, &str), String> {
    let Some((scheme, rest)) = text.split_once("://") else { return Ok((false, text)) };
    match scheme {
        "http" => Ok((false, rest)),
        "https" => Ok((true, rest)),
        // What stands before the third slash names a resolver; the system's is the only one here.
        "dns" | "passthrough" => match rest.split_once('/') {
            Some(("", target)) => Ok((false, target)),
            _ => Err(format!("{text:?}: write {scheme}:///host:port, with three slashes")),
        },
        _ => Err(format!("{text:?}: unsupported scheme {scheme:?}; write host:port")),
    }
}

/// The URL of an HTTP backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpEndpoint {
    /// The whole of it.
    pub uri: Uri,
    /// A name or an address; IPv6 addresses in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Its scheme is `https`.
    pub is_https: bool,
}

impl HttpEndpoint {
    /// Reads an `http://` or `https://` URL.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let uri: Uri = text.parse().map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("{text:?} must begin with http:// or https://")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| format!("{text:?} names no host"))?;
        let host = host.to_owned();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Ok(Self { host, port, is_https, uri })
    }
}
