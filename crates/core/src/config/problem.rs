//! What is wrong with a configuration, and how that is shown.

use std::fmt;

use super::{Location, Source};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Prevents a start.
    Error,
    /// Deserves a word.
    Warning,
}

/// One finding. Its `Display` is what people read: message, place, the line, and the suggestion
/// under it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Where it is; unknown if it is about something that is missing altogether.
    pub location: Location,
    /// The keys that lead there: `exporters.otlp.queue_settings`.
    pub path: String,
    /// What to do, where that can be said in a few words: `did you mean "sending_queue"?`.
    pub suggestion: Option<String>,
    /// Other places that have to do with it, each with a word.
    pub related: Vec<(Location, String)>,
}

impl Problem {
    /// An error.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            location: Location::default(),
            path: String::new(),
            suggestion: None,
            related: Vec::new(),
        }
    }

    /// A warning.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// The same at a place.
    #[must_use]
    pub fn at(mut self, location: &Location, path: impl Into<String>) -> Self {
        self.location = location.clone();
        self.path = path.into();
        self
    }

    /// The same with advice.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The same with advice, if there is any.
    #[must_use]
    pub fn suggest_some(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }

    /// The same with another place that has to do with it.
    #[must_use]
    pub fn relate(mut self, location: &Location, word: impl Into<String>) -> Self {
        self.related.push((location.clone(), word.into()));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(out, "{severity}: {}", printable(&self.message))?;

        let shown = shown_at(&self.location);
        let related = self.related.iter().filter(|(location, _)| location.is_known());
        let lines = related.clone().map(|(location, _)| location.line).chain([shown.line]);
        let margin = lines.max().unwrap_or(0).to_string().len();
        if shown.is_known() {
            let path = if self.path.is_empty() { String::new() } else { format!(" ({})", printable(&self.path)) };
            write!(out, "\n{:margin$}--> {shown}{path}", "")?;
            snippet(out, shown, margin, '^', self.suggestion.as_deref().unwrap_or_default())?;
            let mut source = &self.location.source;
            while let Some(reference) = &source.referenced_at {
                write!(out, "\n{:margin$} = note: the value comes from {}", "", printable(&origin(source)))?;
                source = &reference.source;
            }
        } else {
            if !self.path.is_empty() {
                write!(out, "\n{:margin$}--> {}", "", printable(&self.path))?;
            }
            if let Some(suggestion) = &self.suggestion {
                write!(out, "\n{:margin$} = help: {}", "", printable(suggestion))?;
            }
        }
        for (location, word) in related {
            let location = shown_at(location);
            write!(out, "\n{:margin$}::: {location}", "")?;
            snippet(out, location, margin, '-', word)?;
        }
        Ok(())
    }
}

/// Values that may be secret are never shown: what is wrong with one is shown at the `${...}` that asks
/// for it.
fn shown_at(location: &Location) -> &Location {
    match &location.source.referenced_at {
        Some(reference) if location.source.hidden => shown_at(reference),
        _ => location,
    }
}

fn origin(source: &Source) -> String {
    match source.name.split_once(':') {
        Some(("env", name)) => format!("the environment variable {name}"),
        Some(("default", name)) => format!("the default of ${{{name}}}"),
        _ => source.name.clone(),
    }
}

/// The line at `location` with a marker under it.
fn snippet(out: &mut fmt::Formatter<'_>, location: &Location, margin: usize, marker: char, word: &str) -> fmt::Result {
    /// Characters before the marker, and in all, that are shown of a long line.
    const BEFORE: usize = 60;
    const MOST: usize = 140;

    let Some(line) = location.source.line(location.line) else { return Ok(()) };
    let line: Vec<char> = printable(&mask_secrets(line, location.column)).chars().collect();
    let start = location.column.saturating_sub(1).min(line.len());
    let length = location.length.clamp(1, line.len().saturating_sub(start).max(1));

    let first = if line.len() <= MOST { 0 } else { start.saturating_sub(BEFORE) };
    let last = line.len().min(first + MOST);
    let shown: String = line.get(first..last).unwrap_or_default().iter().collect();
    let before = if first > 0 { "..." } else { "" };
    let after = if last < line.len() { "..." } else { "" };
    write!(out, "\n{:margin$} |", "")?;
    write!(out, "\n{:>margin$} | {before}{}{after}", location.line, shown.trim_end())?;

    let indent = start - first + before.len();
    let markers: String = std::iter::repeat_n(marker, length.min(MOST - (start - first).min(MOST - 1))).collect();
    write!(out, "\n{:margin$} | {:indent$}{markers}", "", "")?;
    if word.is_empty() { Ok(()) } else { write!(out, " {}", printable(word)) }
}

/// Text without what could steer a terminal.
fn printable(text: &str) -> String {
    let replace = |letter: char| match letter {
        '\t' => ' ',
        letter if letter.is_control() => '\u{fffd}',
        letter => letter,
    };
    text.chars().map(replace).collect()
}

