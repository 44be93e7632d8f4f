use super::*;
use crate::config::from_str;

fn client_errors(yaml: &str) -> String {
    from_str::<ClientTlsConfig>(yaml).map_or_else(|faults| format!("{:?}", faults.errors), |_| String::new())
}

fn server_errors(yaml: &str) -> String {
    from_str::<ServerTlsConfig>(yaml).map_or_else(|faults| format!("{:?}", faults.errors), |_| String::new())
}

/// Fault B12.
#[test]
fn a_missing_half_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display();
    let key = client_errors(&format!("{{cert_file: '{path}'}}"));
    assert!(key.contains("its key is missing: set key_file"), "{key}");
    let cert = server_errors(&format!("{{key_file: '{path}'}}"));
    assert!(cert.contains("its certificate is missing: set cert_file"), "{cert}");
    assert!(server_errors("{}").contains("needs a certificate"));
    assert_eq!(client_errors("{}"), "");
}

/// Fault B13.
#[test]
fn a_missing_file_is_named_with_its_error() {
    let message = client_errors("{ca_file: /no/such/ca.pem}");
    assert!(message.contains("cannot open /no/such/ca.pem: No such file or directory (os error 2)"), "{message}");
    assert_eq!(client_errors("{insecure: true, cert_file: /no/such}"), "", "not used, not checked");
}

#[test]
fn versions_and_suites_are_checked() {
    assert!(client_errors("{min_version: '1.4'}").contains("unsupported TLS version"));
    assert!(client_errors("{max_version: '1.1'}").contains("unsupported TLS version"));
    assert!(client_errors("{min_version: '1.3', max_version: '1.2'}").contains("below min_version"));
    assert_eq!(client_errors("{min_version: '1.0'}"), "", "a warning");
    assert!(client_errors("{cipher_suites: [X]}").contains("TLS_AES_128_GCM_SHA256"));
    assert_eq!(client_errors("{cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]}"), "");
}

/// The first curve is the one that is offered first.
#[test]
fn curves_have_an_order() {
    let names = |text: &str| {
        let config = serde_yaml::from_str::<ClientTlsConfig>(text).unwrap();
        let provider = super::material::provider(&config.cipher_suites, &config.curve_preferences).unwrap();
        provider.kx_groups.iter().map(|group| format!("{:?}", group.name())).collect::<Vec<_>>()
    };
    assert_eq!(names("{curve_preferences: [P384, X25519]}"), ["secp384r1", "X25519"]);
    assert_eq!(names("{}"), ["X25519", "secp256r1", "secp384r1"]);
}

/// Guarantee: every key of the Collector's is known on both sides; what cannot be done is refused where it stands.
#[test]
fn what_rustls_cannot_do_is_refused_by_name() {
    for errors in [client_errors, server_errors] {
        let curves = errors("{curve_preferences: [P521]}");
        assert!(curves.contains("unsupported curve \\\"P521\\\"; there are X25519, P256 and P384"), "{curves}");
        assert!(curves.contains("curve_preferences"), "{curves}");
        let suites = errors("{include_insecure_cipher_suites: true}");
        assert!(!suites.contains("only secure cipher suites"), "a warning: {suites}");
        let tpm = errors("{tpm: {enabled: true, path: /dev/tpm0, auth: a, owner_auth: b}}");
        assert!(tpm.contains("Trusted Platform Module") && tpm.contains("tpm.enabled"), "{tpm}");
    }
    let fine = "{curve_preferences: [P384, X25519], include_insecure_cipher_suites: false, tpm: {enabled: false}}";
    assert_eq!(client_errors(fine), "");
    assert!(server_errors("{ca_file: /no/such}").contains("cannot open /no/such"));
}

#[test]
fn bad_material_is_an_error_not_a_panic() {
    let config = |yaml: &str| serde_yaml::from_str::<ClientTlsConfig>(yaml).unwrap();
    for yaml in ["{ca_pem: nonsense}", "{cert_pem: a, key_pem: b}", "{cert_pem: a}", "{ca_file: /no/such}"] {
        assert!(ClientTls::new(&config(yaml), &["h2"]).is_err(), "{yaml}");
    }
    let tls = ClientTls::new(&config("{insecure_skip_verify: true}"), &["h2"]).unwrap();
    assert!(tls.server_name("[::1]").is_ok() && tls.server_name("b").is_ok());
    assert!(tls.server_name("a b").is_err());
}
