//! Tokens that are good, and every way in which they may not be.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use nyquist_core::clock::ManualClock;
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::Telemetry;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;
use tempfile::NamedTempFile;

use super::*;

/// When the tests take place, in seconds since 1970.
const NOW: u64 = 1_700_000_000;

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

struct Signer {
    id: &'static str,
    key: Ed25519KeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id, key: Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap() }
    }

    fn public(&self) -> Value {
        let x = encode(self.key.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.id, "use": "sig", "alg": "EdDSA"})
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({"alg": "EdDSA", "kid": self.id}), claims)
    }

    fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", encode(signature.as_ref()))
    }
}

fn write(file: &NamedTempFile, keys: &[Value]) {
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).unwrap();
}

async fn start(yaml: &str, now: u64) -> Arc<dyn ServerAuth> {
    let (config, _) = from_str::<OidcConfig>(yaml).unwrap();
    let clock = ManualClock::new(now * 1_000_000_000);
    let context = ExtensionContext { id: ComponentId::of("oidc"), telemetry: Telemetry::new(), clock: clock.clone() };
    let extension = config.build(context).unwrap();
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    let host = Host { runtimes: Runtimes::current(), clock, telemetry: Telemetry::new(), fatal };
    extension.start(&host).await.unwrap();
    extension.server_auth().unwrap()
}

fn present(auth: &dyn ServerAuth, value: &str) -> Result<Identity, String> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::try_from(value).unwrap());
    auth.identify(&headers)
}

fn good() -> Value {
    json!({"iss": "https://id", "aud": ["other", "telemetry"], "exp": NOW + 60, "sub": "alice", "tenant": "blue",
           "groups": ["a", "b"], "nested": {"x": 1}})
}

/// Good claims with some of them changed; null takes one away.
fn with(changes: Value) -> Value {
    let mut claims = good();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

#[tokio::test]
async fn a_signed_token_lets_in_and_tells_who() {
    let (signer, file) = (Signer::new("one"), NamedTempFile::new().unwrap());
    write(&file, &[json!({"kty": "oct", "k": "c2VjcmV0"}), json!(7), signer.public()]);
    let path = file.path().display();
    let yaml = format!(
        "{{providers: [{{issuer_url: 'https://id', audience: telemetry, public_keys_file: '{path}', groups_claim: groups}}]}}"
    );
    let auth = start(&yaml, NOW).await;
    let token = signer.sign(&good());
    // The second time it is remembered.
    for scheme in ["Bearer", "bearer"] {
        let identity = present(&*auth, &format!("{scheme} {token}")).unwrap();
        assert_eq!(identity.get("subject"), Some("alice"));
        assert_eq!(identity.get("membership"), Some("a,b"));
        assert_eq!(identity.get("claims.tenant"), Some("blue"));
        assert_eq!(identity.get("claims.nested"), None);
    }
    assert_eq!(auth.secret_headers(), ["authorization"]);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_keeps_out() {
    let (signer, stranger) = (Signer::new("one"), Signer::new("one"));
    let file = NamedTempFile::new().unwrap();
    write(&file, &[signer.public()]);
    let path = file.path().display();
    let auth =
        start(&format!("{{issuer_url: 'https://id', audience: telemetry, public_keys_file: '{path}'}}"), NOW).await;
    let bearer = |token: String| format!("Bearer {token}");
    let none = |claims: &Value| format!("{}.{}.", encode(br#"{"alg":"none"}"#), encode(claims.to_string().as_bytes()));
    let signed = signer.sign(&good());
    let (head, signature) = signed.rsplit_once('.').unwrap();
    let other_claims = format!(
        "{}.{}.{signature}",
        head.split_once('.').unwrap().0,
        encode(with(json!({"sub": "root"})).to_string().as_bytes())
    );
    let cases = [
        (signed.clone(), "invalid authorization header format"),
        (format!("Basic {signed}"), "invalid authorization header format"),
        (bearer("a.b".to_owned()), "not a signed JSON Web Token"),
        (bearer("....".to_owned()), "not a signed JSON Web Token"),
        (bearer(head.to_owned()), "not a signed JSON Web Token"),
        (bearer(signer.sign_as(&json!({"alg": "EdDSA", "crit": ["x"]}), &good())), "not a signed JSON Web Token"),
        (bearer(signer.sign(&with(json!({"iss": "https://other"})))), "no OIDC provider configured for the issuer"),
        (bearer(signer.sign(&with(json!({"iss": null})))), "no OIDC provider configured for the issuer"),
        (bearer(stranger.sign(&good())), "failed to verify"),
        (bearer(other_claims), "failed to verify"),
        (bearer(none(&good())), "failed to verify"),
        (bearer(signer.sign_as(&json!({"alg": "HS256"}), &good())), "failed to verify"),
        (bearer(signer.sign_as(&json!({"alg": "EdDSA", "kid": "two"}), &good())), "failed to verify"),
        (bearer(signer.sign(&with(json!({"exp": NOW})))), "expired"),
        (bearer(signer.sign(&with(json!({"exp": null})))), "no exp claim"),
        (bearer(signer.sign(&with(json!({"exp": "9999999999"})))), "not a number"),
        (bearer(signer.sign(&with(json!({"nbf": NOW + 301})))), "not valid yet"),
        (bearer(signer.sign(&with(json!({"nbf": "soon"})))), "not a number"),
        (bearer(signer.sign(&with(json!({"aud": "other"})))), "another audience"),
        (bearer(signer.sign(&with(json!({"aud": null})))), "another audience"),
    ];
    for (value, message) in cases {
        let refusal = present(&*auth, &value).unwrap_err();
        assert!(refusal.contains(message), "{refusal} instead of {message}");
    }
    assert!(auth.authenticate(&HeaderMap::new()).unwrap_err().contains("no authorization header"));
    assert!(present(&*auth, &bearer(signer.sign(&with(json!({"nbf": NOW + 299}))))).is_ok());
}

/// Guarantee: a key that is taken out of the file lets nobody in any more, not even with a token that was
/// remembered; a file that breaks changes nothing.
#[tokio::test(start_paused = true)]
async fn exchanged_keys_are_used_without_a_restart() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let file = NamedTempFile::new().unwrap();
    write(&file, &[old.public()]);
    let path = file.path().display();
    let auth =
        start(&format!("{{issuer_url: 'https://id', ignore_audience: true, public_keys_file: '{path}'}}"), NOW).await;
    let (with_old, with_new) = (format!("Bearer {}", old.sign(&good())), format!("Bearer {}", new.sign(&good())));
    assert!(present(&*auth, &with_old).is_ok() && present(&*auth, &with_new).is_err());
    std::fs::write(file.path(), "{").unwrap();
    tokio::time::advance(INTERVAL).await;
    assert!(present(&*auth, &with_old).is_ok() && present(&*auth, &with_new).is_err());
    write(&file, &[new.public()]);
    tokio::time::advance(INTERVAL).await;
    assert!(present(&*auth, &with_old).is_err() && present(&*auth, &with_new).is_ok());
}

/// The examples of RFC 7515, A.2 (RS256) and A.3 (ES256).
#[tokio::test]
async fn the_examples_of_the_specification_verify() {
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let rs256 = format!(
        "eyJhbGciOiJSUzI1NiJ9.{claims}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
    );
    let es256 = format!(
        "eyJhbGciOiJFUzI1NiJ9.{claims}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    );
    let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let file = NamedTempFile::new().unwrap();
    write(&file, &[json!({"kty": "RSA", "n": n, "e": "AQAB"}), json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})]);
    let path = file.path().display();
    let yaml = format!("{{issuer_url: joe, ignore_audience: true, public_keys_file: '{path}'}}");
    let auth = start(&yaml, 1_300_819_379).await;
    for token in [rs256, es256] {
        let identity = present(&*auth, &format!("Bearer {token}")).unwrap();
        assert_eq!(identity.get("claims.http://example.com/is_root"), Some("true"));
        // The other algorithm's name on the same signature is no key's algorithm.
        let other = token.replacen("eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJFUzI1NiJ9", 1);
        assert!(other == token || present(&*auth, &format!("Bearer {other}")).is_err());
    }
}

#[tokio::test]
async fn an_elliptic_key_made_here_verifies() {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
    let point = key.public_key().as_ref();
    let public = json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])});
    let keys = Keys::parse(json!({ "keys": [public] }).to_string().as_bytes()).unwrap();
    let signature = key.sign(&random, b"a.b").unwrap();
    assert!(keys.verify("ES256", None, b"a.b", signature.as_ref()));
    assert!(!keys.verify("ES256", None, b"a.c", signature.as_ref()));
    assert!(!keys.verify("ES384", None, b"a.b", signature.as_ref()));
}

