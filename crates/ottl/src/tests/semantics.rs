//! What expressions come to: the tables of contrib's `LANGUAGE.md` and of its context READMEs.

use super::{fails, holds, on_events, on_span};

#[test]
fn paths_lead_to_the_fields_of_the_span() {
    holds(&[
        r#"name == "GET /cart""#,
        r#"span.name == "GET /cart""#,
        "kind == SPAN_KIND_SERVER and span.kind == 2",
        r#"kind.string == "Server" and kind.deprecated_string == "SPAN_KIND_SERVER""#,
        "status.code == STATUS_CODE_ERROR",
        r#"status.message == "no""#,
        "start_time_unix_nano == 1700000000000000000",
        "end_time_unix_nano - start_time_unix_nano == 1500000000",
        r#"end_time - start_time == Duration("1.5s")"#,
        r#"end_time - start_time > Duration("1499ms") and end_time > start_time"#,
        "trace_id == TraceID(0x0102030405060708090a0b0c0d0e0f10)",
        r#"trace_id.string == "0102030405060708090a0b0c0d0e0f10""#,
        r#"span_id == SpanID("abababababababab") and span_id.string == "abababababababab""#,
        "parent_span_id == SpanID(0x0000000000000000)",
        r#"parent_span_id.string == "0000000000000000""#,
        "IsRootSpan()",
        r#"trace_state == "vendor=x,ot=th:8" and trace_state["ot"] == "th:8""#,
        r#"trace_state["other"] == """#,
        "flags == 257",
        "dropped_attributes_count == 3 and dropped_events_count == 4 and dropped_links_count == 5",
        "Len(events) == 2 and Len(links) == 1",
        "Len(attributes) == 15",
        r#"resource.attributes["service.name"] == "pay" and resource.dropped_attributes_count == 6"#,
        r#"resource.schema_url == "res" and scope.schema_url == "sco""#,
        r#"scope.name == "lib" and instrumentation_scope.version == "1.2""#,
        r#"scope.attributes["k"] == 9 and scope.dropped_attributes_count == 7"#,
        r#"span.attributes["text"] == "acme""#,
    ]);
}

