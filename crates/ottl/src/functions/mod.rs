//! The converters: a table of what there is, and what each does.

mod calendar;
mod case;
mod collections;
mod csv;
pub(crate) mod ctime;
pub(crate) mod format;
mod json;
mod murmur;
mod net;
mod pairs;
mod paths;
pub(crate) mod prepared;
mod text;
mod time;
mod url;

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use crate::convert::{duration, to_bool, to_double, to_int, to_text};
use crate::eval::EvalError;
use crate::value::{List, Map, Value};

/// The most arguments that a converter takes.
pub(crate) const MAX_ARGUMENTS: usize = 5;

/// What a converter looks like.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) name: &'static str,
    pub(crate) builtin: Builtin,
    /// The names of its arguments.
    pub(crate) parameters: &'static [&'static str],
    /// How many of them have to be there.
    pub(crate) required: usize,
}

macro_rules! converters {
    ($($builtin:ident ( $($parameter:literal),* $(; $($optional:literal),+)? )),* $(,)?) => {
        /// A converter, by the Collector's name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(clippy::upper_case_acronyms, reason = "the names are the Collector's")]
        pub(crate) enum Builtin { $($builtin),* }

        /// All converters that are built in.
        pub(crate) const CONVERTERS: &[Signature] = &[$(Signature {
            name: stringify!($builtin),
            builtin: Builtin::$builtin,
            parameters: &[$($parameter,)* $($($optional,)+)?],
            required: <[&str]>::len(&[$($parameter),*]),
        }),*];
    };
}

converters! {
    Base64Decode("value"),
    Base64Encode("value"; "variant"),
    Bool("value"),
    Coalesce("values"),
    Concat("values", "delimiter"),
    ContainsValue("target", "item"),
    ConvertCase("target", "toCase"),
    Day("time"),
    Decode("value", "encoding"),
    Double("value"),
    Duration("duration"),
    ExtractPatterns("target", "pattern"),
    FNV("value"),
    Format("formatString", "formatArguments"),
    FormatTime("time", "format"),
    HasPrefix("value", "prefix"),
    HasSuffix("value", "suffix"),
    Hex("value"),
    Hour("time"),
    Hours("duration"),
    Index("target", "value"),
    Int("value"),
    IsBool("value"),
    IsDouble("value"),
    IsEmpty("value"),
    IsInCIDR("target", "networks"),
    IsInt("value"),
    IsList("value"),
    IsMap("value"),
    IsMatch("target", "pattern"),
    IsString("value"),
    IsValidLuhn("value"),
    Keys("target"),
    Len("target"),
    Log("value"),
    MD5("value"),
    Microseconds("duration"),
    Milliseconds("duration"),
    Minute("time"),
    Minutes("duration"),
    Month("time"),
    Murmur3Hash("target"),
    Murmur3Hash128("target"),
    Nanosecond("time"),
    Nanoseconds("duration"),
    Now(),
    ParseCSV("target", "headers"; "delimiter", "headerDelimiter", "mode"),
    ParseInt("target", "base"),
    ParseJSON("target"),
    ParseKeyValue("target"; "delimiter", "pair_delimiter"),
    SHA1("value"),
    SHA256("value"),
    SHA512("value"),
    Second("time"),
    Seconds("duration"),
    SliceToMap("target"; "keyPath", "valuePath"),
    Sort("target"; "order"),
    SpanID("bytes"),
    Split("target", "delimiter"),
    String("value"),
    Substring("target", "start", "length"; "utf8_safe"),
    Time("target", "format"; "location", "locale"),
    ToCamelCase("target"),
    ToKeyValueString("target"; "delimiter", "pair_delimiter", "sort_output"),
    ToLowerCase("target"),
    ToSnakeCase("target"),
    ToUpperCase("target"),
    TraceID("bytes"),
    Trim("target"; "replacement"),
    TrimPrefix("target", "prefix"),
    TrimSuffix("target", "suffix"),
    TruncateTime("time", "duration"),
    URL("uri"),
    Unix("seconds"; "nanoseconds"),
    UnixMicro("time"),
    UnixMilli("time"),
    UnixNano("time"),
    UnixSeconds("time"),
    Values("target"),
    Weekday("time"),
    Year("time"),
}

