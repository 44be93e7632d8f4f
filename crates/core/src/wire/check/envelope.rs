//! Request, resource and scope: the same for the three signals.

use super::keys::*;
use super::reader::{Reader, known};
use super::values::{resource, scope};
use super::{Check, Checked};
use crate::wire::cursor::MAX_DEPTH;

/// What the messages of a signal are called in errors.
pub(super) struct Names {
    pub(super) request: &'static str,
    pub(super) resource: &'static str,
    pub(super) resource_schema_url: &'static str,
    pub(super) scope: &'static str,
    pub(super) scope_schema_url: &'static str,
}

/// Checks a request, whose items (spans, metrics, log records) are checked by `item`: it gets
/// the item's bytes and how many levels may nest in it.
#[inline]
pub(super) fn request<'a>(
    names: &Names,
    bytes: &'a [u8],
    checked: &mut Checked,
    mut item: impl FnMut(&'a [u8], u32, &mut Checked) -> Check,
) -> Check {
    let mut request = Reader::new(names.request, bytes, MAX_DEPTH);
    while let Some(key) = request.key()? {
        let LEN_1 = key else {
            request.skip(key, known(&[1]))?;
            continue;
        };
        let mut group = Reader::new(names.resource, request.bytes()?, request.enter()?);
        while let Some(key) = group.key()? {
            match key {
                LEN_1 => resource(group.bytes()?, group.enter()?, checked)?,
                LEN_2 => {
                    let mut items = Reader::new(names.scope, group.bytes()?, group.enter()?);
                    while let Some(key) = items.key()? {
                        match key {
                            LEN_1 => scope(items.bytes()?, items.enter()?, checked)?,
                            LEN_2 => item(items.bytes()?, items.enter()?, checked)?,
                            LEN_3 => items.text(names.scope_schema_url)?,
                            _ => items.skip(key, known(&[1, 2, 3]))?,
                        }
                    }
                }
                LEN_3 => group.text(names.resource_schema_url)?,
                _ => group.skip(key, known(&[1, 2, 3]))?,
            }
        }
    }
    Ok(())
}
