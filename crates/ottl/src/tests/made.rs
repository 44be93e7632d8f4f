//! Converters that make maps, lists and texts: the examples of contrib's function reference.

use super::{fails, holds, on_span};
use crate::Condition;
use crate::traces::SPAN;

#[test]
fn patterns_extract_maps() {
    holds(&[
        r#"ExtractPatterns(name, "^(?P<http.method>\\w+) (?P<path>/.*)$") == {"http.method": "GET", "path": "/cart"}"#,
        r#"ExtractPatterns(name, "^(?P<method>\\w+)")["method"] == "GET" and Len(ExtractPatterns(name, "(?P<a>z)")) == 0"#,
        r#"ExtractPatterns("ab", "(?P<a>a)(?P<c>c)?(b)") == {"a": "a", "c": ""}"#,
        r#"ExtractPatterns(target=ToLowerCase(name), pattern="(?P<a>get)")["a"] == "get""#,
    ]);
    fails(&[(r#"ExtractPatterns(kind, "(?P<a>z)") == nil"#, "a text is expected; found an integer")]);
}

#[test]
fn urls_have_parts() {
    holds(&[
        r#"URL("http://www.example.com") == {"url.original": "http://www.example.com", "url.scheme": "http", "url.domain": "www.example.com", "url.path": ""}"#,
        r#"URL("http://myusername:mypassword@www.example.com:80/foo.gif?key1=val1&key2=val2#fragment") == {"url.path": "/foo.gif", "url.fragment": "fragment", "url.extension": "gif", "url.password": "mypassword", "url.original": "http://myusername:mypassword@www.example.com:80/foo.gif?key1=val1&key2=val2#fragment", "url.scheme": "http", "url.port": 80, "url.user_info": "myusername:mypassword", "url.domain": "www.example.com", "url.query": "key1=val1&key2=val2", "url.username": "myusername"}"#,
        r#"URL("HTTPS://[::1]:8443/a%20b/c")["url.path"] == "/a b/c" and URL("https://[::1]:8443/")["url.domain"] == "::1""#,
        r#"URL("/a/b?x=1")["url.query"] == "x=1" and URL("/a")["url.scheme"] == "" and URL("a.b")["url.extension"] == "b""#,
        r#"URL("mailto:a@b.c")["url.path"] == "" and URL("//host/p")["url.domain"] == "host""#,
        r#"URL("http://h:/")["url.port"] == nil and URL("http://h/?#")["url.query"] == nil"#,
    ]);
    for url in
        ["http://h:port/", "http://[::1/", "http://[::1]x/", "%zz", "http://a b/", "a\\nb", "1a:b", "http://h/%2"]
    {
        let found = Condition::compile(&format!("URL(\"{url}\") == nil"), &SPAN).unwrap_err();
        assert_eq!(found.message, "the text is not a URL", "{url}");
    }
    fails(&[(r#"URL(attributes["empty"]) == nil"#, "the URL is empty")]);
}

#[test]
fn pairs_are_read_and_written() {
    holds(&[
        r#"ParseKeyValue("k1=v1 k2=v2 k3=v3") == {"k1": "v1", "k2": "v2", "k3": "v3"}"#,
        r#"ParseKeyValue("k1!v1_k2!v2_k3!v3", "!", "_") == {"k1": "v1", "k2": "v2", "k3": "v3"}"#,
        r#"ParseKeyValue("  a='x y'  b=\"c=d\" ") == {"a": "x y", "b": "c=d"}"#,
        r#"ParseKeyValue("a=1 a=2 b=") == {"a": "2", "b": ""}"#,
        r#"ParseKeyValue("a=1,b=2", pair_delimiter=",")["b"] == "2""#,
        r#"ToKeyValueString({"k1": "v1", "k2": 2}) == "k1=v1 k2=2""#,
        r#"ToKeyValueString({"b": "x", "a": "y"}, ":", ",", true) == "a:y,b:x""#,
        r#"ToKeyValueString({"k1": "v=2", "k2": "\"v=3\"", "k3": {"a": ["b"]}}) == "k1=\"v=2\" k2=\"\\\"v=3\\\"\" k3={\"a\":[\"b\"]}""#,
    ]);
    fails(&[
        (r#"ParseKeyValue(attributes["empty"]) == nil"#, "the text is empty"),
        (r#"ParseKeyValue(attributes["text"]) == nil"#, "a pair has no delimiter"),
        (r#"ParseKeyValue(name, "'") == nil"#, "a pair has no delimiter"),
        (r#"ParseKeyValue(Concat([name, "'"], "")) == nil"#, "a quote is not closed"),
        (r#"ParseKeyValue(name, ",", ",") == nil"#, "pairs and their values need different delimiters"),
        (r#"ToKeyValueString(name) == nil"#, "a map is expected; found a text"),
    ]);
}

#[test]
fn lists_are_sorted() {
    holds(&[
        r#"Sort([9, 6, 3]) == [3, 6, 9] and Sort([3, 6, 9], "desc") == [9, 6, 3]"#,
        r#"Sort(["i", "am", "awesome", "slice"]) == ["am", "awesome", "i", "slice"]"#,
        r#"Sort([true, false, true, false]) == [false, false, true, true]"#,
        r#"Sort([1, "two", 3.33, false]) == [1, 3.33, false, "two"] and Sort([1.5, "10.2", 2.3, 0.5]) == [0.5, 1.5, "10.2", 2.3]"#,
        r#"Sort([3.14, 2, 3.33, 0], "desc") == [3.33, 3.14, 2, 0] and Sort([]) == []"#,
        r#"Sort(attributes["list"], "desc") == ["c", "a", 2]"#,
    ]);
    fails(&[
        (r#"Sort(name) == nil"#, "a list is expected; found a text"),
        (r#"Sort([name, attributes["map"]]) == nil"#, "only numbers, texts and booleans have an order; found a map"),
        (r#"Sort(attributes["list"], "up") == nil"#, r#"the order is "asc" or "desc""#),
    ]);
}

#[test]
fn smaller_converters_follow_the_reference() {
    holds(&[
        r#"MD5("name") == "b068931cc450442b63f5b3d276ea4297""#,
        r#"IsEmpty("") and IsEmpty(nil) and IsEmpty(0) and IsEmpty(0.0) and IsEmpty(false) and IsEmpty([]) and IsEmpty({})"#,
        r#"IsEmpty(attributes["missing"]) and IsEmpty(parent_span_id) and not IsEmpty(trace_id) and not IsEmpty(events)"#,
        r#"not IsEmpty(name) and not IsEmpty(attributes) and not IsEmpty(attributes["list"]) and not IsEmpty(start_time)"#,
        r#"IsValidLuhn("17893729974") and not IsValidLuhn("17893729975") and IsValidLuhn(17893729974)"#,
        r#"Log(1) == 0.0 and Log(attributes["int"]) > 3.73 and Log("10") < 2.31"#,
        r#"Decode("aGVsbG8gd29ybGQ=", "base64") == "hello world" and Decode("aGk", "base64-raw") == "hi""#,
        r#"Decode("-_8", "base64-raw-url") == Decode("+/8=", "base64") and Decode(name, "utf-8") == name"#,
        r#"Base64Encode("a") == "YQ==" and Base64Encode("a", "base64-raw") == "YQ" and Base64Encode(0xfbff, "base64-url") == "-_8=""#,
        r#"Substring("一二三", 0, 4, true) == "一" and Substring("一二三", 1, 5, true) == "二" and Substring("一二三", 1, 1, true) == """#,
        r#"ParseInt("0b1111_0000", 0) == 240 and ParseInt("0xFF", 0) == 255 and ParseInt("-0xFF", 0) == -255"#,
        r#"ParseInt("-0o123", 0) == -83 and ParseInt("0123", 0) == 83 and ParseInt("1_000", 0) == 1000 and ParseInt("0", 0) == 0"#,
    ]);
    fails(&[
        (r#"IsValidLuhn(name)"#, "the number has other characters than digits"),
        (r#"Log(attributes["negative"]) == 1"#, "only numbers above 0 have a logarithm"),
        (r#"Log(attributes["missing"]) == 1"#, "a number is expected; found nil"),
        (r#"Decode(attributes["text"], "base64-url") == Decode(name, "base64")"#, "the text is not Base64"),
        (
            r#"Decode(name, "utf-16") == nil"#,
            r#"the encoding is one of "base64" and its variants, "utf-8", "us-ascii""#,
        ),
        (r#"ParseInt(attributes["digits"], 1) == 17"#, "the base is an integer from 2 to 36, or 0"),
    ]);
    for bad in ["1__0", "_1", "1_", "0x", "+-1", "0x-1", "08"] {
        assert!(Condition::compile(&format!("ParseInt(\"{bad}\", 0) == 1"), &SPAN).is_err(), "{bad}");
    }
    assert_eq!(on_span(r#"IsEmpty(status.message)"#), Ok(false));
}
