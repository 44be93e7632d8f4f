//! How many spans a sampled span stands for.
//!
//! Samplers write their rejection threshold into `tracestate`
//! (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>): a span with
//! threshold T of 2^56 was kept with probability 1 - T / 2^56, so that it stands for the reciprocal. Whole
//! numbers are counted; the fraction is rounded at random, so that sums are right on average.

/// 2^56.
const ALL: u64 = 1 << 56;

/// What the last `tracestate` said: spans of one trace follow one another.
#[derive(Debug, Default)]
pub(super) struct Adjusting<'a> {
    trace_state: &'a [u8],
    /// The threshold; `None` without one.
    threshold: Option<u64>,
}

impl<'a> Adjusting<'a> {
    /// How many spans one with `trace_state` counts for, and whether a threshold says so. `random` gives
    /// numbers below its argument.
    #[inline]
    pub(super) fn count(&mut self, trace_state: &'a [u8], random: impl FnOnce(u64) -> u64) -> (u64, bool) {
        if trace_state.is_empty() {
            return (1, false);
        }
        if self.trace_state != trace_state {
            self.trace_state = trace_state;
            self.threshold = threshold(trace_state);
        }
        let Some(threshold) = self.threshold else { return (1, false) };
        let kept = ALL - threshold;
        let (whole, rest) = (ALL / kept, ALL % kept);
        (whole + u64::from(rest > 0 && random(kept) < rest), true)
    }
}

/// The rejection threshold in `ot=th:...`, below 2^56.
fn threshold(trace_state: &[u8]) -> Option<u64> {
    let members = trace_state.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let value = members.filter_map(|member| member.strip_prefix(b"ot=")).next()?;
    let digits = value.split(|&byte| byte == b';').find_map(|field| field.strip_prefix(b"th:"))?;
    if digits.is_empty() || digits.len() > 14 {
        return None;
    }
    let mut threshold = 0u64;
    for &digit in digits {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        threshold = threshold << 4 | u64::from(digit);
    }
    // Missing digits at the end are zeros.
    Some(threshold << (4 * (14 - digits.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_reciprocals() {
        let cases: [(&str, (u64, bool)); 9] = [
            ("", (1, false)),
            ("vendor=1", (1, false)),
            ("ot=rv:12345678901234", (1, false)),
            ("ot=th:0", (1, true)),
            ("ot=th:8", (2, true)),
            ("vendor=th:8, ot=rv:1;th:c", (4, true)),
            ("ot=th:fd", (85, true)),
            ("ot=th:x", (1, false)),
            ("ot=th:123456789012345", (1, false)),
        ];
        for (trace_state, expected) in cases {
            let mut adjusting = Adjusting::default();
            assert_eq!(adjusting.count(trace_state.as_bytes(), |below| below - 1), expected, "{trace_state}");
            assert_eq!(adjusting.count(trace_state.as_bytes(), |below| below - 1), expected, "again");
        }
        // 256/3 = 85 1/3: a third of the spans count one more.
        let mut adjusting = Adjusting::default();
        assert_eq!(adjusting.count(b"ot=th:fd", |_| 0), (86, true));
        // The least probability of all.
        assert_eq!(adjusting.count(b"ot=th:ffffffffffffff", |_| 0), (ALL, true));
    }

    #[test]
    fn rounding_is_right_on_average() {
        let mut adjusting = Adjusting::default();
        let total: u64 = (0..30_000).map(|_| adjusting.count(b"ot=th:fd", |n| rand::random_range(0..n)).0).sum();
        let expected = 30_000.0 * 256.0 / 3.0;
        assert!((total as f64 - expected).abs() < 500.0, "{total} where {expected} is expected");
    }
}
