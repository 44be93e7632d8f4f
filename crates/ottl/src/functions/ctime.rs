//! Times as texts: the ctime-like formats of `Time` and `FormatTime`.
//!
//! A format is compiled once. What a text may look like is what Go's `time.Parse` takes for the layout that the
//! Collector makes of it: names of months and days in any case, fractions of a second of any length, also where the
//! format has none.

use super::calendar::{civil, days, days_of_month, weekday};
use crate::eval::EvalError;

/// The longest format, and the longest text that is read.
const MAX_LENGTH: usize = 256;
const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// A time without a year that would lie further ahead than this is last year's.
const MOST_AHEAD: i64 = 7 * DAY;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Abbreviations of time zones whose offset nobody disputes, in hours.
const ZONES: [(&str, i64); 20] = [
    ("UTC", 0),
    ("GMT", 0),
    ("UT", 0),
    ("Z", 0),
    ("EST", -5),
    ("EDT", -4),
    ("CST", -6),
    ("CDT", -5),
    ("MST", -7),
    ("MDT", -6),
    ("PST", -8),
    ("PDT", -7),
    ("HST", -10),
    ("WET", 0),
    ("WEST", 1),
    ("CET", 1),
    ("CEST", 2),
    ("EET", 2),
    ("EEST", 3),
    ("JST", 9),
];

/// How a number below ten is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pad {
    Zero,
    Space,
    None,
}

/// How an offset from UTC is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offset {
    minutes: bool,
    seconds: bool,
    colons: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Year,
    YearOfCentury,
    Month(Pad),
    MonthName {
        whole: bool,
    },
    Day(Pad),
    Weekday {
        whole: bool,
    },
    Hour,
    HourOfHalf(Pad),
    Half {
        upper: bool,
    },
    Minute,
    Second,
    /// So many digits; with what stands before them.
    Fraction {
        digits: usize,
        point: Option<u8>,
    },
    Offset(Offset),
    Zone,
}

/// A compiled format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    parts: Vec<Part>,
}

impl Format {
    /// Compiles `text`.
    pub(crate) fn compile(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the format is empty; write one such as \"%Y-%m-%dT%H:%M:%S\"".to_owned());
        }
        if text.len() > MAX_LENGTH {
            return Err(format!("the format is longer than {MAX_LENGTH} bytes"));
        }
        let mut parts = Vec::new();
        let mut rest = text.chars();
        while let Some(next) = rest.next() {
            if next != '%' {
                let mut bytes = [0; 4];
                literal(&mut parts, next.encode_utf8(&mut bytes).as_bytes());
                continue;
            }
            let Some(directive) = rest.next() else {
                return Err("`%` at the end: write %% for the character itself".to_owned());
            };
            if let Some(whole) = abbreviated(directive) {
                parts.extend(Self::compile(whole)?.parts);
            } else {
                add(&mut parts, directive)?;
            }
        }
        Ok(Self { parts })
    }

    /// Does a time in this format say its year, so that it is the same whenever it is read?
    pub(crate) fn has_year(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Year | Part::YearOfCentury))
    }

    /// The time that `text` is, in nanoseconds since the epoch. What it does not say of its date is taken from
    /// `now`; without a zone it is UTC.
    pub(crate) fn parse(&self, text: &[u8], now: i64) -> Result<i64, EvalError> {
        const OTHER: EvalError = EvalError::plain("the text is not a time in this format");
        if text.len() > MAX_LENGTH {
            return Err(OTHER);
        }
        let mut read = Read { rest: text, ..Read::default() };
        for (index, part) in self.parts.iter().enumerate() {
            let has_fraction = matches!(self.parts.get(index + 1), Some(Part::Fraction { .. }));
            read.part(part, has_fraction).ok_or(OTHER)?;
        }
        if let Some(problem) = read.problem {
            return Err(EvalError::plain(problem));
        }
        if !read.rest.is_empty() {
            return Err(EvalError::plain("the text goes on after a time in this format"));
        }
        read.time(now).ok_or(EvalError::plain("the text is not a time that there is, or not one from 1678 to 2261"))
    }

    /// `nanos` since the epoch as a text, in UTC.
    pub(crate) fn write(&self, nanos: i64) -> Vec<u8> {
        let (day, of_day) = (nanos.div_euclid(DAY), nanos.rem_euclid(DAY));
        let (year, month, day_of_month) = civil(day);
        let (hour, minute, second) = (of_day / (3_600 * SECOND), of_day / (60 * SECOND) % 60, of_day / SECOND % 60);
        let half = if hour < 12 { "am" } else { "pm" };
        let mut out = Vec::with_capacity(32);
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Year => number(&mut out, year, 4, b'0'),
                Part::YearOfCentury => number(&mut out, year % 100, 2, b'0'),
                Part::Month(pad) => padded(&mut out, month, *pad),
                Part::MonthName { whole } => name(&mut out, &MONTHS, month - 1, *whole),
                Part::Day(pad) => padded(&mut out, day_of_month, *pad),
                Part::Weekday { whole } => name(&mut out, &WEEKDAYS, weekday(day), *whole),
                Part::Hour => number(&mut out, hour, 2, b'0'),
                Part::HourOfHalf(pad) => padded(&mut out, (hour + 11) % 12 + 1, *pad),
                Part::Half { upper: true } => out.extend(half.bytes().map(|byte| byte.to_ascii_uppercase())),
                Part::Half { upper: false } => out.extend_from_slice(half.as_bytes()),
                Part::Minute => number(&mut out, minute, 2, b'0'),
                Part::Second => number(&mut out, second, 2, b'0'),
                Part::Fraction { digits, point } => {
                    out.extend(*point);
                    let unit = 10i64.pow(9 - *digits as u32);
                    number(&mut out, of_day % SECOND / unit, *digits, b'0');
                }
                Part::Offset(Offset { minutes, seconds, colons }) => {
                    out.extend_from_slice(b"+00");
                    for _ in 0..usize::from(*minutes) + usize::from(*seconds) {
                        out.extend_from_slice(if *colons { b":00" } else { b"00" });
                    }
                }
                Part::Zone => out.extend_from_slice(b"UTC"),
            }
        }
        out
    }
}

