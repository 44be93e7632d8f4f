//! The keys of the fields that are checked, as one number: field number and wire type.
//!
//! `LEN_9` is field 9, length-delimited. Matching on whole keys makes field and wire type one
//! branch.

macro_rules! keys {
    ($($wire_type:literal: $($name:ident = $number:literal),+;)+) => {
        $($(pub(super) const $name: u32 = $number << 3 | $wire_type;)+)+
    };
}

keys! {
    0: VARINT_1 = 1, VARINT_2 = 2, VARINT_3 = 3, VARINT_4 = 4, VARINT_5 = 5, VARINT_6 = 6, VARINT_7 = 7, VARINT_8 = 8, VARINT_10 = 10, VARINT_12 = 12, VARINT_14 = 14;
    1: FIXED64_1 = 1, FIXED64_2 = 2, FIXED64_3 = 3, FIXED64_4 = 4, FIXED64_5 = 5, FIXED64_6 = 6, FIXED64_7 = 7, FIXED64_8 = 8, FIXED64_11 = 11, FIXED64_12 = 12, FIXED64_13 = 13, FIXED64_14 = 14;
    2: LEN_1 = 1, LEN_2 = 2, LEN_3 = 3, LEN_4 = 4, LEN_5 = 5, LEN_6 = 6, LEN_7 = 7, LEN_8 = 8, LEN_9 = 9, LEN_10 = 10, LEN_11 = 11, LEN_12 = 12, LEN_13 = 13, LEN_15 = 15;
    5: FIXED32_6 = 6, FIXED32_8 = 8, FIXED32_16 = 16;
}