/// The Collector's other converters: known, refused by name, and what to do instead.
pub(crate) const NOT_YET: &[(&[&str], &str)] = &[
    (
        &["All", "Any", "Filter", "Find", "MapEach", "MapKeys", "Reduce", "When"],
        "it takes a lambda (alpha in the Collector); for lists of known values there is ContainsValue",
    ),
    (
        &["Append", "DeleteIndex"],
        "it makes a list to be stored, and a condition stores nothing; ContainsValue and Index ask lists",
    ),
    (&["CommunityID"], "compare addresses and ports, as in IsInCIDR(..)"),
    (
        &[
            "ConvertAttributesToElementsXML",
            "ConvertTextToElementsXML",
            "GetXML",
            "InsertXML",
            "ParseSimplifiedXML",
            "ParseXML",
            "RemoveXML",
        ],
        "XML is not read; ExtractPatterns(.., \"<id>(?P<id>[^<]*)\") finds the text of an element",
    ),
    (&["ExtractGrokPatterns"], "write ExtractPatterns with named groups, such as (?P<status>[0-9]{3})"),
    (&["ParseSeverity"], "severities are those of logs, which have no conditions here"),
    (&["ProfileID"], "there are no profiles here"),
    (&["UUID", "UUIDv7"], "a new id equals nothing that a condition could compare it with"),
    (&["UserAgent"], "use IsMatch on the text of the user agent"),
    (&["XXH128", "XXH3"], "there are FNV, Murmur3Hash, Murmur3Hash128, MD5, SHA1, SHA256 and SHA512"),
];

/// Runs a converter; arguments that were not given are nil.
pub(crate) fn call<'v>(
    builtin: Builtin,
    [first, second, third, fourth, fifth]: [Value<'v>; MAX_ARGUMENTS],
) -> Result<Value<'v>, EvalError> {
    match builtin {
        Builtin::IsString => Ok(Value::Bool(first.as_text().is_some())),
        Builtin::IsInt => Ok(Value::Bool(matches!(first, Value::Int(_)))),
        Builtin::IsDouble => Ok(Value::Bool(matches!(first, Value::Double(_)))),
        Builtin::IsBool => Ok(Value::Bool(matches!(first, Value::Bool(_)))),
        Builtin::IsMap => Ok(Value::Bool(matches!(first, Value::Map(_)))),
        Builtin::IsList => Ok(Value::Bool(matches!(first, Value::List(_)))),
        Builtin::IsEmpty => Ok(Value::Bool(is_empty(&first))),
        Builtin::IsValidLuhn => text::is_valid_luhn(&first),
        Builtin::Log => logarithm(&first),
        Builtin::Int => to_int(&first),
        Builtin::Double => to_double(&first),
        Builtin::Bool => to_bool(&first),
        Builtin::String => Ok(to_text(first)?.map_or(Value::Nil, Value::Text)),
        Builtin::Len => len(&first),
        Builtin::HasPrefix => Ok(Value::Bool(text::of(&first)?.starts_with(text::of(&second)?))),
        Builtin::HasSuffix => Ok(Value::Bool(text::of(&first)?.ends_with(text::of(&second)?))),
        Builtin::ToLowerCase => text::lower(first),
        Builtin::ToUpperCase => text::upper(first),
        Builtin::ToSnakeCase => case::snake(first),
        Builtin::ToCamelCase => case::camel(first),
        Builtin::ConvertCase => case::convert(first, &second),
        Builtin::Concat => text::concat(&first, &second),
        Builtin::Split => text::split(first, &second),
        Builtin::Substring => text::substring(first, &second, &third, &fourth),
        Builtin::Trim => text::trim(first, &second),
        Builtin::TrimPrefix => text::trim_prefix(first, &second),
        Builtin::TrimSuffix => text::trim_suffix(first, &second),
        Builtin::Hex => text::hex(&first),
        Builtin::Base64Encode => text::base64(&first, &second),
        Builtin::Base64Decode => text::base64_decode(&first),
        Builtin::Decode => text::decode(&first, &second),
        Builtin::ParseJSON => json::parse(&first),
        Builtin::ParseKeyValue => pairs::parse(&first, &second, &third),
        Builtin::ToKeyValueString => pairs::write(&first, &second, &third, &fourth),
        Builtin::ParseCSV => csv::parse([first, second, third, fourth, fifth]),
        Builtin::SliceToMap => paths::slice_to_map(&first, &second, &third),
        Builtin::Format => format::format(&first, &second),
        Builtin::URL => url::parse(&first),
        Builtin::ParseInt => text::parse_int(&first, &second),
        Builtin::FNV => Ok(Value::Int(text::fnv(text::of(&first)?))),
        Builtin::Murmur3Hash => Ok(Value::owned_text(murmur::hash32(text::of(&first)?))),
        Builtin::Murmur3Hash128 => Ok(Value::owned_text(murmur::hash128(text::of(&first)?))),
        Builtin::MD5 => Ok(Value::owned_text(hex::encode(Md5::digest(text::of(&first)?)))),
        Builtin::SHA1 => Ok(Value::owned_text(hex::encode(Sha1::digest(text::of(&first)?)))),
        Builtin::SHA256 => Ok(Value::owned_text(hex::encode(Sha256::digest(text::of(&first)?)))),
        Builtin::SHA512 => Ok(Value::owned_text(hex::encode(Sha512::digest(text::of(&first)?)))),
        Builtin::SpanID => text::id(&first).map(Value::SpanId),
        Builtin::TraceID => text::id(&first).map(Value::TraceId),
        Builtin::ContainsValue => collections::contains_value(&first, &second),
        Builtin::Sort => collections::sort(first, &second),
        Builtin::Coalesce => collections::coalesce(first),
        Builtin::Index => collections::index(&first, &second),
        Builtin::Keys => collections::keys(&first),
        Builtin::Values => collections::values(&first),
        Builtin::IsInCIDR => net::is_in_cidr(&first, &second),
        Builtin::Duration => {
            let nanos = duration(text::of(&first)?);
            nanos.map(Value::Duration).ok_or(EvalError::plain("this is not a duration such as \"1.5s\" or \"2h30m\""))
        }
        Builtin::Now => Ok(Value::Time(time::now())),
        Builtin::Unix => time::unix(&first, &second),
        Builtin::TruncateTime => time::truncate(&first, &second),
        Builtin::UnixNano
        | Builtin::UnixMicro
        | Builtin::UnixMilli
        | Builtin::UnixSeconds
        | Builtin::Year
        | Builtin::Month
        | Builtin::Day
        | Builtin::Weekday
        | Builtin::Hour
        | Builtin::Minute
        | Builtin::Second
        | Builtin::Nanosecond => time::of_time(builtin, &first),
        Builtin::Nanoseconds
        | Builtin::Microseconds
        | Builtin::Milliseconds
        | Builtin::Seconds
        | Builtin::Minutes
        | Builtin::Hours => time::of_duration(builtin, &first),
        // They are compiled together with their pattern or format, and never called.
        Builtin::IsMatch | Builtin::ExtractPatterns | Builtin::Time | Builtin::FormatTime => {
            Err(EvalError::plain("the pattern or format has to be a text in double quotes"))
        }
    }
}

