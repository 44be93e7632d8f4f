//! What all views have in common.

/// Defines the view of a message: a slice of its bytes, of which nothing has been looked at.
macro_rules! view {
    ($(#[$doc:meta])* $View:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $View<'a>(&'a [u8]);

        impl<'a> $View<'a> {
            /// A view of the message in `bytes`.
            #[must_use]
            pub fn new(bytes: &'a [u8]) -> Self {
                Self(bytes)
            }

            /// The whole message.
            #[must_use]
            pub fn bytes(self) -> &'a [u8] {
                self.0
            }
        }
    };
}

pub(super) use view;