/// What stands for several directives.
fn abbreviated(directive: char) -> Option<&'static str> {
    Some(match directive {
        'D' | 'x' => "%m/%d/%Y",
        'F' => "%Y-%m-%d",
        'T' | 'X' => "%H:%M:%S",
        'r' => "%I:%M:%S %P",
        'R' => "%H:%M",
        'c' => "%a %b %d %H:%M:%S %Y",
        _ => return None,
    })
}

fn literal(parts: &mut Vec<Part>, bytes: &[u8]) {
    match parts.last_mut() {
        Some(Part::Literal(text)) => text.extend_from_slice(bytes),
        _ => parts.push(Part::Literal(bytes.to_vec())),
    }
}

fn add(parts: &mut Vec<Part>, directive: char) -> Result<(), String> {
    let offset = |minutes, seconds, colons| Part::Offset(Offset { minutes, seconds, colons });
    let part = match directive {
        'Y' => Part::Year,
        'y' => Part::YearOfCentury,
        'm' => Part::Month(Pad::Zero),
        'o' => Part::Month(Pad::Space),
        'q' => Part::Month(Pad::None),
        'b' | 'h' => Part::MonthName { whole: false },
        'B' => Part::MonthName { whole: true },
        'd' => Part::Day(Pad::Zero),
        'e' => Part::Day(Pad::Space),
        'g' => Part::Day(Pad::None),
        'a' => Part::Weekday { whole: false },
        'A' => Part::Weekday { whole: true },
        'H' => Part::Hour,
        'I' => Part::HourOfHalf(Pad::Zero),
        'l' => Part::HourOfHalf(Pad::None),
        'p' => Part::Half { upper: true },
        'P' => Part::Half { upper: false },
        'M' => Part::Minute,
        'S' => Part::Second,
        'L' => fraction(parts, 3),
        'f' => fraction(parts, 6),
        's' => fraction(parts, 9),
        'z' => offset(true, false, false),
        'i' => offset(false, false, false),
        'j' => offset(true, false, true),
        'k' => offset(true, true, true),
        'w' => offset(true, true, false),
        'Z' => Part::Zone,
        'n' => return Ok(literal(parts, b"\n")),
        't' => return Ok(literal(parts, b"\t")),
        '%' => return Ok(literal(parts, b"%")),
        other => {
            return Err(format!(
                "there is no directive %{other}; common ones are %Y %m %d %H %M %S %L %z, and %% for %"
            ));
        }
    };
    parts.push(part);
    Ok(())
}

