//! Requests that a parser must accept though no client writes them: fields in any order, written
//! twice, in pieces, empty, unknown, packed or not, with lengths longer than needed.

use crate::batch::Signal;
use crate::wire::cursor::{Fields, Value, put_tag, put_varint};

/// Decisions, taken from bytes; zeros when there are no more.
pub struct Entropy<'a>(&'a [u8]);

impl<'a> Entropy<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                byte
            }
            None => 0,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        let high = if bound > 256 { usize::from(self.byte()) << 8 } else { 0 };
        (high | usize::from(self.byte())) % bound.max(1)
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn one_in(&mut self, odds: u8) -> bool {
        self.byte() % odds == odds - 1
    }
}

#[derive(Clone, Copy)]
enum Type {
    Varint,
    Fixed64,
    Fixed32,
    Text,
    Id,
    Fixed64s,
    Varints,
    Message(&'static Schema),
}

/// The fields of a message. Its last fields are the ones that most matter: they come more often.
struct Schema(&'static [(u32, Type)]);

use Type::{Fixed32, Fixed64, Fixed64s, Id, Message, Text, Varint, Varints};

static VALUE: Schema = Schema(&[
    (8, Varint),
    (7, Id),
    (4, Fixed64),
    (2, Varint),
    (3, Varint),
    (6, Message(&LIST)),
    (5, Message(&ARRAY)),
    (1, Text),
]);
static ARRAY: Schema = Schema(&[(1, Message(&VALUE))]);
static LIST: Schema = Schema(&[(1, Message(&PAIR))]);
static PAIR: Schema = Schema(&[(3, Varint), (1, Text), (2, Message(&VALUE))]);
static ENTITY: Schema = Schema(&[(1, Text), (2, Text), (3, Text), (4, Text)]);
static RESOURCE: Schema = Schema(&[(2, Varint), (3, Message(&ENTITY)), (1, Message(&PAIR))]);
static SCOPE: Schema = Schema(&[(4, Varint), (1, Text), (2, Text), (3, Message(&PAIR))]);

static EVENT: Schema = Schema(&[(1, Fixed64), (2, Text), (4, Varint), (3, Message(&PAIR))]);
static LINK: Schema = Schema(&[(1, Id), (2, Id), (3, Text), (5, Varint), (6, Fixed32), (4, Message(&PAIR))]);
static STATUS: Schema = Schema(&[(2, Text), (3, Varint)]);
static SPAN: Schema = Schema(&[
    (3, Text),
    (4, Id),
    (6, Varint),
    (7, Fixed64),
    (8, Fixed64),
    (10, Varint),
    (11, Message(&EVENT)),
    (12, Varint),
    (13, Message(&LINK)),
    (14, Varint),
    (15, Message(&STATUS)),
    (16, Fixed32),
    (5, Text),
    (9, Message(&PAIR)),
    (2, Id),
    (1, Id),
]);
static SCOPE_SPANS: Schema = Schema(&[(3, Text), (1, Message(&SCOPE)), (2, Message(&SPAN))]);
static RESOURCE_SPANS: Schema = Schema(&[(3, Text), (1, Message(&RESOURCE)), (2, Message(&SCOPE_SPANS))]);
static TRACES: Schema = Schema(&[(1, Message(&RESOURCE_SPANS))]);

static RECORD: Schema = Schema(&[
    (1, Fixed64),
    (11, Fixed64),
    (2, Varint),
    (3, Text),
    (7, Varint),
    (8, Fixed32),
    (9, Id),
    (10, Id),
    (12, Text),
    (6, Message(&PAIR)),
    (5, Message(&VALUE)),
]);
static SCOPE_LOGS: Schema = Schema(&[(3, Text), (1, Message(&SCOPE)), (2, Message(&RECORD))]);
static RESOURCE_LOGS: Schema = Schema(&[(3, Text), (1, Message(&RESOURCE)), (2, Message(&SCOPE_LOGS))]);
static LOGS: Schema = Schema(&[(1, Message(&RESOURCE_LOGS))]);

static EXEMPLAR: Schema = Schema(&[(2, Fixed64), (3, Fixed64), (6, Fixed64), (4, Id), (5, Id), (7, Message(&PAIR))]);
static NUMBER: Schema = Schema(&[
    (2, Fixed64),
    (3, Fixed64),
    (8, Varint),
    (5, Message(&EXEMPLAR)),
    (4, Fixed64),
    (6, Fixed64),
    (7, Message(&PAIR)),
]);
static HISTOGRAM_POINT: Schema = Schema(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (8, Message(&EXEMPLAR)),
    (10, Varint),
    (11, Fixed64),
    (12, Fixed64),
    (9, Message(&PAIR)),
    (6, Fixed64s),
    (7, Fixed64s),
]);
static BUCKETS: Schema = Schema(&[(1, Varint), (2, Varints)]);
static EXPONENTIAL_POINT: Schema = Schema(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, Varint),
    (7, Fixed64),
    (10, Varint),
    (11, Message(&EXEMPLAR)),
    (12, Fixed64),
    (13, Fixed64),
    (14, Fixed64),
    (1, Message(&PAIR)),
    (8, Message(&BUCKETS)),
    (9, Message(&BUCKETS)),
]);
static QUANTILE: Schema = Schema(&[(1, Fixed64), (2, Fixed64)]);
static SUMMARY_POINT: Schema = Schema(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (8, Varint),
    (7, Message(&PAIR)),
    (6, Message(&QUANTILE)),
]);
static GAUGE: Schema = Schema(&[(1, Message(&NUMBER))]);
static SUM: Schema = Schema(&[(2, Varint), (3, Varint), (1, Message(&NUMBER))]);
static HISTOGRAM: Schema = Schema(&[(2, Varint), (1, Message(&HISTOGRAM_POINT))]);
static EXPONENTIAL: Schema = Schema(&[(2, Varint), (1, Message(&EXPONENTIAL_POINT))]);
static SUMMARY: Schema = Schema(&[(1, Message(&SUMMARY_POINT))]);
static METRIC: Schema = Schema(&[
    (1, Text),
    (2, Text),
    (3, Text),
    (12, Message(&PAIR)),
    (11, Message(&SUMMARY)),
    (10, Message(&EXPONENTIAL)),
    (9, Message(&HISTOGRAM)),
    (5, Message(&GAUGE)),
    (7, Message(&SUM)),
]);
static SCOPE_METRICS: Schema = Schema(&[(3, Text), (1, Message(&SCOPE)), (2, Message(&METRIC))]);
static RESOURCE_METRICS: Schema = Schema(&[(3, Text), (1, Message(&RESOURCE)), (2, Message(&SCOPE_METRICS))]);
static METRICS: Schema = Schema(&[(1, Message(&RESOURCE_METRICS))]);

