//! Who sends a request, and what is kept of its headers beside the data.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderMap};
use nyquist_core::batch::Metadata;
use nyquist_core::component::{Identity, ServerAuth};
use nyquist_core::net::server::Peer;

/// How long somebody with the wrong credentials waits for the refusal: a client that is set up wrongly does not mind,
/// and one that tries passwords, or only wants to keep the gateway busy, gets ten answers a second for each request that
/// it may have open.
const REFUSAL_DELAY: Duration = Duration::from_millis(100);

/// The sender of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Client {
    /// Its address; `None` on a Unix socket.
    pub(crate) address: Option<IpAddr>,
    /// Who it is, if the receiver asks.
    pub(crate) identity: Identity,
}

impl Client {
    /// Who sends a request with these `headers`; `extensions` are those of the request. Who is not let in hears so
    /// after [`REFUSAL_DELAY`].
    ///
    /// # Errors
    /// What to answer to somebody whom `auth` does not let in.
    pub(crate) async fn identify(
        auth: Option<&Arc<dyn ServerAuth>>,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Self, String> {
        let identity = match auth {
            Some(auth) => match auth.admit(headers).await {
                Ok(identity) => identity,
                Err(refusal) => {
                    tokio::time::sleep(REFUSAL_DELAY).await;
                    return Err(refusal);
                }
            },
            None => Identity::default(),
        };
        Ok(Self { address: Self::address(extensions), identity })
    }

    /// Where a request with these `extensions` comes from; `None` on a Unix socket.
    pub(crate) fn address(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<Peer>().map(|peer| peer.0)
    }
}

/// `include_metadata`.
#[derive(Debug)]
pub(crate) struct Keep {
    /// These headers and no others, in lower case; all, if it is empty.
    only: Vec<String>,
    /// What is left out of "all".
    secrets: Vec<String>,
}

impl Keep {
    /// What to keep according to `include_metadata` and `metadata_keys`; `None` for nothing.
    pub(crate) fn new(include: bool, keys: &[String], auth: Option<&Arc<dyn ServerAuth>>) -> Option<Self> {
        let mut secrets: Vec<String> = Metadata::SECRETS.map(str::to_owned).into();
        secrets.extend(auth.into_iter().flat_map(|auth| auth.secret_headers()));
        let only = keys.iter().map(|key| key.to_ascii_lowercase()).collect();
        include.then_some(Self { only, secrets })
    }

    /// What is kept of a request.
    pub(crate) fn metadata(&self, headers: &HeaderMap, identity: &Identity) -> Arc<Metadata> {
        let kept = headers.iter().filter(|(name, _)| self.keeps(name.as_str()));
        let mut headers: Vec<_> = kept
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let known = identity.attributes.iter();
        headers.extend(known.map(|(name, value)| (format!("{}{name}", Metadata::AUTH), value.clone())));
        Arc::new(Metadata { headers })
    }

    fn keeps(&self, name: &str) -> bool {
        if self.only.is_empty() {
            return !self.secrets.iter().any(|secret| secret == name);
        }
        self.only.iter().any(|only| only == name)
    }
}
