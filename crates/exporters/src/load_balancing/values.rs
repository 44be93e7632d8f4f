//! Attribute values as text, spelled as the Collector spells them in routing keys (`AsString`).

use nyquist_core::wire::AnyValue;

use crate::prometheus_mapping::put_value as put_as_string;

/// Appends `value`.
pub(super) fn put_value(out: &mut Vec<u8>, value: AnyValue<'_>) {
    match value {
        AnyValue::Double(number) if !number.is_finite() => out.extend_from_slice(match number {
            f64::INFINITY => b"Infinity",
            f64::NEG_INFINITY => b"-Infinity",
            _ => b"NaN",
        }),
        value => put_as_string(out, &value),
    }
}

#[cfg(test)]
mod tests {
    use nyquist_core::proto::common::v1::any_value::Value;
    use nyquist_core::proto::common::v1::{self as pb, ArrayValue, KeyValueList};
    use prost::Message;

    use super::*;

    fn text(value: Value) -> String {
        let message = pb::AnyValue { value: Some(value) }.encode_to_vec();
        let mut out = Vec::new();
        put_value(&mut out, AnyValue::new(&message));
        String::from_utf8(out).unwrap()
    }

    /// What a program with the Collector's pdata v1.67 printed.
    #[test]
    fn values_are_spelled_as_the_collector_does() {
        let small = [(1.0, "1"), (0.5, "0.5"), (-0.0, "-0"), (1e-4, "0.0001"), (1e-6, "0.000001"), (1e-7, "1e-7")];
        let large = [(123_456.0, "123456"), (1e6, "1000000"), (1e20, "100000000000000000000"), (1e21, "1e+21")];
        let odd =
            [(1.5e-300, "1.5e-300"), (f64::INFINITY, "Infinity"), (-f64::INFINITY, "-Infinity"), (f64::NAN, "NaN")];
        for (number, expected) in small.into_iter().chain(large).chain(odd) {
            assert_eq!(text(Value::DoubleValue(number)), expected);
        }
        let string = |text: &str| pb::AnyValue { value: Some(Value::StringValue(text.to_owned())) };
        let pair =
            |key: &str, text| pb::KeyValue { key: key.to_owned(), value: Some(string(text)), ..Default::default() };
        let map = KeyValueList { values: vec![pair("b", "2"), pair("a", "<1>")] };
        assert_eq!(text(Value::KvlistValue(map)), r#"{"a":"<1>","b":"2"}"#);
        let list = ArrayValue { values: vec![string("x"), pb::AnyValue { value: Some(Value::IntValue(1)) }] };
        assert_eq!(text(Value::ArrayValue(list)), r#"["x",1]"#);
        assert_eq!(text(Value::BytesValue(vec![0, 255])), "AP8=");
        assert_eq!(text(Value::BoolValue(true)), "true");
    }
}
