//! Vectors that the Collector's own ring gives: `newHashRing` and `endpointFor` of contrib v0.161 (consistent_hashing.go) were
//! run with these endpoints and keys.

use super::super::ring::{POSITIONS, Ring};

/// Case 120 of the corpus.
#[test]
fn three_endpoints_own_what_the_collector_says() {
    let endpoints = ["endpoint-1", "endpoint-2", "endpoint-3"];
    let ring = Ring::new(&endpoints);
    let cases = [
        ("00000000000000000000000000000001", "endpoint-1"),
        ("0102030405060708090a0b0c0d0e0f10", "endpoint-3"),
        ("4bf92f3577b34da6a3ce929d0e0e4736", "endpoint-2"),
        ("ffffffffffffffffffffffffffffffff", "endpoint-1"),
        ("5b8efff798038103d269b633813fc60c", "endpoint-3"),
        ("7bba9f33312b3dbb8b2c2c62bb7abe2d", "endpoint-1"),
    ];
    for (id, owner) in cases {
        let id = hex::decode(id).unwrap();
        assert_eq!(endpoints[ring.owner(&id)], owner, "{id:x?}");
    }
}

/// With 300 endpoints nearly every second place is taken, so that points have to give way to each other.
/// The owners of 10,000 keys, as one checksum.
#[test]
fn a_crowded_ring_is_equal_too() {
    let endpoints: Vec<String> = (0..300).map(|n| format!("10.0.{}.{}:4317", n / 256, n % 256)).collect();
    let ring = Ring::new(&endpoints);
    let mut owners = crc32fast::Hasher::new();
    for number in 0..10_000 {
        let key = format!("service.name=svc-{number}|");
        owners.update(endpoints[ring.owner(key.as_bytes())].as_bytes());
    }
    assert_eq!(owners.finalize(), 1_116_518_832);
}

#[test]
fn who_is_listed_first_does_not_matter_and_few_keys_move() {
    let forward = Ring::new(&["a:1", "b:1", "c:1"]);
    let backward = Ring::new(&["c:1", "b:1", "a:1"]);
    let without = Ring::new(&["a:1", "b:1"]);
    let mut moved = 0;
    for number in 0..10_000_u32 {
        let key = number.to_be_bytes();
        let owner = forward.owner(&key);
        assert_eq!(owner, 2 - backward.owner(&key));
        if owner == 2 {
            moved += 1;
        } else {
            assert_eq!(without.owner(&key), owner, "only the keys of the one that left move");
        }
    }
    assert!((2500..4200).contains(&moved), "{moved}");
}

#[test]
fn an_empty_ring_and_the_whole_circle() {
    assert_eq!(Ring::new::<&str>(&[]).owner(b"x"), 0);
    let ring = Ring::new(&["only"]);
    assert!((0..2000_u32).all(|number| ring.owner(&number.to_le_bytes()) == 0));
    assert!((0..2000_u32).all(|number| Ring::position(&number.to_le_bytes()) < POSITIONS));
}