#[test]
fn faults_are_named() {
    let file = NamedTempFile::new().unwrap();
    write(&file, &[json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}), json!({"kty": "oct", "k": "YQ"})]);
    let weak = format!("{{issuer_url: a, audience: b, public_keys_file: '{}'}}", file.path().display());
    let errors = |yaml: &str| format!("{:?}", from_str::<OidcConfig>(yaml).unwrap_err().errors);
    for (yaml, message) in [
        ("{}", "no issuer of tokens"),
        ("{issuer_url: a}", "no audience"),
        ("{audience: a}", "no issuer URL"),
        ("{issuer_url: a, audience: b}", "save its JSON Web Key Set"),
        ("{issuer_url: a, audience: b, public_keys_file: /no/such}", "No such file"),
        ("{providers: [{issuer_url: a}, {issuer_url: a}]}", "duplicate issuer URL found: a"),
        ("{issuer_url: a, providers: [{issuer_url: a}]}", "duplicate issuer URL found: a"),
        ("{attribute: 'a b', issuer_url: a}", "not the name of a header"),
        (&weak, "holds no key that can be used"),
    ] {
        let found = errors(yaml);
        assert!(found.contains(message), "{yaml}: {found}");
    }
    assert!(Keys::parse(b"[]").unwrap_err().contains("no JSON Web Key Set"));
}

/// Guarantee: a key that is none is named where it stands, outside of `providers` with all keys that may stand there.
#[test]
fn unknown_keys_are_named_where_they_stand() {
    let faults = from_str::<OidcConfig>("{issuer: a, providers: [{audiences: b}]}").unwrap_err().errors;
    for (path, hint) in [("issuer", "issuer_url"), ("providers[0].audiences", "audience")] {
        let fault = faults.iter().find(|fault| fault.path == path).unwrap_or_else(|| panic!("{path}: {faults:?}"));
        assert!(format!("{fault:?}").contains(hint), "{fault:?}");
    }
}
