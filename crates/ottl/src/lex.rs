//! From text to tokens.

use std::ops::Range;

use crate::ast::{CompareOp, MathOp};
use crate::problem::Problem;

/// One word or sign.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// A name that begins with a lower-case letter.
    Lower(String),
    /// A name that begins with an upper-case letter.
    Upper(String),
    /// The absolute value; a sign is a token of its own.
    Int(u64),
    Double(f64),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Compare(CompareOp),
    Math(MathOp),
    /// One of `( ) [ ] { } , . : =`.
    Sign(char),
    And,
    Or,
    Not,
    Where,
    True,
    False,
    Nil,
    End,
}

impl Token {
    /// For messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Lower(name) | Self::Upper(name) => format!("`{name}`"),
            Self::Int(_) | Self::Double(_) => "a number".to_owned(),
            Self::Text(_) => "a text".to_owned(),
            Self::Bytes(_) => "bytes".to_owned(),
            Self::Compare(op) => format!("`{}`", compare_sign(*op)),
            Self::Math(op) => format!("`{}`", math_sign(*op)),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::And => "`and`".to_owned(),
            Self::Or => "`or`".to_owned(),
            Self::Not => "`not`".to_owned(),
            Self::Where => "`where`".to_owned(),
            Self::True => "`true`".to_owned(),
            Self::False => "`false`".to_owned(),
            Self::Nil => "`nil`".to_owned(),
            Self::End => "the end".to_owned(),
        }
    }
}

fn compare_sign(op: CompareOp) -> &'static str {
    match op {
        CompareOp::Equal => "==",
        CompareOp::NotEqual => "!=",
        CompareOp::Less => "<",
        CompareOp::LessOrEqual => "<=",
        CompareOp::Greater => ">",
        CompareOp::GreaterOrEqual => ">=",
    }
}

fn math_sign(op: MathOp) -> char {
    match op {
        MathOp::Add => '+',
        MathOp::Subtract => '-',
        MathOp::Multiply => '*',
        MathOp::Divide => '/',
    }
}

