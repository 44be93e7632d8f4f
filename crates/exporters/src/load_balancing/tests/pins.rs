use std::time::Duration;

use super::super::pins::{MOST, Pins};

const OVERLAP: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What is open stays with its owner for at least `overlap` and less than twice as long; what is new goes
/// where the ring says.
#[test]
fn open_keys_stay_and_new_ones_do_not() {
    let pins = Pins::new(OVERLAP);
    assert_eq!(pins.owner(at(100), b"open", 1, |_| true), 1);
    assert_eq!(pins.owner(at(109), b"open", 2, |_| true), 1);
    assert_eq!(pins.owner(at(109), b"new", 2, |_| true), 2);
    assert_eq!(pins.owner(at(119), b"open", 2, |_| true), 1, "the generation of 100 is old, not gone");
    assert_eq!(pins.owner(at(129), b"open", 2, |_| true), 2, "forgotten");
}

#[test]
fn whoever_has_left_keeps_nothing() {
    let pins = Pins::new(OVERLAP);
    assert_eq!(pins.owner(at(100), b"young", 1, |_| true), 1);
    assert_eq!(pins.owner(at(100), b"young", 2, |number| number != 1), 2);
    assert_eq!(pins.owner(at(100), b"young", 3, |_| true), 2, "and the new owner keeps it");
    assert_eq!(pins.owner(at(110), b"young", 4, |number| number != 2), 4);
    assert_eq!(pins.owner(at(110), b"young", 5, |_| true), 4);
}

#[test]
fn a_long_silence_forgets_everything() {
    let pins = Pins::new(OVERLAP);
    assert_eq!(pins.owner(at(100), b"key", 1, |_| true), 1);
    assert_eq!(pins.owner(at(1000), b"key", 2, |_| true), 2);
}

/// More keys than are remembered, each asked for a second time with another backend.
#[test]
fn memory_is_bounded() {
    let pins = Pins::new(OVERLAP);
    let keys = 24 * MOST;
    for number in 0..keys {
        assert_eq!(pins.owner(at(100), &number.to_le_bytes(), 1, |_| true), 1);
    }
    let is_known = |number: &usize| pins.owner(at(101), &number.to_le_bytes(), 2, |_| true) == 1;
    assert_eq!((0..keys).filter(is_known).count(), 16 * MOST, "as many as fit into 16 shards, and no more");
    assert!(is_known(&0), "those that came first");
}
