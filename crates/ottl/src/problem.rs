//! What is wrong with an expression, and where.

use std::fmt;
use std::ops::Range;

/// A mistake in an expression, found before any data is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong and what to do: lower case, no final stop, one line.
    pub message: String,
    /// The line in the expression, from 1.
    pub line: usize,
    /// The column in that line, in characters, from 1.
    pub column: usize,
    /// The text of that line.
    pub text: String,
    /// How many characters of the line are meant; at least 1.
    pub width: usize,
}

impl Problem {
    /// A problem with `place`, a range of bytes of `source`.
    pub(crate) fn new(source: &str, place: Range<usize>, message: impl Into<String>) -> Self {
        let start = floor(source, place.start);
        let before = source.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let text = source.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default().to_owned();
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let meant = source.get(start..floor(source, place.end)).unwrap_or_default();
        let width = meant.lines().next().unwrap_or_default().chars().count().max(1);
        Self { message: message.into(), line, column, text, width }
    }

    /// The line of the expression, and a caret below what is meant. Long lines are cut.
    #[must_use]
    pub fn excerpt(&self) -> String {
        const BEFORE: usize = 60;
        const SHOWN: usize = 100;
        let skip = self.column.saturating_sub(BEFORE + 1);
        let shown: String = self.text.chars().skip(skip).take(SHOWN).collect();
        let indent = " ".repeat(self.column - 1 - skip);
        let room = SHOWN.saturating_sub(indent.len()).max(1);
        format!("{shown}\n{indent}{}", "^".repeat(self.width.min(room)))
    }
}

/// Where a character begins, at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

impl Problem {
    /// Place and message in one line, for where the expression itself is shown beside it.
    #[must_use]
    pub fn summary(&self) -> String {
        const SHOWN: usize = 40;
        let mut meant: String = self.text.chars().skip(self.column - 1).take(self.width.min(SHOWN)).collect();
        if self.width > SHOWN {
            meant.push_str("..");
        }
        let known = meant.is_empty() || self.message.contains(&format!("`{meant}`"));
        let meant = if known { String::new() } else { format!(", `{meant}`") };
        format!("{}{meant}: {}", self.place(), self.message)
    }

    fn place(&self) -> String {
        if self.line > 1 {
            format!("line {}, column {}", self.line, self.column)
        } else {
            format!("column {}", self.column)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place(), self.message)?;
        for line in self.excerpt().lines() {
            write!(out, "\n    {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// `; did you mean ...?` if one of the `known` names is like `name`, else nothing.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    const ALIKE: f64 = 0.82;
    let plain = |text: &str| text.to_ascii_lowercase().replace(['_', '.'], "");
    let wanted = plain(name);
    let best = known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&wanted, &plain(known)), known))
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|left, right| left.0.total_cmp(&right.0));
    best.map_or(String::new(), |(_, known)| format!("; did you mean {known}?"))
}