/// Digits of a second. A point or comma before them is theirs: where it is missing in a text, so may they be.
fn fraction(parts: &mut Vec<Part>, digits: usize) -> Part {
    let mut point = None;
    if let Some(Part::Literal(text)) = parts.last_mut()
        && matches!(text.last(), Some(b'.' | b','))
    {
        point = text.pop();
        if text.is_empty() {
            parts.pop();
        }
    }
    Part::Fraction { digits, point }
}

fn number(out: &mut Vec<u8>, number: i64, width: usize, pad: u8) {
    let digits = number.to_string();
    out.extend(std::iter::repeat_n(pad, width.saturating_sub(digits.len())));
    out.extend_from_slice(digits.as_bytes());
}

fn padded(out: &mut Vec<u8>, value: i64, pad: Pad) {
    match pad {
        Pad::Zero => number(out, value, 2, b'0'),
        Pad::Space => number(out, value, 2, b' '),
        Pad::None => number(out, value, 1, b'0'),
    }
}

fn name(out: &mut Vec<u8>, names: &[&str], index: i64, whole: bool) {
    let name = usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or_default();
    let name = if whole { name } else { name.get(..3).unwrap_or(name) };
    out.extend_from_slice(name.as_bytes());
}

/// What has been read of a text.
#[derive(Debug, Default)]
struct Read<'t> {
    rest: &'t [u8],
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    has_weekday: bool,
    hour: i64,
    is_afternoon: Option<bool>,
    minute: i64,
    second: i64,
    nanos: i64,
    /// Seconds.
    offset: Option<i64>,
    /// Of the abbreviation of a zone; an offset in digits says more.
    zone: Option<i64>,
    problem: Option<&'static str>,
}