/// Is the result the same for the same arguments?
pub(crate) fn is_pure(builtin: Builtin) -> bool {
    builtin != Builtin::Now
}

fn len(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let len = match value {
        Value::Text(text) | Value::Bytes(text) => text.len(),
        Value::TraceState(text) => text.len(),
        Value::List(List::Made(values)) => values.len(),
        Value::List(list) => list.len(),
        Value::Map(Map::Made(entries)) => entries.len(),
        Value::Map(map) => map.len(),
        Value::Messages { message, number } => crate::value::len_fields(message, *number).count(),
        other => return Err(EvalError::new("only texts, lists and maps have a length", other)),
    };
    Ok(Value::Int(i64::try_from(len).unwrap_or(i64::MAX)))
}

/// Is it nothing, or the zero of its type?
fn is_empty(value: &Value<'_>) -> bool {
    match value {
        Value::Nil => true,
        Value::Bool(flag) => !flag,
        Value::Int(number) | Value::Duration(number) => *number == 0,
        Value::Double(number) => *number == 0.0,
        Value::Text(bytes) | Value::Bytes(bytes) => bytes.is_empty(),
        Value::TraceState(bytes) => bytes.is_empty(),
        Value::TraceId(id) => *id == [0; 16],
        Value::SpanId(id) => *id == [0; 8],
        Value::Time(_) => false,
        Value::List(list) => list.iter().next().is_none(),
        Value::Map(map) => map.iter().next().is_none(),
        Value::Messages { message, number } => crate::value::len_fields(message, *number).next().is_none(),
    }
}

fn logarithm(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match to_double(value)? {
        Value::Double(number) if number > 0.0 => Ok(Value::Double(number.ln())),
        Value::Double(_) => Err(EvalError::plain("only numbers above 0 have a logarithm")),
        _ => Err(EvalError::new("a number is expected", value)),
    }
}