/// The tokens of `source` with their places; the last one is [`Token::End`].
pub(crate) fn tokens(source: &str) -> Result<Vec<(Token, Range<usize>)>, Problem> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.at = source.len() - lexer.rest().trim_start().len();
        let start = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        tokens.push((token, start..lexer.at));
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn problem(&self, place: Range<usize>, message: impl Into<String>) -> Problem {
        Problem::new(self.source, place, message)
    }

    /// Takes what `matches`, from here on.
    fn take_while(&mut self, matches: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.bytes().position(|byte| !matches(byte)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    fn token(&mut self) -> Result<Token, Problem> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        match first {
            'a'..='z' | 'A'..='Z' => Ok(self.word()),
            '"' => self.text(),
            '0'..='9' => self.number(),
            '.' if rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit) => self.number(),
            _ => self.sign(first),
        }
    }

    fn word(&mut self) -> Token {
        let word = self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        match word {
            "and" => Token::And,
            "or" => Token::Or,
            "not" => Token::Not,
            "where" => Token::Where,
            "true" => Token::True,
            "false" => Token::False,
            "nil" => Token::Nil,
            _ if word.starts_with(|first: char| first.is_ascii_uppercase()) => Token::Upper(word.to_owned()),
            _ => Token::Lower(word.to_owned()),
        }
    }

    fn number(&mut self) -> Result<Token, Problem> {
        let start = self.at;
        if self.rest().starts_with("0x") {
            self.at += 2;
            let digits = self.take_while(|byte| byte.is_ascii_hexdigit());
            self.no_letter_follows(start)?;
            return match hex::decode(digits) {
                Ok(bytes) if !bytes.is_empty() => Ok(Token::Bytes(bytes)),
                _ => {
                    Err(self
                        .problem(start..self.at, "bytes are written with two hexadecimal digits each, as in 0x01ff"))
                }
            };
        }
        self.take_while(|byte| byte.is_ascii_digit());
        let rest = self.rest().as_bytes();
        let fraction = rest.first() == Some(&b'.') && rest.get(1).is_some_and(u8::is_ascii_digit);
        if fraction {
            self.at += 1;
            self.take_while(|byte| byte.is_ascii_digit());
            let exponent = self.rest().as_bytes();
            let digit_at = if matches!(exponent.get(1), Some(b'+' | b'-')) { 2 } else { 1 };
            if matches!(exponent.first(), Some(b'e' | b'E')) && exponent.get(digit_at).is_some_and(u8::is_ascii_digit) {
                self.at += digit_at;
                self.take_while(|byte| byte.is_ascii_digit());
            }
        }
        self.no_letter_follows(start)?;
        let digits = self.source.get(start..self.at).unwrap_or_default();
        let token = if fraction { digits.parse().ok().map(Token::Double) } else { digits.parse().ok().map(Token::Int) };
        token.ok_or_else(|| self.problem(start..self.at, "the number does not fit into 64 bits with a sign"))
    }

    fn no_letter_follows(&mut self, start: usize) -> Result<(), Problem> {
        let letters = self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if letters.is_empty() {
            return Ok(());
        }
        let word = self.source.get(start..self.at).unwrap_or_default();
        Err(self.problem(start..self.at, format!("`{word}` is not a number; put a text in double quotes")))
    }

    fn sign(&mut self, first: char) -> Result<Token, Problem> {
        let start = self.at;
        let two = match self.rest().get(..2) {
            Some("==") => Some(CompareOp::Equal),
            Some("!=") => Some(CompareOp::NotEqual),
            Some("<=") => Some(CompareOp::LessOrEqual),
            Some(">=") => Some(CompareOp::GreaterOrEqual),
            Some("&&") => return Err(self.problem(start..start + 2, "write `and` instead of `&&`")),
            Some("||") => return Err(self.problem(start..start + 2, "write `or` instead of `||`")),
            _ => None,
        };
        if let Some(op) = two {
            self.at += 2;
            return Ok(Token::Compare(op));
        }
        self.at += first.len_utf8();
        match first {
            '<' => Ok(Token::Compare(CompareOp::Less)),
            '>' => Ok(Token::Compare(CompareOp::Greater)),
            '+' => Ok(Token::Math(MathOp::Add)),
            '-' => Ok(Token::Math(MathOp::Subtract)),
            '*' => Ok(Token::Math(MathOp::Multiply)),
            '/' => Ok(Token::Math(MathOp::Divide)),
            '(' | ')' | '[' | ']' | '{' | '}' | ',' | '.' | ':' | '=' => Ok(Token::Sign(first)),
            '!' => Err(self.problem(start..self.at, "write `not` instead of `!`")),
            '\'' | '`' => Err(self.problem(start..self.at, "a text stands in double quotes")),
            _ => Err(self.problem(start..self.at, format!("unexpected character {first:?}"))),
        }
    }

    /// A text in double quotes, with Go's escapes.
    fn text(&mut self) -> Result<Token, Problem> {
        let start = self.at;
        self.at += 1;
        let mut text = Vec::new();
        loop {
            text.extend_from_slice(self.take_while(|byte| byte != b'"' && byte != b'\\').as_bytes());
            match self.rest().as_bytes().first() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Token::Text(text));
                }
                Some(_) => self.escape(&mut text)?,
                None => return Err(self.problem(start..start + 1, "this text has no closing `\"`")),
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), Problem> {
        let start = self.at;
        let letter = self.rest().chars().nth(1);
        self.at += 1 + letter.map_or(0, char::len_utf8);
        let plain = match letter {
            Some('a') => 0x07,
            Some('b') => 0x08,
            Some('f') => 0x0c,
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('v') => 0x0b,
            Some('\\') => b'\\',
            Some('"') => b'"',
            Some('x') => {
                let byte = self.code(start, 2, 16)?;
                text.push(byte as u8);
                return Ok(());
            }
            Some('0'..='7') => {
                self.at -= 1;
                let byte = self.code(start, 3, 8)?;
                let byte = u8::try_from(byte).map_err(|_| self.problem(start..self.at, "this is above `\\377`"))?;
                text.push(byte);
                return Ok(());
            }
            Some(letter @ ('u' | 'U')) => {
                let code = self.code(start, if letter == 'u' { 4 } else { 8 }, 16)?;
                let Some(character) = char::from_u32(code) else {
                    return Err(self.problem(start..self.at, "this is not a character of Unicode"));
                };
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            Some(other) => {
                let message = format!("unknown escape `\\{other}`; write `\\\\` for a backslash, as in \"\\\\d+\"");
                return Err(self.problem(start..self.at, message));
            }
            None => return Err(self.problem(start..self.at, "the text ends after a backslash")),
        };
        text.push(plain);
        Ok(())
    }

    /// The number in the next `digits` digits.
    fn code(&mut self, start: usize, digits: usize, radix: u32) -> Result<u32, Problem> {
        let found = self.rest().get(..digits).filter(|found| found.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let code = found.and_then(|found| u32::from_str_radix(found, radix).ok());
        let Some(code) = code else {
            let kind = if radix == 8 { "octal" } else { "hexadecimal" };
            return Err(self.problem(start..self.at, format!("{digits} {kind} digits are expected here")));
        };
        self.at += digits;
        Ok(code)
    }
}
