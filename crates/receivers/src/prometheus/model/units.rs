//! Units: Prometheus' words as UCUM writes them.

const UNITS: [(&str, &str); 28] = [
    ("days", "d"),
    ("hours", "h"),
    ("minutes", "min"),
    ("seconds", "s"),
    ("milliseconds", "ms"),
    ("microseconds", "us"),
    ("nanoseconds", "ns"),
    ("bytes", "By"),
    ("kibibytes", "KiBy"),
    ("mebibytes", "MiBy"),
    ("gibibytes", "GiBy"),
    ("tibibytes", "TiBy"),
    ("kilobytes", "KBy"),
    ("megabytes", "MBy"),
    ("gigabytes", "GBy"),
    ("terabytes", "TBy"),
    ("meters", "m"),
    ("volts", "V"),
    ("amperes", "A"),
    ("joules", "J"),
    ("watts", "W"),
    ("grams", "g"),
    ("celsius", "Cel"),
    ("hertz", "Hz"),
    ("percent", "%"),
    ("ratio", "1"),
    ("second", "s"),
    ("byte", "By"),
];

/// The unit that `# UNIT` names; one that is not known stays as it is.
pub(super) fn ucum(unit: &str) -> &str {
    UNITS.iter().find(|(word, _)| *word == unit).map_or(unit, |(_, symbol)| symbol)
}
