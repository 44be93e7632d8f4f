//! Proxies from the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`, in upper or lower case, read as Go does.
//!
//! Every connection goes through a `CONNECT` tunnel, plaintext ones too: TLS and HTTP/2 are spoken with the backend
//! itself, and the proxy sees no more than its name.

use std::fmt;
use std::io;
use std::net::IpAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most that a proxy may say before the tunnel begins.
const MAX_ANSWER: usize = 8 << 10;

/// A proxy that connections to one backend go through.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}:{}", self.host, self.port)
    }
}

impl Proxy {
    /// The environment's proxy for the backend at `host` and `port`, or `None` for the direct way. `secure`
    /// looks at `HTTPS_PROXY`, otherwise at `HTTP_PROXY`; gRPC is always `secure`, as with the Collector.
    ///
    /// # Errors
    /// If the variable holds nothing that can be used.
    pub fn from_env(secure: bool, host: &str, port: u16) -> Result<Option<Self>, String> {
        Self::choose(|name| std::env::var(name).ok(), secure, host, port)
    }

    pub(super) fn choose(
        variable: impl Fn(&str) -> Option<String>,
        secure: bool,
        host: &str,
        port: u16,
    ) -> Result<Option<Self>, String> {
        let value = |name: &str| {
            let both = [name.to_owned(), name.to_ascii_lowercase()];
            both.into_iter()
                .find_map(|name| variable(&name).filter(|value| !value.is_empty()).map(|value| (name, value)))
        };
        let Some((name, url)) = value(if secure { "HTTPS_PROXY" } else { "HTTP_PROXY" }) else { return Ok(None) };
        let excluded = value("NO_PROXY").map(|(_, list)| list).unwrap_or_default();
        if is_excluded(&excluded, host.trim_start_matches('[').trim_end_matches(']'), port) {
            return Ok(None);
        }
        Self::parse(&url).map(Some).map_err(|reason| format!("the environment variable {name} {reason}"))
    }

    /// `http://user:password@host:port`; scheme, user and port may be left out.
    ///
    /// # Errors
    /// If that names no proxy that can be used; the text may follow the name of a setting.
    pub fn parse(url: &str) -> Result<Self, String> {
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        // The URL may hold a password: it is not repeated in errors.
        let uri: Uri = full.parse().map_err(|_| "is not a URL; write http://host:port".to_owned())?;
        if uri.scheme_str() != Some("http") {
            let scheme = uri.scheme_str().unwrap_or_default();
            return Err(format!("names a proxy of the kind {scheme}; only http:// proxies are supported"));
        }
        let authority = uri.authority().ok_or("names no host; write http://host:port")?;
        let (login, place) = authority.as_str().rsplit_once('@').unzip();
        let place = place.unwrap_or(authority.as_str());
        let has_port = !place.ends_with(']') && place.contains(':');
        if authority.host().is_empty() || (has_port && authority.port_u16().is_none()) {
            return Err("names no host, or a port that is none; write http://host:port".to_owned());
        }
        Ok(Self {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authorization: login.map(|login| format!("Basic {}", BASE64_STANDARD.encode(decoded(login)))),
        })
    }

    /// Asks for a tunnel to `host` and `port` on a connection to the proxy.
    pub(super) async fn tunnel<S>(&self, stream: &mut S, host: &str, port: u16) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let failed = |what: &str| io::Error::other(format!("the proxy {self} {what}"));
        // Byte by byte: what follows the empty line is the backend's.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= MAX_ANSWER {
                return Err(failed("talks too much"));
            }
            let mut byte = [0];
            if stream.read(&mut byte).await? == 0 {
                return Err(failed("closed the connection instead of opening a tunnel"));
            }
            answer.extend(byte);
        }
        let text = String::from_utf8_lossy(&answer);
        let status = text.lines().next().unwrap_or_default();
        match status.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..)) {
            Some(rest) if rest.starts_with('2') => Ok(()),
            Some("") | None => Err(failed("does not answer like a proxy")),
            Some(rest) => Err(failed(&format!("refused a tunnel to {target}: {}", rest.escape_debug()))),
        }
    }
}

/// Is the backend one of `list`: `*`, a name (its subdomains too), `.name` (these only), an address, a network;
/// names and addresses with or without a port? This machine always is.
fn is_excluded(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.to_canonical().is_loopback()) {
        return true;
    }
    list.split(',').map(|entry| entry.trim().to_ascii_lowercase()).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = entry.split_once('/') {
            let parsed = network.parse().ok().zip(bits.parse().ok());
            return address.zip(parsed).is_some_and(|(address, (network, bits))| contains(network, bits, address));
        }
        if let (Some(address), Ok(excluded)) = (address, entry.trim_matches(['[', ']']).parse::<IpAddr>()) {
            return address == excluded;
        }
        let (name, only) = match entry.rsplit_once(':').map(|(name, only)| (name, only.parse::<u16>())) {
            Some((name, Ok(only))) => (name, Some(only)),
            _ => (entry.as_str(), None),
        };
        if only.is_some_and(|only| only != port) {
            return false;
        }
        let name = name.trim_start_matches('*').trim_matches(['[', ']']);
        match name.strip_prefix('.') {
            Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
            None => host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        }
    })
}

fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if bits <= 32 => {
            (network.to_bits() ^ address.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if bits <= 128 => {
            (network.to_bits() ^ address.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// `text` without percent escapes.
fn decoded(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match (part.get(..2).and_then(|digits| hex::decode(digits).ok()), part.get(2..)) {
            (Some(byte), Some(rest)) => {
                decoded.extend(byte);
                decoded.extend(rest.as_bytes());
            }
            _ => {
                decoded.push(b'%');
                decoded.extend(part.as_bytes());
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(variables: &[(&str, &str)], secure: bool, host: &str, port: u16) -> Result<Option<String>, String> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Ok(Proxy::choose(find, secure, host, port)?.map(|proxy| proxy.to_string()))
    }

    #[test]
    fn the_environment_names_the_proxy() {
        let both = [("HTTPS_PROXY", "http://secure:3128"), ("http_proxy", "plain")];
        assert_eq!(choose(&both, true, "b", 443), Ok(Some("http://secure:3128".to_owned())));
        assert_eq!(choose(&both, false, "b", 80), Ok(Some("http://plain:80".to_owned())));
        assert_eq!(choose(&[], true, "b", 443), Ok(None));
        assert_eq!(choose(&[("HTTP_PROXY", "")], false, "b", 80), Ok(None));
        for (url, expected) in
            [("socks5://p:1", "only http:// proxies"), ("http://", "is not a URL"), ("a b", "is not a URL")]
        {
            let error = choose(&[("HTTP_PROXY", url)], false, "b", 80).expect_err(url);
            assert!(error.starts_with("the environment variable HTTP_PROXY") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn passwords_are_sent_and_not_shown() {
        let proxy = Proxy::parse("http://us%65r:p%40ss@proxy:3128").expect("a proxy");
        assert_eq!(proxy.authorization, Some(format!("Basic {}", BASE64_STANDARD.encode("user:p@ss"))));
        assert_eq!(format!("{proxy:?} {proxy}"), "http://proxy:3128 http://proxy:3128");
        assert!(!Proxy::parse("http://u:secret@:x").expect_err("no port").contains("secret"));
    }

    #[test]
    fn what_is_excluded_goes_the_direct_way() {
        let list = "example.com, .only.org,*.star.net,10.0.0.0/8,192.168.1.7, here:4317,[fd00::]/8,fd00::/8,bad/x";
        for host in ["example.com", "a.EXAMPLE.com", "a.only.org", "a.star.net", "10.1.2.3", "192.168.1.7", "fd12::1"] {
            assert!(is_excluded(list, host, 1), "{host}");
        }
        assert!(
            is_excluded(list, "here", 4317)
                && is_excluded("*", "anything", 1)
                && is_excluded("0.0.0.0/0", "9.9.9.9", 1)
        );
        for host in ["notexample.com", "only.org", "11.0.0.1", "192.168.1.8", "here", "fe80::1", "com"] {
            assert!(!is_excluded(list, host, 1), "{host}");
        }
        for host in ["localhost", "127.0.0.1", "::1"] {
            assert!(is_excluded("", host, 1), "{host}: this machine");
        }
    }

    /// Guarantee: whatever a proxy answers, the tunnel begins behind its empty line, or there is an error.
    #[tokio::test]
    async fn a_tunnel_or_an_error() {
        let talk = async |answer: &'static str| {
            let (mut ours, mut theirs) = tokio::io::duplex(64 << 10);
            let proxy = tokio::spawn(async move {
                let mut request = vec![0; 1024];
                let read = theirs.read(&mut request).await.expect("a request");
                let _ = theirs.write_all(answer.as_bytes()).await;
                drop(theirs);
                String::from_utf8_lossy(&request[..read]).into_owned()
            });
            let result = Proxy::parse("u:p@proxy:1").expect("a proxy").tunnel(&mut ours, "fd00::1", 4317).await;
            let request = proxy.await.expect("no panic");
            assert!(request.starts_with("CONNECT [fd00::1]:4317 HTTP/1.1\r\nHost: [fd00::1]:4317\r\n"), "{request}");
            assert!(request.contains("\r\nProxy-Authorization: Basic dTpw\r\n") && request.ends_with("\r\n\r\n"));
            let mut rest = String::new();
            let read = async { ours.take(100).read_to_string(&mut rest).await };
            result.map_err(|error| error.to_string())?;
            read.await.map(|_| rest).map_err(|error| error.to_string())
        };
        assert_eq!(talk("HTTP/1.1 200 Connection established\r\nx: y\r\n\r\nbackend").await.as_deref(), Ok("backend"));
        assert_eq!(talk("HTTP/1.0 200\r\n\r\n").await.as_deref(), Ok(""));
        let cases = [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "refused a tunnel to [fd00::1]:4317: 407 Proxy"),
            ("HTTP/1.1 200 OK\r\n", "closed the connection"),
            ("SSH-2.0-x\r\n\r\n", "does not answer like a proxy"),
            ("HTTP/1.\u{e9}\r\n\r\n", "does not answer like a proxy"),
        ];
        for (answer, expected) in cases {
            let error = talk(answer).await.expect_err(answer);
            assert!(error.contains(expected), "{error}");
        }
        let endless: &'static str = Box::leak("HTTP/1.1 200 OK\r\nx: yyyy".repeat(1000).into_boxed_str());
        assert!(talk(endless).await.expect_err("endless").contains("talks too much"));
    }
}
