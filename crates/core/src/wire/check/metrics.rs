//! `opentelemetry.proto.metrics.v1`.

use super::envelope::{self, Names};
use super::keys::*;
use super::reader::{Reader, known};
use super::values::attributes;
use super::{Check, Checked};

const NAMES: Names = Names {
    request: "ExportMetricsServiceRequest",
    resource: "ResourceMetrics",
    resource_schema_url: "ResourceMetrics.schema_url",
    scope: "ScopeMetrics",
    scope_schema_url: "ScopeMetrics.schema_url",
};

/// Checks an `ExportMetricsServiceRequest`.
pub(super) fn request(bytes: &[u8], checked: &mut Checked) -> Check {
    envelope::request(&NAMES, bytes, checked, metric)
}

fn metric(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("Metric", bytes, left);
    // `data` is a oneof: a piece of the same member adds points, another member starts anew.
    let mut member = 0;
    let mut points = 0;
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 => reader.text("Metric.name")?,
            LEN_2 => reader.text("Metric.description")?,
            LEN_3 => reader.text("Metric.unit")?,
            LEN_5 | LEN_7 | LEN_9 | LEN_10 | LEN_11 => {
                if member != key {
                    member = key;
                    points = 0;
                }
                let bytes = reader.bytes()?;
                let left = reader.enter()?;
                points += match key >> 3 {
                    5 => data("Gauge", known(&[1]), bytes, left, checked, number_point)?,
                    7 => data("Sum", known(&[1, 2, 3]), bytes, left, checked, number_point)?,
                    9 => data("Histogram", known(&[1, 2]), bytes, left, checked, histogram_point)?,
                    10 => data("ExponentialHistogram", known(&[1, 2]), bytes, left, checked, exponential_point)?,
                    _ => data("Summary", known(&[1]), bytes, left, checked, summary_point)?,
                };
            }
            LEN_12 => attributes(&mut reader, LEN_12, checked)?,
            _ => reader.skip(key, known(&[1, 2, 3, 5, 7, 9, 10, 11, 12]))?,
        }
    }
    checked.items += points;
    Ok(())
}

/// Checks one of the five kinds of data: points (1), temporality (2) and monotonicity (3), as far
/// as it has them. Returns the number of points.
#[inline]
fn data(
    name: &'static str,
    fields: u32,
    bytes: &[u8],
    left: u32,
    checked: &mut Checked,
    point: impl Fn(&[u8], u32, &mut Checked) -> Check,
) -> Check<usize> {
    let mut reader = Reader::new(name, bytes, left);
    let mut points = 0;
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 => {
                point(reader.bytes()?, reader.enter()?, checked)?;
                points += 1;
            }
            VARINT_2 | VARINT_3 if fields >> (key >> 3) & 1 == 1 => reader.varint()?,
            _ => reader.skip(key, fields)?,
        }
    }
    Ok(points)
}

fn number_point(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("NumberDataPoint", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            FIXED64_2 | FIXED64_3 | FIXED64_4 | FIXED64_6 => {
                reader.fixed64()?;
            }
            LEN_5 => exemplar(reader.bytes()?, reader.enter()?, checked)?,
            LEN_7 => attributes(&mut reader, LEN_7, checked)?,
            VARINT_8 => reader.varint()?,
            _ => reader.skip(key, known(&[2, 3, 4, 5, 6, 7, 8]))?,
        }
    }
    Ok(())
}

fn histogram_point(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("HistogramDataPoint", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            FIXED64_2 | FIXED64_3 | FIXED64_4 | FIXED64_5 | FIXED64_6 | FIXED64_7 | FIXED64_11 | FIXED64_12 => {
                reader.fixed64()?
            }
            LEN_6 | LEN_7 => reader.packed_fixed64()?,
            LEN_8 => exemplar(reader.bytes()?, reader.enter()?, checked)?,
            LEN_9 => attributes(&mut reader, LEN_9, checked)?,
            VARINT_10 => reader.varint()?,
            _ => reader.skip(key, known(&[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]))?,
        }
    }
    Ok(())
}

fn exponential_point(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("ExponentialHistogramDataPoint", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            LEN_1 => attributes(&mut reader, LEN_1, checked)?,
            FIXED64_2 | FIXED64_3 | FIXED64_4 | FIXED64_5 | FIXED64_7 | FIXED64_12 | FIXED64_13 | FIXED64_14 => {
                reader.fixed64()?
            }
            VARINT_6 | VARINT_10 => reader.varint()?,
            LEN_8 | LEN_9 => buckets(reader.bytes()?, reader.enter()?)?,
            LEN_11 => exemplar(reader.bytes()?, reader.enter()?, checked)?,
            _ => reader.skip(key, known(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]))?,
        }
    }
    Ok(())
}

fn buckets(bytes: &[u8], left: u32) -> Check {
    let mut reader = Reader::new("ExponentialHistogramDataPoint.Buckets", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            VARINT_1 | VARINT_2 => reader.varint()?,
            LEN_2 => reader.packed_varints()?,
            _ => reader.skip(key, known(&[1, 2]))?,
        }
    }
    Ok(())
}

fn summary_point(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("SummaryDataPoint", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            FIXED64_2 | FIXED64_3 | FIXED64_4 | FIXED64_5 => {
                reader.fixed64()?;
            }
            LEN_6 => value_at_quantile(reader.bytes()?, reader.enter()?)?,
            LEN_7 => attributes(&mut reader, LEN_7, checked)?,
            VARINT_8 => reader.varint()?,
            _ => reader.skip(key, known(&[2, 3, 4, 5, 6, 7, 8]))?,
        }
    }
    Ok(())
}

fn value_at_quantile(bytes: &[u8], left: u32) -> Check {
    let mut reader = Reader::new("SummaryDataPoint.ValueAtQuantile", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            FIXED64_1 | FIXED64_2 => reader.fixed64()?,
            _ => reader.skip(key, known(&[1, 2]))?,
        }
    }
    Ok(())
}

fn exemplar(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("Exemplar", bytes, left);
    while let Some(key) = reader.key()? {
        match key {
            FIXED64_2 | FIXED64_3 | FIXED64_6 => reader.fixed64()?,
            LEN_4 | LEN_5 => drop(reader.bytes()?),
            LEN_7 => attributes(&mut reader, LEN_7, checked)?,
            _ => reader.skip(key, known(&[2, 3, 4, 5, 6, 7]))?,
        }
    }
    Ok(())
}
