//! `opentelemetry.proto.logs.v1`.

use super::envelope::{self, Names};
use super::keys::*;
use super::reader::{Reader, known};
use super::values::{attributes, value};
use super::{Check, Checked};

const NAMES: Names = Names {
    request: "ExportLogsServiceRequest",
    resource: "ResourceLogs",
    resource_schema_url: "ResourceLogs.schema_url",
    scope: "ScopeLogs",
    scope_schema_url: "ScopeLogs.schema_url",
};

/// Checks an `ExportLogsServiceRequest`.
pub(super) fn request(bytes: &[u8], checked: &mut Checked) -> Check {
    envelope::request(&NAMES, bytes, checked, log_record)
}

fn log_record(bytes: &[u8], left: u32, checked: &mut Checked) -> Check {
    let mut reader = Reader::new("LogRecord", bytes, left);
    let mut body_member = 0;
    while let Some(key) = reader.key()? {
        match key {
            FIXED64_1 | FIXED64_11 => reader.fixed64()?,
            VARINT_2 | VARINT_7 => reader.varint()?,
            LEN_3 => reader.text("LogRecord.severity_text")?,
            LEN_5 => value(reader.bytes()?, reader.enter()?, &mut body_member, checked)?,
            LEN_6 => attributes(&mut reader, LEN_6, checked)?,
            FIXED32_8 => reader.fixed32()?,
            LEN_9 | LEN_10 => drop(reader.bytes()?),
            LEN_12 => reader.text("LogRecord.event_name")?,
            _ => reader.skip(key, known(&[1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12]))?,
        }
    }
    checked.items += 1;
    Ok(())
}
