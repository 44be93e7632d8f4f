//! Networks.

use std::net::IpAddr;

use crate::eval::EvalError;
use crate::value::Value;

/// Does the address lie in one of the networks, each written as `10.0.0.0/8`?
pub(super) fn is_in_cidr(target: &Value<'_>, networks: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let address = parsed(super::text::of(target)?).ok_or(EvalError::plain("this is not an IP address"))?;
    let Value::List(networks) = networks else {
        return Err(EvalError::new("a list of networks is expected", networks));
    };
    for network in networks.iter() {
        let network = network.as_text().and_then(network_of);
        let (base, bits) = network.ok_or(EvalError::plain("a network is written as \"10.0.0.0/8\""))?;
        if shares_prefix(base, address, bits) {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn parsed(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn network_of(text: &[u8]) -> Option<(IpAddr, u32)> {
    let (base, bits) = std::str::from_utf8(text).ok()?.split_once('/')?;
    let (base, bits): (IpAddr, u32) = (base.parse().ok()?, bits.parse().ok()?);
    (bits <= if base.is_ipv4() { 32 } else { 128 }).then_some((base, bits))
}

fn shares_prefix(base: IpAddr, address: IpAddr, bits: u32) -> bool {
    match (base, address.to_canonical()) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            (base.to_bits() ^ address.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            (base.to_bits() ^ address.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}
