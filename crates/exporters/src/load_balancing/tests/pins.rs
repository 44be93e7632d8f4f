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
    let mut pins = Pins::new(OVERLAP);
    pins.tick(at(100));
    assert_eq!(pins.owner(b"open", 1, |_| true), 1);
    pins.tick(at(109));
    assert_eq!(pins.owner(b"open", 2, |_| true), 1);
    assert_eq!(pins.owner(b"new", 2, |_| true), 2);
    pins.tick(at(119));
    assert_eq!(pins.owner(b"open", 2, |_| true), 1, "the generation of 100 is old, not gone");
    pins.tick(at(129));
    assert_eq!(pins.owner(b"open", 2, |_| true), 2, "forgotten");
}

#[test]
fn whoever_has_left_keeps_nothing() {
    let mut pins = Pins::new(OVERLAP);
    pins.tick(at(100));
    assert_eq!(pins.owner(b"young", 1, |_| true), 1);
    assert_eq!(pins.owner(b"young", 2, |number| number != 1), 2);
    assert_eq!(pins.owner(b"young", 3, |_| true), 2, "and the new owner keeps it");
    pins.tick(at(110));
    assert_eq!(pins.owner(b"young", 4, |number| number != 2), 4);
    assert_eq!(pins.owner(b"young", 5, |_| true), 4);
}

#[test]
fn a_long_silence_forgets_everything() {
    let mut pins = Pins::new(OVERLAP);
    pins.tick(at(100));
    assert_eq!(pins.owner(b"key", 1, |_| true), 1);
    pins.tick(at(1000));
    assert_eq!(pins.owner(b"key", 2, |_| true), 2);
}

#[test]
fn memory_is_bounded() {
    let mut pins = Pins::new(OVERLAP);
    pins.tick(at(100));
    for number in 0..MOST + 10 {
        assert_eq!(pins.owner(&number.to_le_bytes(), 1, |_| true), 1);
    }
    assert_eq!(pins.owner(&MOST.to_le_bytes(), 2, |_| true), 2, "not remembered");
    assert_eq!(pins.owner(&0_usize.to_le_bytes(), 2, |_| true), 1);
}
