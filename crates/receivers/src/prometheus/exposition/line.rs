//! The parts of a line.

use std::borrow::Cow;

use crate::prometheus::labels::Labels;

/// A line, read from left to right.
#[derive(Debug)]
pub(super) struct Line<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Line<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// Whether there were any.
    pub(super) fn skip_blanks(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        self.at > start
    }

    fn take_while(&mut self, accepts: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.bytes().position(|byte| !accepts(byte)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    /// Up to the next blank.
    pub(super) fn word(&mut self) -> &'a str {
        self.take_while(|byte| !matches!(byte, b' ' | b'\t'))
    }

    /// The name of a metric.
    pub(super) fn name(&mut self) -> Result<&'a str, String> {
        let name = self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'));
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(format!("expected the name of a metric, found {}", self.shown()));
        }
        Ok(name)
    }

    /// Text in double quotes.
    pub(super) fn quoted(&mut self) -> Result<Cow<'a, str>, String> {
        if !self.eat(b'"') {
            return Err(format!("expected a text in double quotes, found {}", self.shown()));
        }
        let rest = self.rest();
        let mut escaped = false;
        for (index, byte) in rest.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.at += index + 1;
                    return Ok(unescaped(rest.get(..index).unwrap_or_default()));
                }
                _ => {}
            }
        }
        Err("a text in double quotes that does not end".to_owned())
    }

    /// Labels, the opening brace of which was eaten. In quoted form the metric's name stands among them.
    pub(super) fn labels(&mut self, labels: &mut Labels<'a>, metric: &mut Option<Cow<'a, str>>) -> Result<(), String> {
        loop {
            self.skip_blanks();
            if self.eat(b'}') {
                return Ok(());
            }
            let name = if self.peek() == Some(b'"') {
                let text = self.quoted()?;
                self.skip_blanks();
                if self.peek() == Some(b'=') {
                    Some(text)
                } else if metric.is_none() {
                    *metric = Some(text);
                    None
                } else {
                    return Err("two names for one metric".to_owned());
                }
            } else {
                let name = self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
                    return Err(format!("expected the name of a label, found {}", self.shown()));
                }
                Some(Cow::Borrowed(name))
            };
            if let Some(name) = name {
                self.skip_blanks();
                if !self.eat(b'=') {
                    return Err(format!("expected = after the label {name}, found {}", self.shown()));
                }
                self.skip_blanks();
                labels.push(name, self.quoted()?);
            }
            self.skip_blanks();
            if !self.eat(b',') && self.peek() != Some(b'}') {
                return Err(format!("expected , or }} after a label, found {}", self.shown()));
            }
        }
    }

    pub(super) fn number(&mut self) -> Result<f64, String> {
        self.skip_blanks();
        let word = self.word();
        word.parse().map_err(|_| format!("expected a number, found {word:?}"))
    }

    /// The next word, unless the line ends or an exemplar begins.
    pub(super) fn optional_word(&mut self) -> Option<&'a str> {
        self.skip_blanks();
        let is_there = !matches!(self.peek(), None | Some(b'#'));
        let word = is_there.then(|| self.word());
        self.skip_blanks();
        word
    }

    pub(super) fn end(&mut self) -> Result<(), String> {
        self.skip_blanks();
        if self.rest().is_empty() { Ok(()) } else { Err(format!("unexpected {}", self.shown())) }
    }

    /// A little of what comes next.
    fn shown(&self) -> String {
        let rest = self.rest();
        match rest.char_indices().nth(20) {
            _ if rest.is_empty() => "the end of the line".to_owned(),
            Some((index, _)) => format!("{:?}...", rest.get(..index).unwrap_or_default()),
            None => format!("{rest:?}"),
        }
    }
}

/// `text` without its escapes: `\\`, `\"` and `\n`; others stay as they are.
pub(super) fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => plain.push('\n'),
                Some(escaped @ ('\\' | '"')) => plain.push(escaped),
                Some(other) => {
                    plain.push('\\');
                    plain.push(other);
                }
                None => plain.push('\\'),
            },
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}
