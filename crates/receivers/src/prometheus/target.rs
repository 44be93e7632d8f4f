//! From an address and labels to a target.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::config::{Global, PromDuration, ScrapeConfig, check_address};
use super::labels::Labels;
use super::relabel::relabel;
use super::scrape::host_and_port;

/// Where a page is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Location {
    pub(crate) is_https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What stands in the `Host` header.
    pub(crate) authority: String,
    pub(crate) path_and_query: String,
}

impl Location {
    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    /// The location of `address`, which may lack its port.
    pub(crate) fn new(is_https: bool, address: &str, path_and_query: String) -> Result<Self, String> {
        let (host, port) = host_and_port(address);
        let port = match port {
            "" if is_https => 443,
            "" => 80,
            text => text.parse().map_err(|_| format!("{address:?} has no valid port"))?,
        };
        if host.is_empty() || address.parse::<http::uri::Authority>().is_err() {
            return Err(format!("{address:?} is not a host and a port"));
        }
        Ok(Self { is_https, host: host.to_owned(), port, authority: address.to_owned(), path_and_query })
    }

    /// The location that `target`, a `Location` header of a page here, points at.
    pub(crate) fn redirected(&self, target: &str) -> Result<Self, String> {
        let target = target.split('#').next().unwrap_or_default();
        let (is_https, rest) = match target.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) if !target.starts_with('/') => return Err(format!("redirected to {target:?}, which is not HTTP")),
            _ => match target.strip_prefix("//") {
                Some(rest) => (self.is_https, rest),
                None => {
                    let folder = self.path_and_query.split('?').next().unwrap_or_default();
                    let folder = folder.rsplit_once('/').map_or("", |(folder, _)| folder);
                    let path = if target.starts_with('/') { target.to_owned() } else { format!("{folder}/{target}") };
                    return Ok(Self { path_and_query: path, ..self.clone() });
                }
            },
        };
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (address, path) = rest.split_at(split);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Self::new(is_https, address, path)
    }
}

/// Something to scrape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// What its series are labelled with.
    pub(crate) labels: Labels<'static>,
    pub(crate) location: Location,
    pub(crate) interval: std::time::Duration,
    pub(crate) timeout: std::time::Duration,
}

/// The target at `address` of a group with `labels`; `None` if relabelling drops it.
pub(crate) fn target(
    config: &ScrapeConfig,
    global: &Global,
    address: &str,
    labels: &BTreeMap<String, String>,
) -> Result<Option<Target>, String> {
    let mut all: Labels<'_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    all.set("__address__", address);
    let interval = config.interval(global).to_string();
    let timeout = config.timeout(global).to_string();
    for (name, default) in [
        ("job", config.job_name.as_str()),
        ("__scrape_interval__", &interval),
        ("__scrape_timeout__", &timeout),
        ("__metrics_path__", &config.metrics_path),
        ("__scheme__", &config.scheme),
    ] {
        if all.get(name).is_empty() {
            all.set(name, default);
        }
    }
    for (name, values) in &config.params {
        if let Some(first) = values.first() {
            all.set(format!("__param_{name}"), first.as_str());
        }
    }
    if !relabel(&config.relabel_configs, &mut all) {
        return Ok(None);
    }
    let address = all.get("__address__").to_owned();
    if address.is_empty() {
        return Err("no address is left after relabelling".to_owned());
    }
    check_address(&address)?;
    let duration = |name: &str| {
        let parsed: Result<PromDuration, String> = all.get(name).parse();
        parsed.map_err(|error| format!("{name}: {error}"))
    };
    let (interval, timeout) = (duration("__scrape_interval__")?, duration("__scrape_timeout__")?);
    if interval.0.is_zero() || timeout.0.is_zero() || timeout > interval {
        return Err(format!("the scrape timeout {timeout} must be over 0 and within the interval {interval}"));
    }
    let is_https = match all.get("__scheme__") {
        "https" => true,
        "http" => false,
        other => return Err(format!("unknown scheme {other:?}")),
    };
    let location = Location::new(is_https, &address, path_and_query(config, &all))?;
    if all.get("instance").is_empty() {
        all.set("instance", address);
    }
    all.retain(|name| !name.starts_with("__"));
    Ok(Some(Target { labels: all.into_owned(), location, interval: interval.0, timeout: timeout.0 }))
}

fn path_and_query(config: &ScrapeConfig, labels: &Labels<'_>) -> String {
    let path = labels.get("__metrics_path__");
    let mut out = if path.starts_with('/') { String::new() } else { "/".to_owned() };
    escape(&mut out, path, |byte| b"/-_.~:@!$&'()*+,;=%".contains(&byte));
    // Labels say the first value of a parameter, and may bring parameters of their own.
    let mut params: BTreeMap<Cow<'_, str>, Vec<Cow<'_, str>>> = BTreeMap::new();
    for (name, values) in &config.params {
        params.insert(name.into(), values.iter().map(Cow::from).collect());
    }
    for (name, value) in labels.iter() {
        let Some(name) = name.strip_prefix("__param_") else { continue };
        let values = params.entry(Cow::Borrowed(name)).or_default();
        match values.first_mut() {
            Some(first) => *first = Cow::Borrowed(value),
            None => values.push(Cow::Borrowed(value)),
        }
    }
    let mut separator = '?';
    for (name, values) in &params {
        for value in values {
            out.push(separator);
            separator = '&';
            escape(&mut out, name, |byte| b"-_.~".contains(&byte));
            out.push('=');
            escape(&mut out, value, |byte| b"-_.~".contains(&byte));
        }
    }
    out
}

fn escape(out: &mut String, text: &str, is_plain: impl Fn(u8) -> bool) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}
