//! Bytes that no client writes: fields in any order, twice, in pieces, unknown; requests that were
//! damaged; noise. What the check at the receivers lets through is sampled as any other request,
//! and nothing panics.

use std::time::Duration;

use nyquist_core::batch::Signal;
use nyquist_core::proto::trace::v1::TracesData;
use nyquist_core::wire::fuzzing::{Entropy, generate, mutate};
use nyquist_core::wire::{check, join_split_values, without_invalid_ids};
use prost::Message;
use prost::bytes::Bytes;

use crate::generate;
use crate::model::same_spans;
use crate::random::{Random, seeds};
use crate::rig::{Rig, strip};
use crate::sampler::Reference;
use crate::spans::Placed;

#[test]
fn odd_and_damaged_requests_are_sampled_as_their_meaning() {
    let seeds = seeds(300);
    let mut spans = 0;
    for seed in seeds.clone() {
        spans += one_case(seed);
    }
    assert!(seeds.end - seeds.start < 300 || spans > 2_000, "{spans} spans were kept: the cases show something");
}

/// Requests of one kind through a random configuration. Gives how many spans were kept.
fn one_case(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut settings = generate::settings(&mut random);
    settings.record = "none";
    settings.drop_pending = false;
    let context = format!("NYQUIST_SEED={seed}\n{:#}", settings.json());
    let rig = Rig::new(&settings.json());
    let mut reference = Reference::new(settings);
    for _ in 0..20 {
        let Some(request) = received(odd_request(&mut random)) else {
            continue;
        };
        rig.insert_bytes(&request, Duration::ZERO);
        reference.insert(&TracesData::decode(request).expect("it was checked"), 0);
    }
    rig.decide_all(Duration::from_secs(1), false);
    reference.shut_down();
    let kept: Vec<_> = rig.take(Duration::from_secs(1)).into_iter().map(strip).collect();
    same_spans(&kept, &reference, &context);
    kept.len()
}

/// What a receiver makes of a request; none if it refuses it.
fn received(bytes: Vec<u8>) -> Option<Bytes> {
    let checked = check(Signal::Traces, &bytes).ok()?;
    let mut request = Bytes::from(bytes);
    if checked.split_values {
        request = join_split_values(Signal::Traces, &request);
    }
    if checked.invalid_ids > 0 {
        request = without_invalid_ids(&request).0;
    }
    Some(request)
}

fn odd_request(random: &mut Random) -> Vec<u8> {
    match random.below(6) {
        0 => noise(random, 200),
        1 | 2 => generate(Signal::Traces, &mut Entropy::new(&noise(random, 3_000))),
        3 => {
            let request = generate(Signal::Traces, &mut Entropy::new(&noise(random, 3_000)));
            mutate(request, &mut Entropy::new(&noise(random, 16)))
        }
        4 => usual_request(random),
        _ => mutate(usual_request(random), &mut Entropy::new(&noise(random, 16))),
    }
}

fn usual_request(random: &mut Random) -> Vec<u8> {
    let places = generate::places(random);
    let id = generate::id(random);
    let count = random.between(1, 10);
    let spans = (0..count).map(|_| Placed { span: generate::span(random, id), ..random.pick(&places) }).collect();
    generate::request(random, spans).encode_to_vec()
}

fn noise(random: &mut Random, at_most: usize) -> Vec<u8> {
    (0..random.below(at_most)).map(|_| random.number() as u8).collect()
}