/// A request that prost decodes, unless values in it nest too deep.
pub fn generate(signal: Signal, entropy: &mut Entropy<'_>) -> Vec<u8> {
    let schema = schema(signal);
    let mut out = Vec::new();
    // Enough to use up the entropy, of which an empty message takes one byte.
    while !entropy.0.is_empty() {
        message(schema, entropy, 0, &mut out);
    }
    out
}

fn schema(signal: Signal) -> &'static Schema {
    match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
        Signal::Logs => &LOGS,
    }
}

/// How deep the values of a request nest.
pub fn value_depth(signal: Signal, bytes: &[u8]) -> usize {
    depth_of(schema(signal), bytes)
}

fn depth_of(schema: &'static Schema, bytes: &[u8]) -> usize {
    let mut deepest = 0;
    for field in Fields::new(bytes) {
        let kind = schema.0.iter().find(|(number, _)| *number == field.number);
        if let (Some((_, Message(child))), Value::Len(content)) = (kind, field.value) {
            deepest = deepest.max(depth_of(child, content));
        }
    }
    deepest + usize::from(std::ptr::eq(schema, &VALUE))
}

fn message(schema: &Schema, entropy: &mut Entropy<'_>, depth: u32, out: &mut Vec<u8>) {
    if depth > 90 {
        return;
    }
    // Few fields below the items, lest the first item uses up all entropy.
    let count = match depth {
        0..3 => entropy.below(6),
        3 if entropy.one_in(2) => entropy.below(3),
        3 => entropy.below(12),
        4..6 => entropy.below(4),
        _ => entropy.below(3),
    };
    for _ in 0..count {
        if entropy.one_in(32) {
            unknown(entropy, 0, out);
            continue;
        }
        // Of two draws the later one.
        let len = schema.0.len();
        let index = entropy.below(len).max(entropy.below(len));
        let (number, kind) = schema.0[index];
        field(number, kind, entropy, depth, out);
    }
}