/// `line` with the values of keys that sound secret replaced by stars, unless the marker at `column`
/// points into them. Character counts stay.
fn mask_secrets(line: &str, column: usize) -> String {
    let mut letters: Vec<char> = line.chars().collect();
    let mut word_start = 0;
    let mut at = 0;
    while at < letters.len() {
        let letter = letters[at];
        if letter == ':' && sounds_secret(&letters[word_start..at].iter().collect::<String>()) {
            let value = at + 1;
            let is_end = |letter: &char| matches!(letter, ',' | '}');
            let end = letters[value..].iter().position(is_end).map_or(letters.len(), |length| value + length);
            let is_marked = (value..end).contains(&column.saturating_sub(1));
            let is_reference = letters[value..end].iter().collect::<String>().trim_start().starts_with("${");
            if !is_marked && !is_reference {
                for letter in letters[value..end].iter_mut().filter(|letter| !letter.is_whitespace()) {
                    *letter = '*';
                }
            }
            at = end;
            word_start = end;
            continue;
        }
        if !(letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.')) {
            word_start = at + 1;
        }
        at += 1;
    }
    letters.into_iter().collect()
}

/// Whether the value of `key` is likely a secret.
pub(crate) fn sounds_secret(key: &str) -> bool {
    const WORDS: [&str; 9] =
        ["password", "passwd", "secret", "token", "api_key", "api-key", "apikey", "authorization", "_pem"];
    let key = key.to_ascii_lowercase();
    // The names of files and fields that hold a secret are none.
    !key.ends_with("_file") && !key.ends_with("_url") && WORDS.iter().any(|word| key.contains(word))
}

/// The problems found so far; all are reported at once.
#[derive(Debug, Default)]
pub struct Diagnostics {
    /// What prevents a start.
    pub errors: Vec<Problem>,
    /// What deserves a word.
    pub warnings: Vec<Problem>,
    /// Where values are that a configuration reads as [`Secret`](super::Secret).
    pub(crate) secrets: Vec<Location>,
    /// The path of the section being read, and where its key is.
    scope: (String, Location),
}

impl Diagnostics {
    /// Takes a finding.
    pub fn push(&mut self, problem: Problem) {
        match problem.severity {
            Severity::Error => self.errors.push(problem),
            Severity::Warning => self.warnings.push(problem),
        }
    }

    /// Runs `work` on the section at `path`, whose key is at `key`: what it reports is below that.
    pub(crate) fn within<R>(&mut self, path: String, key: &Location, work: impl FnOnce(&mut Self) -> R) -> R {
        let outer = std::mem::replace(&mut self.scope, (path, key.clone()));
        let result = work(self);
        self.scope = outer;
        result
    }

    /// The path of the section being read.
    pub(crate) fn scope_path(&self) -> &str {
        &self.scope.0
    }

    /// Where the key of the section being read is.
    pub(crate) fn scope_key(&self) -> &Location {
        &self.scope.1
    }

    /// Puts the findings in the order of the text they are about: by source, as first met, then by line.
    /// What aliases repeat is said once.
    pub(crate) fn sort(&mut self) {
        let mut sources: Vec<*const Source> = Vec::new();
        for problems in [&mut self.errors, &mut self.warnings] {
            for problem in &*problems {
                let source = std::ptr::from_ref(&*shown_at(&problem.location).source);
                if !sources.contains(&source) {
                    sources.push(source);
                }
            }
            problems.sort_by_key(|problem| {
                let shown = shown_at(&problem.location);
                let source = sources.iter().position(|&source| std::ptr::eq(source, &raw const *shown.source));
                (!shown.is_known(), source, shown.line, shown.column)
            });
            problems.dedup_by(|one, other| {
                one.location.is_known() && one.location == other.location && one.message == other.message
            });
        }
    }
}

/// All findings, warnings first, each followed by an empty line.
impl fmt::Display for Diagnostics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.warnings.iter().chain(&self.errors) {
            write!(out, "{problem}\n\n")?;
        }
        Ok(())
    }
}

/// `did you mean "..."?` for the candidate nearest to `word`, if one is near.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|candidate| format!("did you mean {candidate:?}?"))
}

/// The candidate nearest to `word`, if one is near: a few letters differ, or one contains a whole
/// word of the other.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let plain = |text: &str| text.chars().filter(|letter| letter.is_alphanumeric()).collect::<String>();
        let lower = candidate.to_ascii_lowercase();
        let shares_word = lower.split('_').any(|part| part.len() > 3 && word.split(['_', '-']).any(|own| own == part));
        let mut score = if plain(&word) == plain(&lower) { 1.0 } else { strsim::jaro_winkler(&word, &lower) };
        if shares_word {
            score = score.max(0.8) + 0.05;
        }
        if score >= 0.8 && best.is_none_or(|(best, _)| score > best) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}
