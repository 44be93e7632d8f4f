//! The shape that the three signals share: request, resource, scope, item.

use super::common::{Attributes, KeyValue, last_len, len_fields};

/// The `name` (1), `version` (2) of the `InstrumentationScope` in field 1 of `message`.
pub(super) fn scope_text(message: &[u8], number: u32) -> &[u8] {
    len_fields(message, 1).flat_map(|scope| len_fields(scope, number)).last().unwrap_or_default()
}

/// The attributes of the `InstrumentationScope` (1) of `message`.
pub(super) fn scope_attributes(message: &[u8]) -> impl Iterator<Item = KeyValue<'_>> {
    len_fields(message, 1).flat_map(|scope| Attributes::new(scope, 3))
}

/// The attributes of the `Resource` (1) of `message`.
pub(super) fn resource_attributes(message: &[u8]) -> impl Iterator<Item = KeyValue<'_>> {
    len_fields(message, 1).flat_map(|resource| Attributes::new(resource, 1))
}

/// The `schema_url` (3) of a message of either level.
pub(super) fn schema_url(message: &[u8]) -> &[u8] {
    last_len(message, 3)
}

/// Defines the request, resource and scope views of one signal. The three signals use the same
/// field numbers on these levels; only the names differ.
macro_rules! envelope_views {
    (
        $(#[$request_doc:meta])* $Request:ident . $resources:ident,
        $(#[$resource_doc:meta])* $Resource:ident . $scopes:ident,
        $(#[$scope_doc:meta])* $Scope:ident . $items:ident,
        $Item:ident
    ) => {
        $crate::wire::view::view! {
            $(#[$request_doc])*
            $Request
        }

        impl<'a> $Request<'a> {
            /// Field 1, repeated.
            pub fn $resources(self) -> impl Iterator<Item = $Resource<'a>> {
                $crate::wire::common::len_fields(self.0, 1).map($Resource)
            }
        }

        $crate::wire::view::view! {
            $(#[$resource_doc])*
            $Resource
        }

        impl<'a> $Resource<'a> {
            /// All fields but the scopes: what [`RequestBuilder`](crate::wire::RequestBuilder) needs.
            #[must_use]
            pub fn header(self) -> std::borrow::Cow<'a, [u8]> {
                $crate::wire::header(self.0)
            }

            /// The attributes of its resource (1), over all the pieces in which it was written.
            pub fn resource_attributes(self) -> impl Iterator<Item = $crate::wire::KeyValue<'a>> {
                $crate::wire::envelope::resource_attributes(self.0)
            }

            /// Field 2, repeated.
            pub fn $scopes(self) -> impl Iterator<Item = $Scope<'a>> {
                $crate::wire::common::len_fields(self.0, 2).map($Scope)
            }

            /// Its `schema_url` (3).
            #[must_use]
            pub fn schema_url(self) -> &'a [u8] {
                $crate::wire::envelope::schema_url(self.0)
            }
        }

        $crate::wire::view::view! {
            $(#[$scope_doc])*
            $Scope
        }

        impl<'a> $Scope<'a> {
            /// All fields but the items: what [`RequestBuilder`](crate::wire::RequestBuilder) needs.
            #[must_use]
            pub fn header(self) -> std::borrow::Cow<'a, [u8]> {
                $crate::wire::header(self.0)
            }

            /// The name of its scope (1).
            #[must_use]
            pub fn scope_name(self) -> &'a [u8] {
                $crate::wire::envelope::scope_text(self.0, 1)
            }

            /// The version of its scope (1).
            #[must_use]
            pub fn scope_version(self) -> &'a [u8] {
                $crate::wire::envelope::scope_text(self.0, 2)
            }

            /// The attributes of its scope (1), over all the pieces in which it was written.
            pub fn scope_attributes(self) -> impl Iterator<Item = $crate::wire::KeyValue<'a>> {
                $crate::wire::envelope::scope_attributes(self.0)
            }

            /// Field 2, repeated.
            pub fn $items(self) -> impl Iterator<Item = $Item<'a>> {
                $crate::wire::common::len_fields(self.0, 2).map($Item::new)
            }

            /// Its `schema_url` (3).
            #[must_use]
            pub fn schema_url(self) -> &'a [u8] {
                $crate::wire::envelope::schema_url(self.0)
            }
        }
    };
}

pub(super) use envelope_views;
