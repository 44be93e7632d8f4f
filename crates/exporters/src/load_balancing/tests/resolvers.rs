use std::net::IpAddr;
use std::time::Duration;

use super::super::resolver::{Dns, File, Resolver, endpoint, system_lookup};

#[test]
fn addresses_are_spelled_as_the_collector_does() {
    let cases = [
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", "4317", "10.1.2.3:4317"),
        ("2001:db8:0:0::1", "", "[2001:db8::1]"),
        ("2001:db8::1", "55690", "[2001:db8::1]:55690"),
        ("::ffff:10.1.2.3", "1", "10.1.2.3:1"),
    ];
    for (address, port, spelled) in cases {
        assert_eq!(endpoint(address.parse::<IpAddr>().unwrap(), port), spelled);
    }
}

#[tokio::test]
async fn a_name_is_resolved_and_an_unknown_one_is_named() {
    let dns = |hostname: &str| Dns {
        hostname: hostname.to_owned(),
        port: "4317".to_owned(),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        lookup: system_lookup(),
    };
    let found = dns("localhost").resolve().await.unwrap();
    assert!(found.contains(&"127.0.0.1:4317".to_owned()), "{found:?}");
    let error = dns("no-such-host.invalid").resolve().await.unwrap_err();
    assert!(error.contains("no-such-host.invalid"), "{error}");
}

#[tokio::test]
async fn a_file_is_read_with_comments_and_empty_lines() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backends");
    let file = File { path: path.clone(), interval: Duration::from_secs(1) };
    let error = file.resolve().await.unwrap_err();
    assert!(error.contains("backends"), "{error}");
    std::fs::write(&path, "# ours\n a:4317 \n\nb:4317\n").unwrap();
    assert_eq!(file.resolve().await.unwrap(), ["a:4317", "b:4317"]);
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(file.resolve().await.is_err(), "too long");
}