#[test]
fn events_are_looked_at_one_by_one() {
    for (expression, expected) in [
        (r#"name == "exception""#, [false, true]),
        (r#"spanevent.name == "exception" and span.name == "GET /cart""#, [false, true]),
        (r#"attributes["exception.type"] == "IOError""#, [false, true]),
        (r#"span.attributes["text"] == "acme" and resource.attributes["service.name"] == "pay""#, [true, true]),
        ("event_index == 1", [false, true]),
        ("time_unix_nano == 5", [true, false]),
        (r#"time - span.start_time == Duration("9ns")"#, [false, true]),
        ("dropped_attributes_count == 1", [false, true]),
        (r#"scope.name == "lib""#, [true, true]),
    ] {
        assert_eq!(on_events(expression), expected.map(Ok), "{expression}");
    }
}

#[test]
fn keys_reach_into_maps_and_lists() {
    holds(&[
        r#"attributes["map"]["a"] == 1"#,
        r#"attributes["map"]["b"]["c"] == "deep""#,
        r#"attributes["list"][0] == "a" and attributes["list"][1] == 2"#,
        r#"attributes["missing"] == nil and attributes["missing"]["deeper"] == nil"#,
        r#"attributes["map"]["missing"]["deeper"] == nil"#,
        r#"attributes["unset"] == nil"#,
        r#"attributes["twice"] == "first""#,
        r#"Split("a,b,c", ",")[1] == "b""#,
        r#"attributes[Concat(["te", "xt"], "")] == "acme""#,
        r#"attributes["list"][attributes["map"]["a"]] == 2"#,
    ]);
    fails(&[
        (r#"attributes["text"]["z"] == 1"#, "only maps and lists have keys; found a text"),
        (r#"attributes["list"][3] == 1"#, "the index lies outside of the list; found an integer"),
        (r#"attributes["list"][-1] == 1"#, "the index lies outside of the list; found an integer"),
        (r#"attributes["list"]["a"] == 1"#, "a list is indexed by an integer; found a text"),
        (r#"attributes["map"][0] == 1"#, "a map is indexed by a text; found an integer"),
        (r#"trace_state[0] == "a""#, "trace_state is indexed by a text; found an integer"),
    ]);
}

/// Every pair of types of the table "Comparison Rules", with all six operators.
#[test]
fn values_compare_as_the_table_says() {
    // A value of each type, and a greater one; for types without an order the greater one is `None`.
    let types: [(&str, Option<&str>); 9] = [
        ("false", Some("true")),
        ("1", Some("2")),
        ("1.5", Some("2.5")),
        (r#""a""#, Some(r#""b""#)),
        ("0x01", Some("0x02")),
        ("nil", None),
        (r#"Duration("1s")"#, Some(r#"Duration("2s")"#)),
        (r#"["a"]"#, None),
        (r#"{"a": 1}"#, None),
    ];
    let number = |index: usize| index == 1 || index == 2;
    for (row, (left, greater)) in types.iter().enumerate() {
        for (column, (right, _)) in types.iter().enumerate() {
            if row == column || number(row) && number(column) {
                continue;
            }
            for op in ["==", "<", "<=", ">", ">="] {
                assert_eq!(on_span(&format!("{left} {op} {right}")), Ok(false), "{left} {op} {right}");
            }
            assert_eq!(on_span(&format!("{left} != {right}")), Ok(true), "{left} != {right}");
        }
        assert_eq!(on_span(&format!("{left} == {left}")), Ok(true), "{left}");
        assert_eq!(on_span(&format!("{left} != {left}")), Ok(false), "{left}");
        let Some(greater) = greater else { continue };
        for (op, expected) in [("==", false), ("!=", true), ("<", true), ("<=", true), (">", false), (">=", false)] {
            assert_eq!(on_span(&format!("{left} {op} {greater}")), Ok(expected), "{left} {op} {greater}");
        }
    }
    holds(&["nil <= nil and nil >= nil", "1 < 1.5 and 1.5 > 1 and 2 == 2.0 and 2.0 >= 2", "not (nil < nil)"]);
    holds(&[r#"not (["a"] <= ["a"]) and not ({"a": 1} >= {"a": 1})"#, "Unix(1) < Unix(2) and Unix(1) != 1"]);
}

/// The same with values from the wire, on either side.
#[test]
fn attributes_compare_by_the_type_of_their_value() {
    holds(&[
        r#"attributes["int"] == 42 and 42 == attributes["int"] and attributes["int"] == 42.0"#,
        r#"attributes["int"] > 41 and 41 < attributes["int"] and 42 <= attributes["int"] and 43 >= attributes["int"]"#,
        r#"attributes["int"] != "42""#,
        r#"not (attributes["int"] < "43")"#,
        r#"attributes["double"] < 2 and attributes["double"] >= 1.5"#,
        r#"attributes["negative"] == -7 and -8 < attributes["negative"]"#,
        r#"attributes["yes"] == true and attributes["no"] == false and attributes["yes"] > attributes["no"]"#,
        r#"attributes["yes"] != "true" and attributes["yes"] != 1"#,
        r#"attributes["text"] > "acm" and attributes["text"] < "b""#,
        r#"attributes["bytes"] == 0x01ff and attributes["bytes"] != "01ff""#,
        r#"attributes["missing"] != "x" and not (attributes["missing"] == "x") and not (attributes["missing"] > 0)"#,
        r#"attributes["empty"] != nil and attributes["empty"] == """#,
        r#"attributes["list"] == ["a", 2, "c"] and attributes["list"] != ["a", 2] and attributes["list"] != ["a", 2.0, "c"]"#,
        r#"attributes["map"] == {"b": {"c": "deep"}, "a": 1}"#,
        r#"attributes["map"] != {"a": 1}"#,
        r#"attributes["map"]["b"] == {"c": attributes["map"]["b"]["c"]}"#,
        r#"trace_id != 0x0102030405060708090a0b0c0d0e0f10"#,
        r#"trace_id != span_id and attributes == attributes"#,
    ]);
}

#[test]
fn calculations_follow_go() {
    holds(&[
        "1 + 2 * 3 == 7 and (1 + 2) * 3 == 9",
        "10 - 3 - 2 == 5 and 100 / 10 / 5 == 2",
        "7 / 2 == 3 and -7 / 2 == -3 and 7.0 / 2 == 3.5",
        "1 + 1.5 == 2.5",
        r#"attributes["int"] * 2 - 4 == 80 and -attributes["int"] == -42 and -(attributes["double"]) == -1.5"#,
        "9223372036854775807 + 1 == -9223372036854775808",
        "+5 == 5 and -.5 == 0 - 0.5 and 1.5e3 == 1500",
        r#"start_time + Duration("1500ms") == end_time and Duration("1h") - Duration("30m") == Duration("30m")"#,
        r#"Duration("1s") + start_time < end_time"#,
        "end_time_unix_nano-start_time_unix_nano>1000000",
    ]);
    fails(&[
        (r#"attributes["int"] / 0 == 1"#, "division by zero"),
        (r#"attributes["double"] / 0.0 == 1"#, "division by zero"),
        (
            r#"attributes["text"] + 1 == 2"#,
            "numbers go with numbers, times and durations with one another; found a text",
        ),
        (
            r#"attributes["missing"] + 1 == 2"#,
            "numbers go with numbers, times and durations with one another; found nil",
        ),
        (
            r#"1 + attributes["yes"] == 2"#,
            "numbers go with numbers, times and durations with one another; found a boolean",
        ),
        (r#"start_time * Duration("1s") == nil"#, "times and durations are only added and subtracted"),
        (r#"-attributes["text"] == 1"#, "only numbers have an opposite; found a text"),
    ]);
}

/// What is not needed for the answer is not asked, so it cannot fail.
#[test]
fn booleans_stop_early() {
    holds(&[
        "true or false and false",
        "not false and not (true and false)",
        "not true or true",
        r#"true or attributes["text"]["z"] == 1"#,
        r#"not (false and attributes["text"]["z"] == 1)"#,
        "IsRootSpan() == true and IsRootSpan()",
        r#"not IsString(attributes["int"])"#,
    ]);
    fails(&[
        (r#"attributes["text"]["z"] == 1 or true"#, "only maps and lists have keys; found a text"),
        (r#"not attributes["text"]["z"] == 1"#, "only maps and lists have keys; found a text"),
        (r#"Int(attributes["text"]["z"]) == 1"#, "only maps and lists have keys; found a text"),
        (r#"Int(attributes["int"])"#, "a condition has to be a boolean; found an integer"),
        (r#"Bool(attributes["missing"])"#, "a condition has to be a boolean; found nil"),
    ]);
}

#[test]
fn converters_tell_and_change_types() {
    holds(&[
        r#"IsString(name) and IsString("") and not IsString(attributes["missing"])"#,
        r#"IsInt(attributes["int"]) and not IsInt(attributes["digits"]) and IsInt(kind)"#,
        r#"IsDouble(attributes["double"]) and IsBool(attributes["no"]) and IsMap(attributes) and IsMap(attributes["map"])"#,
        r#"IsList(attributes["list"]) and IsList([]) and not IsList(attributes["map"])"#,
        r#"Int(attributes["digits"]) == 17 and Int(attributes["double"]) == 1 and Int(true) == 1 and Int("2.0") == nil"#,
        r#"Int(attributes["missing"]) == nil"#,
        r#"Double("1.25") == 1.25 and Double(attributes["int"]) == 42.0 and Double("x") == nil and Double(true) == 1"#,
        r#"Bool("true") and Bool(1) and not Bool(0) and not Bool("f")"#,
        r#"String(attributes["int"]) == "42" and String(1.0) == "1" and String(true) == "true" and String(nil) == nil"#,
        r#"String(attributes["bytes"]) == "01ff""#,
        r#"String(attributes["map"]) == "{\"a\":1,\"b\":{\"c\":\"deep\"}}""#,
        r#"String(attributes["list"]) == "[\"a\",2,\"c\"]""#,
        r#"ParseInt("ff", 16) == 255 and Hex(attributes["bytes"]) == "01ff" and Hex(1) == "0000000000000001""#,
        r#"Len(name) == 9 and Len(attributes["list"]) == 3 and Len(attributes["map"]) == 2 and Len([1, 2]) == 2"#,
        r#"Len(resource.attributes) == 1"#,
    ]);
    fails(&[
        (r#"Int(attributes["map"]) == 1"#, "this cannot be made an integer; found a map"),
        (r#"Bool(attributes["text"])"#, "the text is not a boolean"),
        (r#"Len(attributes["int"]) == 1"#, "only texts, lists and maps have a length; found an integer"),
        ("String(trace_id) == \"\"", "this has no form as a text; found a trace id"),
    ]);
}

#[test]
fn converters_of_texts() {
    holds(&[
        r#"IsMatch(name, "^GET") and IsMatch(name, "cart") and not IsMatch(name, "^POST")"#,
        r#"IsMatch(attributes["int"], "^42$") and IsMatch(attributes["yes"], "true") and IsMatch("string", ".*ring")"#,
        r#"not IsMatch(attributes["missing"], ".*")"#,
        r#"IsMatch(pattern="^GET", target=name) and IsMatch(name, pattern="(?i)get")"#,
        r#"HasPrefix(name, "GET ") and HasSuffix(name, "cart") and not HasPrefix(name, "get")"#,
        r#"ToLowerCase(name) == "get /cart" and ToUpperCase(attributes["text"]) == "ACME" and ToLowerCase("É") == "é""#,
        r#"Concat([name, attributes["int"], nil, true], "|") == "GET /cart|42|<nil>|true""#,
        r#"Split("a||b", "||") == ["a", "b"] and Split("ab", "") == ["a", "b"] and Split("a,", ",") == ["a", ""]"#,
        r#"Substring(name, 4, 5) == "/cart" and Substring("123456789", 0, 3) == "123""#,
        r#"Trim("  a ") == "a" and Trim("xax", "x") == "a" and TrimPrefix(name, "GET ") == "/cart""#,
        r#"TrimSuffix(name, "/cart") == "GET " and TrimSuffix(name, "no") == name"#,
        r#"SHA256("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb""#,
        r#"SHA1("name") == "6ae999552a0d2dca14d62e2bc8b764d377b1dd6c" and Len(SHA512(name)) == 128"#,
        r#"FNV("") == -3750763034362895579"#,
        r#"Base64Encode("a") == "YQ==" and Base64Encode("ab") == "YWI=" and Base64Encode("abc") == "YWJj""#,
        r#"Base64Decode("YWI=") == "ab" and Base64Decode(Base64Encode(name)) == name"#,
        r#"ConvertCase(name, "lower") == "get /cart" and ConvertCase("a", "upper") == "A""#,
        r#"ConvertCase("someName", "snake") == "some_name" and ToSnakeCase("JSONData") == "json_data""#,
        r#"ToSnakeCase("AnyKind of-string.v23") == "any_kind_of_string_v_23" and ToSnakeCase("A2b") == "a_2_b""#,
        r#"ConvertCase("some_name", "camel") == "SomeName" and ToCamelCase("CONSTANT_CASE") == "ConstantCase""#,
        r#"ToCamelCase("numbers2And55with000a") == "Numbers2And55With000A" and ToCamelCase("ID") == "Id""#,
        r#"Index(name, "/") == 4 and Index(name, "x") == -1"#,
        r#"attributes["text"] == "\x61c\u006de" and "\"\\\n\141" == "\"\\\na""#,
    ]);
    fails(&[
        (r#"HasPrefix(attributes["int"], "4")"#, "a text is expected; found an integer"),
        (r#"ToLowerCase(attributes["missing"]) == """#, "a text is expected; found nil"),
        (r#"Split(attributes["missing"], ",") == nil"#, "a text is expected; found nil"),
        (r#"Substring(name, 4, 6) == """#, "start and length lie outside of the text"),
        (r#"Substring(name, -1, 1) == """#, "start and length lie outside of the text"),
        (
            r#"ConvertCase(name, attributes["text"]) == "a""#,
            "the case is one of \"lower\", \"upper\", \"snake\", \"camel\"",
        ),
        (r#"Base64Decode(attributes["text"] ) == Base64Decode(name)"#, "the text is not Base64"),
        (r#"Substring(name, 0, 0) == """#, "start and length lie outside of the text"),
    ]);
}

#[test]
fn converters_of_lists_networks_and_times() {
    holds(&[
        r#"ContainsValue(["acme", "other"], attributes["text"]) and not ContainsValue(["a"], attributes["text"])"#,
        r#"ContainsValue(attributes["list"], 2) and ContainsValue(attributes["list"], "c") and not ContainsValue(attributes["list"], "2")"#,
        r#"ContainsValue(target=[1, attributes["int"]], item=42)"#,
        r#"Index(attributes["list"], 2) == 1"#,
        r#"Coalesce([attributes["missing"], nil, attributes["int"], 1]) == 42 and Coalesce([]) == nil"#,
        r#"ContainsValue(Keys(attributes["map"]), "b") and ContainsValue(Values(attributes["map"]), 1)"#,
        r#"IsInCIDR(attributes["ip"], ["192.168.0.0/16", "10.0.0.0/8"]) and not IsInCIDR(attributes["ip"], ["10.2.0.0/16"])"#,
        r#"IsInCIDR("fe80::1", ["fe80::/10"]) and IsInCIDR("1.2.3.4", ["0.0.0.0/0"])"#,
        // 14 November 2023, 22:13:20, a Tuesday.
        "Year(start_time) == 2023 and Month(start_time) == 11 and Day(start_time) == 14 and Weekday(start_time) == 2",
        "Hour(start_time) == 22 and Minute(start_time) == 13 and Second(start_time) == 20 and Nanosecond(start_time) == 0",
        "UnixSeconds(start_time) == 1700000000 and UnixNano(end_time) == end_time_unix_nano",
        "UnixMilli(end_time) == 1700000001500 and UnixMicro(Unix(1, 2000)) == 1000002",
        "Milliseconds(end_time - start_time) == 1500 and Seconds(end_time - start_time) == 1.5",
        r#"Minutes(Duration("90s")) == 1.5 and Hours(Duration("90m")) == 1.5 and Nanoseconds(Duration("1us")) == 1000"#,
        r#"Microseconds(Duration("-1h2m3.5s")) == -3723500000 and Duration("0") == Duration("0ms")"#,
        "Now() > end_time",
        r#"TruncateTime(end_time, Duration("1s")) == Unix(1700000001) and TruncateTime(start_time, Duration("0s")) == start_time"#,
        r#"TruncateTime(start_time, Duration("1h")) == Unix(1699999200) and Weekday(TruncateTime(start_time, Duration("168h"))) == 1"#,
    ]);
    fails(&[
        (r#"ContainsValue(attributes["text"], "a")"#, "a list is expected; found a text"),
        (r#"IsInCIDR(attributes["text"], ["10.0.0.0/8"])"#, "this is not an IP address"),
        (
            r#"TruncateTime(end_time, 1) == end_time"#,
            "a duration is expected, such as Duration(\"1m\"); found an integer",
        ),
        (r#"Duration(attributes["text"]) == nil"#, "this is not a duration such as \"1.5s\" or \"2h30m\""),
        ("Hour(start_time_unix_nano) == 1", "a time is expected, such as span.start_time or Now(); found an integer"),
    ]);
}

#[test]
fn json_becomes_maps_and_lists() {
    holds(&[
        r#"ParseJSON("{\"a\":{\"b\":[1,true,null,\"x\"]}}")["a"]["b"] == [1.0, true, nil, "x"]"#,
        r#"IsMap(ParseJSON(String(attributes["map"]))) and ParseJSON(String(attributes["map"]))["b"]["c"] == "deep""#,
        r#"ParseJSON("[1, 2.5]")[1] == 2.5 and Len(ParseJSON("[]")) == 0 and ParseJSON("{\"a\":1,\"a\":2}")["a"] == 2"#,
        r#"IsDouble(ParseJSON("[1]")[0]) and ParseJSON("{}")["a"] == nil"#,
    ]);
    fails(&[
        (r#"ParseJSON(attributes["text"])["a"] == 1"#, "this text is not JSON"),
        (r#"ParseJSON(attributes["digits"])["a"] == 1"#, "this JSON is neither an object nor an array"),
        (r#"ParseJSON(attributes["int"])["a"] == 1"#, "a text is expected; found an integer"),
    ]);
}
