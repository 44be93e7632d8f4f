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

#[test]
fn rows_of_csv_are_maps() {
    holds(&[
        r#"ParseCSV("999-999-9999,Joe Smith,joe.smith@example.com", "phone,name,email") == {"phone": "999-999-9999", "name": "Joe Smith", "email": "joe.smith@example.com"}"#,
        r#"ParseCSV("a|b|c", "phone|name|email", delimiter="|")["email"] == "c""#,
        r#"ParseCSV("a|b \"c\" d|e", "x,y,z", delimiter="|", headerDelimiter=",", mode="lazyQuotes")["y"] == "b \"c\" d""#,
        r#"ParseCSV("\"555-555-5556,Joe Smith\",joe.smith@example.com", "phone,name,email", mode="ignoreQuotes") == {"phone": "\"555-555-5556", "name": "Joe Smith\"", "email": "joe.smith@example.com"}"#,
        // A quote in quotes is doubled; newlines around the row go, those in a field stay.
        r#"ParseCSV("\n\"a \"\"b\"\", c\",d\ne\n", "x,y") == {"x": "a \"b\", c", "y": "d\ne"}"#,
        r#"ParseCSV(",", "x,y") == {"x": "", "y": ""} and ParseCSV("1,2", "x,x")["x"] == "2" and ParseCSV("aéb", "xéy", "é")["y"] == "b""#,
        r#"ParseCSV("a \"b", "x", mode="lazyQuotes")["x"] == "a \"b" and ParseCSV("\"a", "x", mode="lazyQuotes")["x"] == "a""#,
    ]);
    fails(&[
        (r#"ParseCSV(name, "a,b") == nil"#, "the row has not as many fields as the headers"),
        (r#"ParseCSV(name, attributes["empty"]) == nil"#, "the headers are empty"),
        (r#"ParseCSV(attributes["empty"], "a") == nil"#, "the row is empty"),
        (r#"ParseCSV(Concat([name, "\"x"], ""), "a") == nil"#, "a quote stands in a field without quotes"),
        (r#"ParseCSV(Concat(["\"", name], ""), "a") == nil"#, "a quote is not closed"),
        (r#"ParseCSV(Concat(["\"\"", name], ""), "a") == nil"#, "text stands behind a field in quotes"),
        (r#"ParseCSV(name, "a", "ab") == nil"#, "a delimiter is a single character, and no quote"),
        (r#"ParseCSV(name, "a", mode="any") == nil"#, r#"the mode is "strict", "lazyQuotes" or "ignoreQuotes""#),
    ]);
}

#[test]
fn lists_of_maps_become_maps() {
    const THINGS: &str =
        r#"[{"name": "foo", "value": 2, "at": {"x": 1}}, {"name": "bar", "value": 5, "at": {"x": 3}}]"#;
    let holds_of = |expression: &str| holds(&[&expression.replace("things", THINGS)]);
    holds_of(r#"SliceToMap(things, ["name"])["bar"]["value"] == 5 and Len(SliceToMap(things, ["name"])) == 2"#);
    holds_of(r#"SliceToMap(things)["0"]["name"] == "foo""#);
    holds_of(r#"SliceToMap(things, ["name"], ["value"]) == {"foo": 2, "bar": 5}"#);
    holds_of(r#"SliceToMap(things, valuePath=["at", "x"]) == {"0": 1, "1": 3}"#);
    holds_of(r#"SliceToMap([{"n": "a", "v": 1}, {"n": "a", "v": 2}], ["n"], ["v"]) == {"a": 2}"#);
    holds(&[r#"SliceToMap(attributes["list"])["2"] == "c" and SliceToMap([]) == {}"#]);
    fails(&[
        (r#"SliceToMap(name) == nil"#, "a list is expected; found a text"),
        (
            r#"SliceToMap(attributes["list"], ["a"]) == nil"#,
            "the items have to be maps where a path leads into them; found a text",
        ),
        (r#"SliceToMap([attributes["map"]], ["z"]) == nil"#, "the path leads to nothing in an item"),
        (r#"SliceToMap([attributes["map"]], ["a"]) == nil"#, "the key of an item has to be a text; found an integer"),
        (
            r#"SliceToMap([attributes["map"]], ["a", "b"]) == nil"#,
            "the items have to be maps where a path leads into them; found an integer",
        ),
        (r#"SliceToMap([attributes["map"]], []) == nil"#, "a path has 1 to 32 texts"),
        (r#"SliceToMap([attributes["map"]], [1]) == nil"#, "a text is expected; found an integer"),
    ]);
}

/// What Go's `fmt.Sprintf` makes of the same.
#[test]
fn formats_are_those_of_go() {
    holds(&[
        r#"Format("%02d", [attributes["int"]]) == "42" and Format("%04d-%02d-%02d", [2024, 3, 9]) == "2024-03-09""#,
        r#"Format("%s/%v/%d%%", [name, attributes["int"], 7]) == "GET /cart/42/7%""#,
        r#"Format("%5d|%-5d|%05d|%+d|% d|%+05d", [42, 42, -42, 42, 42, 42]) == "   42|42   |-0042|+42| 42|+0042""#,
        r#"Format("%x %X %o %b %x %X", [255, 255, 8, 5, "hi", "hi"]) == "ff FF 10 101 6869 6869""#,
        r#"Format("%x", [attributes["bytes"]]) == "01ff" and Format("%x", [-255]) == "-ff""#,
        r#"Format("%.2f|%8.3f|%-8.1f|%08.2f", [2.5, 3.14159, 2.0, -1.5]) == "2.50|   3.142|2.0     |-0001.50""#,
        r#"Format("%e %.1E %e", [1500000.0, 0.00015, 0.0]) == "1.500000e+06 1.5E-04 0.000000e+00""#,
        r#"Format("%v %v %v %v %v", [1.5, Double("1e21"), 0.00001, 100000.0, 123456789.0]) == "1.5 1e+21 1e-05 100000 1.23456789e+08""#,
        r#"Format("%t %v %v", [true, false, nil]) == "true false <nil>""#,
        r#"Format("%.3s|%5s|%-5s|%.2s|%05s", ["abcdef", "é", "ab", "éàü", "ab"]) == "abc|    é|ab   |éà|000ab""#,
        r#"Format("", []) == "" and Format("100%%", []) == "100%" and Format("%v", [trace_id.string]) == trace_id.string"#,
    ]);
    fails(&[
        (r#"Format("%d", [name]) == nil"#, "the verb is for values of another type; found a text"),
        (r#"Format("%s", [kind]) == nil"#, "the verb is for values of another type; found an integer"),
        (r#"Format("%v", [attributes["map"]]) == nil"#, "the verb is for values of another type; found a map"),
        (r#"Format("%d %d", [kind]) == nil"#, "the format has more verbs than there are values"),
        (r#"Format("%d", [kind, kind]) == nil"#, "the format has fewer verbs than there are values"),
        (r#"Format("%d", name) == nil"#, "a list of values is expected; found a text"),
    ]);
    for bad in ["%", "%z", "%1001d", "%.1001f", "%[1]d", "%*d", "%q", "%.2d", "%5", "% "] {
        let found = Condition::compile(&format!("Format(\"{bad}\", [kind]) == name"), &SPAN).unwrap_err();
        assert!(found.message.starts_with("a format has the verbs"), "{bad}: {}", found.message);
    }
    let much = format!("Format(\"{}\", [{}]) == nil", "%1000d".repeat(1100), vec!["kind"; 1100].join(", "));
    assert_eq!(
        on_span(&much).map_err(|error| error.to_string()),
        Err("the text would be longer than 1 MiB".to_owned())
    );
}

/// The Collector's examples, and the hashes of each length of a rest.
#[test]
fn murmur_hashes_are_those_of_the_reference() {
    holds(&[
        r#"Murmur3Hash("Hello World") == "ce837619" and Murmur3Hash("") == "00000000""#,
        r#"Murmur3Hash128("Hello World") == "dbc2a0c1ab26631a27b4c09fcf1fe683""#,
        r#"Murmur3Hash128("") == "00000000000000000000000000000000""#,
    ]);
    // By github.com/twmb/murmur3 v1.1.8.
    const TEXT: &str = "abcdefghijklmnopqrstuvwxyz0123456789";
    for (len, short, long) in [
        (1, "b269253c", "897859f6655555855a890e51483ab5e6"),
        (2, "5fd7bf9b", "2e1bed16ea118b93add4529b01a75ee6"),
        (3, "fa93ddb3", "6778ad3f3f3f96b4522dca264174a23b"),
        (4, "6a67ed43", "4fcd5646d6b77bb875e87360883e00f2"),
        (7, "069b3c88", "99e49ec09f2fcda6b6bb55b13aa23a1c"),
        (8, "c4ccdd49", "028cef37b00a8acca14069eb600d8948"),
        (9, "f0061442", "64793cf1cfc0470533e041b7f53db579"),
        (15, "d2f7099d", "fb2f0c895124be8a612a969c2d8c546a"),
        (16, "ed9162e7", "23b74c22a33ccac41aeb31b395d63343"),
        (17, "4a5e65b6", "57a6bd887f746475e40d11a19d49daec"),
        (31, "e99c45bb", "a85856632862f04b7aeff99060d2dbbe"),
        (36, "162c4c5b", "3a5effb45e6f59f2c0946d2e37b99639"),
    ] {
        let text = &TEXT[..len];
        holds(&[&format!(r#"Murmur3Hash("{text}") == "{short}" and Murmur3Hash128("{text}") == "{long}""#)]);
    }
    fails(&[(r#"Murmur3Hash(kind) == nil"#, "a text is expected; found an integer")]);
}