fn field(number: u32, kind: Type, entropy: &mut Entropy<'_>, depth: u32, out: &mut Vec<u8>) {
    match kind {
        Varint => {
            key(number, 0, entropy, out);
            varint(number_value(entropy), entropy, out);
        }
        Fixed64 => {
            key(number, 1, entropy, out);
            out.extend_from_slice(&number_value(entropy).to_le_bytes());
        }
        Fixed32 => {
            key(number, 5, entropy, out);
            out.extend_from_slice(&(number_value(entropy) as u32).to_le_bytes());
        }
        Text => {
            let text = text(entropy);
            len(number, &text, entropy, out);
        }
        Id => {
            let id = id(entropy);
            len(number, &id, entropy, out);
        }
        Fixed64s if entropy.one_in(2) => field(number, Fixed64, entropy, depth, out),
        Varints if entropy.one_in(2) => field(number, Varint, entropy, depth, out),
        Fixed64s | Varints => {
            let mut packed = Vec::new();
            for _ in 0..entropy.below(5) {
                let value = number_value(entropy);
                match kind {
                    Varints => varint(value, entropy, &mut packed),
                    _ => packed.extend_from_slice(&value.to_le_bytes()),
                }
            }
            len(number, &packed, entropy, out);
        }
        Message(schema) => {
            let mut content = Vec::new();
            message(schema, entropy, depth + 1, &mut content);
            len(number, &content, entropy, out);
        }
    }
}

/// A field whose number no message of OTLP knows.
fn unknown(entropy: &mut Entropy<'_>, depth: u32, out: &mut Vec<u8>) {
    let number = entropy.pick(&[17, 31, 32, 99, 2047, 2048, (1 << 29) - 1]);
    match entropy.below(5) {
        0 => field(number, Varint, entropy, 0, out),
        1 => field(number, Fixed64, entropy, 0, out),
        2 => field(number, Fixed32, entropy, 0, out),
        3 => field(number, Text, entropy, 0, out),
        _ => {
            key(number, 3, entropy, out);
            for _ in 0..if depth < 4 { entropy.below(3) } else { 0 } {
                unknown(entropy, depth + 1, out);
            }
            key(number, 4, entropy, out);
        }
    }
}

fn key(number: u32, wire_type: u8, entropy: &mut Entropy<'_>, out: &mut Vec<u8>) {
    if entropy.one_in(64) {
        varint(u64::from(number) << 3 | u64::from(wire_type), entropy, out);
    } else {
        put_tag(out, number, wire_type);
    }
}

fn varint(value: u64, entropy: &mut Entropy<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    put_varint(out, value);
    // Longer than needed: the last byte goes on, and nothing follows.
    if out.len() - start < 10 && entropy.one_in(16) {
        if let Some(last) = out.last_mut() {
            *last |= 0x80;
        }
        out.push(0);
    }
}

fn len(number: u32, content: &[u8], entropy: &mut Entropy<'_>, out: &mut Vec<u8>) {
    key(number, 2, entropy, out);
    varint(content.len() as u64, entropy, out);
    out.extend_from_slice(content);
}

fn number_value(entropy: &mut Entropy<'_>) -> u64 {
    let byte = u64::from(entropy.byte());
    entropy.pick(&[0, 1, 2, byte, byte << 8, byte << 32 | 2, u64::MAX, 1 << 63, 0x7ff8_0000_0000_0001, 42f64.to_bits()])
}

fn text(entropy: &mut Entropy<'_>) -> Vec<u8> {
    let short = ["", "k", "ab", "key", "http", "http.method", "service.name", "a.key.of.some.length", "żółw", "日本語"];
    match entropy.below(16) {
        14 => "0123456789".repeat(entropy.below(30)).into_bytes(),
        15 => "grün ".repeat(entropy.below(40)).into_bytes(),
        _ => entropy.pick(&short).as_bytes().to_vec(),
    }
}

fn id(entropy: &mut Entropy<'_>) -> Vec<u8> {
    let seed = entropy.byte();
    match seed % 16 {
        0 => Vec::new(),
        1 => vec![0; 16],
        2 => vec![0; 8],
        3 => vec![seed; usize::from(seed >> 4)],
        4..=9 => vec![1 + seed % 5; 16],
        _ => vec![1 + seed % 7; 8],
    }
}

/// Damages `bytes` in a few places.
pub fn mutate(mut bytes: Vec<u8>, entropy: &mut Entropy<'_>) -> Vec<u8> {
    for _ in 0..1 + entropy.below(4) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = entropy.below(bytes.len());
        match entropy.below(6) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << entropy.below(8),
            2 => bytes[at] = entropy.byte(),
            3 => bytes.insert(at, entropy.byte()),
            4 => drop(bytes.remove(at)),
            _ => {
                let end = (at + entropy.below(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}
