//! Free ports. They come from below the range that the kernel gives to outgoing connections, so
//! that nothing takes one between the look and the use.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const LAST: u16 = 31_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A TCP port on the loopback interface that nobody listens on.
pub(crate) fn free_port() -> u16 {
    // Test binaries that run at the same time start at different places.
    let offset = u16::try_from(std::process::id() * 37 % u32::from(LAST - FIRST)).expect("fits");
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (offset.wrapping_add(step)) % (LAST - FIRST);
        let free = TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("0.0.0.0", port)).is_ok();
        if free {
            return port;
        }
    }
}