impl Read<'_> {
    /// `None` where the text does not go on with this.
    fn part(&mut self, part: &Part, has_fraction: bool) -> Option<()> {
        match part {
            Part::Literal(text) => self.rest = self.rest.strip_prefix(text.as_slice())?,
            Part::Year => self.year = Some(self.number(4, 4)?),
            Part::YearOfCentury => {
                let year = self.number(2, 2)?;
                self.year = Some(if year >= 69 { 1900 + year } else { 2000 + year });
            }
            Part::Month(pad) => self.month = Some(self.padded(*pad)?),
            Part::MonthName { whole } => self.month = Some(self.name(&MONTHS, *whole)? + 1),
            Part::Day(pad) => self.day = Some(self.padded(*pad)?),
            Part::Weekday { whole } => {
                self.name(&WEEKDAYS, *whole)?;
                self.has_weekday = true;
            }
            Part::Hour => self.hour = self.number(1, 2).filter(|hour| *hour < 24)?,
            Part::HourOfHalf(pad) => self.hour = self.padded(*pad).filter(|hour| *hour <= 12)?,
            Part::Half { upper } => {
                let (am, pm): (&[u8], &[u8]) = if *upper { (b"AM", b"PM") } else { (b"am", b"pm") };
                let (is_afternoon, rest) = match (self.rest.strip_prefix(am), self.rest.strip_prefix(pm)) {
                    (Some(rest), _) => (false, rest),
                    (_, Some(rest)) => (true, rest),
                    _ => return None,
                };
                (self.is_afternoon, self.rest) = (Some(is_afternoon), rest);
            }
            Part::Minute => self.minute = self.number(2, 2).filter(|minute| *minute < 60)?,
            Part::Second => {
                self.second = self.number(2, 2).filter(|second| *second < 60)?;
                if !has_fraction {
                    self.any_fraction(&[b'.', b',']);
                }
            }
            Part::Fraction { point: Some(_), .. } => self.any_fraction(&[b'.', b',']),
            Part::Fraction { digits, point: None } => {
                self.nanos = self.number(*digits, *digits)? * 10i64.pow(9 - *digits as u32);
            }
            Part::Offset(offset) => self.offset = Some(self.offset(*offset)?),
            Part::Zone => self.zone()?,
        }
        Some(())
    }

    /// Takes digits, as many as there are up to `most`.
    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let count = self.rest.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at_checked(count).filter(|_| count >= least)?;
        self.rest = rest;
        Some(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    fn padded(&mut self, pad: Pad) -> Option<i64> {
        match pad {
            Pad::Zero => self.number(2, 2),
            Pad::None => self.number(1, 2),
            Pad::Space => {
                self.rest = self.rest.strip_prefix(b" ").unwrap_or(self.rest);
                self.number(1, 2)
            }
        }
    }

    /// The place of the name that comes, in any case.
    fn name(&mut self, names: &[&str], whole: bool) -> Option<i64> {
        for (index, name) in names.iter().enumerate() {
            let name = if whole { name } else { name.get(..3)? };
            if let Some((start, rest)) = self.rest.split_at_checked(name.len())
                && start.eq_ignore_ascii_case(name.as_bytes())
            {
                self.rest = rest;
                return i64::try_from(index).ok();
            }
        }
        None
    }

    /// A fraction of a second, if one comes: of any length; what is less than a nanosecond is dropped.
    fn any_fraction(&mut self, points: &[u8]) {
        let Some((point, digits)) = self.rest.split_first() else { return };
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 || !points.contains(point) {
            return;
        }
        let padded = digits.iter().take(count).map(|digit| i64::from(digit - b'0')).chain(std::iter::repeat(0));
        self.nanos = padded.take(9).fold(0, |nanos, digit| nanos * 10 + digit);
        self.rest = digits.get(count..).unwrap_or_default();
    }

    fn offset(&mut self, offset: Offset) -> Option<i64> {
        if let Some(rest) = self.rest.strip_prefix(b"Z") {
            self.rest = rest;
            return Some(0);
        }
        let sign = match self.rest.split_first()? {
            (b'+', rest) => (1, rest),
            (b'-', rest) => (-1, rest),
            _ => return None,
        };
        self.rest = sign.1;
        let mut seconds = self.number(2, 2).filter(|hours| *hours <= 24)? * 3_600;
        for (wanted, unit) in [(offset.minutes, 60), (offset.seconds, 1)] {
            if !wanted {
                continue;
            }
            if offset.colons {
                self.rest = self.rest.strip_prefix(b":")?;
            }
            seconds += self.number(2, 2).filter(|number| *number < 60)? * unit;
        }
        Some(sign.0 * seconds)
    }

    fn zone(&mut self) -> Option<()> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        let (text, rest) = self.rest.split_at_checked(count).filter(|_| (1..=5).contains(&count))?;
        self.rest = rest;
        match ZONES.iter().find(|(name, _)| name.as_bytes() == text) {
            Some((_, hours)) => self.zone = Some(hours * 3_600),
            None => self.problem = Some("this abbreviation of a time zone is not known; an offset (%z) is clearer"),
        }
        Some(())
    }

    /// All of it together.
    fn time(&self, now: i64) -> Option<i64> {
        let hour = match self.is_afternoon {
            Some(true) if self.hour < 12 => self.hour + 12,
            Some(false) if self.hour == 12 => 0,
            _ => self.hour,
        };
        let of_day = i128::from((hour * 3_600 + self.minute * 60 + self.second) * SECOND + self.nanos);
        let offset = self.offset.or(self.zone).unwrap_or(0);
        let on = |year: i64, month: i64, day: i64| {
            let is_one = (1..=12).contains(&month) && (1..=days_of_month(year, month)).contains(&day);
            let day = i128::from(is_one.then(|| days(year, month, day))?);
            i64::try_from(day * i128::from(DAY) + of_day - i128::from(offset * SECOND)).ok()
        };
        let (this_year, this_month, today) = civil(now.div_euclid(DAY));
        match (self.year, self.month, self.day) {
            (None, None, None) if !self.has_weekday => on(this_year, this_month, today),
            (Some(year), month, day) => on(year, month.unwrap_or(1), day.unwrap_or(1)),
            (None, month, day) => {
                let (month, day) = (month.unwrap_or(1), day.unwrap_or(1));
                match on(this_year, month, day) {
                    Some(time) if time <= now.saturating_add(MOST_AHEAD) => Some(time),
                    _ => on(this_year - 1, month, day),
                }
            }
        }
    }
}
