//! What holds for every input: the body of the fuzz target, which ordinary tests run too. Panics are findings.

use nyquist_core::batch::Signal;
use prost::Message;

use super::decode::{Request, Version};
use super::infos::Infos;
use super::metadata::Families;
use super::translate::translate;

/// What a translation may come to in this test, in bytes.
const BUDGET: usize = 16 << 20;

/// Reads `data` as a request of both protocols. What comes of it is within the budget, is OTLP that the ingress
/// check takes, and has as many points as it says.
pub fn request(data: &[u8]) {
    for version in [Version::V1, Version::V2] {
        let Ok(request) = Request::new(version, data) else { continue };
        let (families, infos) = (Families::default(), Infos::default());
        families.learn(request.metadata());
        let Ok(outcome) = translate(&request, &families, &infos, BUDGET) else { continue };
        assert!(outcome.bytes <= BUDGET);
        assert!(outcome.points <= outcome.samples + outcome.histograms);
        let message = outcome.data.encode_to_vec();
        let checked = nyquist_core::wire::check(Signal::Metrics, &message);
        assert_eq!(checked.map(|checked| checked.items), Ok(outcome.points));
    }
}
