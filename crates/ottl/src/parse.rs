//! From tokens to an expression.
//!
//! Grammar, loosest first; what stands in brackets is one level deeper:
//!
//! ```text
//! or      = and ("or" and)*
//! and     = not ("and" not)*
//! not     = "not"? compare
//! compare = sum (("==" | "!=" | "<" | "<=" | ">" | ">=") sum)?
//! sum     = product (("+" | "-") product)*
//! product = unary (("*" | "/") unary)*
//! unary   = ("+" | "-")? primary
//! primary = literal | list | map | path | call | enum | "(" or ")"
//! ```
//!
//! It is the grammar of the Collector's OTTL, except that it is read without backtracking:
//! parentheses hold either kind of expression, and what does not fit is refused by its meaning.

use std::ops::Range;

use crate::ast::{Argument, Call, CompareOp, Key, Kind, MathOp, Node, Path, Statement};
use crate::functions::CONVERTERS;
use crate::lex::{Token, tokens};
use crate::problem::{Problem, did_you_mean};

/// The longest expression, in bytes.
pub const MAX_LENGTH: usize = 16 << 10;
/// How deep parentheses, brackets and calls may nest.
pub const MAX_DEPTH: usize = 40;

/// Reads a condition.
///
/// # Errors
/// If `source` is not one.
pub fn parse_condition(source: &str) -> Result<Node, Problem> {
    let mut parser = Parser::new(source)?;
    let node = parser.boolean()?;
    match parser.peek() {
        Token::End => Ok(node),
        Token::Sign('=') => Err(parser.unexpected("write `==` to compare")),
        Token::Sign(')') => Err(parser.unexpected("this `)` closes nothing")),
        Token::Where => Err(parser.unexpected("a condition stands by itself, without an editor and `where`")),
        other => {
            let message = format!("expected `and`, `or` or the end, found {}", other.describe());
            Err(parser.unexpected(message))
        }
    }
}

/// Reads a statement: an editor, and a condition after `where` if there is one.
///
/// # Errors
/// If `source` is not one.
pub fn parse_statement(source: &str) -> Result<Statement, Problem> {
    let mut parser = Parser::new(source)?;
    let (token, at) = parser.next();
    let Token::Lower(name) = token else {
        let message = match &token {
            Token::Upper(name) => format!("`{name}` is a converter; a statement begins with an editor, as in set(..)"),
            other => format!("expected an editor, as in set(..), found {}", other.describe()),
        };
        return Err(Problem::new(source, at, message));
    };
    if *parser.peek() != Token::Sign('(') {
        return Err(parser.unexpected("expected `(` after the editor's name"));
    }
    let editor = parser.call(name, at)?;
    if !editor.keys.is_empty() {
        return Err(Problem::new(source, editor.name_at, "an editor gives nothing that could be indexed"));
    }
    let condition = match parser.peek() {
        Token::Where => {
            parser.next();
            Some(parser.boolean()?)
        }
        _ => None,
    };
    match parser.peek() {
        Token::End => Ok(Statement { editor, condition }),
        other => {
            let expected = if condition.is_some() { "`and`, `or`" } else { "`where`" };
            let message = format!("expected {expected} or the end, found {}", other.describe());
            Err(parser.unexpected(message))
        }
    }
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<(Token, Range<usize>)>,
    position: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(source: &'a str) -> Result<Self, Problem> {
        if source.len() > MAX_LENGTH {
            let message = format!("the expression has {} bytes; at most {MAX_LENGTH} are allowed", source.len());
            return Err(Problem::new(source, 0..1, message));
        }
        if source.trim().is_empty() {
            return Err(Problem::new(source, 0..1, "the expression is empty"));
        }
        Ok(Self { source, tokens: tokens(source)?, position: 0, depth: 0 })
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.position).map_or(&Token::End, |(token, _)| token)
    }

    fn at(&self) -> Range<usize> {
        self.tokens.get(self.position).map_or(self.source.len()..self.source.len(), |(_, at)| at.clone())
    }

    /// Where the token before the next one ends.
    fn end(&self) -> usize {
        let before = self.position.checked_sub(1).and_then(|before| self.tokens.get(before));
        before.map_or(0, |(_, at)| at.end)
    }

    fn next(&mut self) -> (Token, Range<usize>) {
        let next = (self.peek().clone(), self.at());
        self.position += 1;
        next
    }

    fn take(&mut self, sign: char) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        self.position += usize::from(found);
        found
    }

    fn unexpected(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.source, self.at(), message)
    }

    fn expect(&mut self, sign: char, after: &str) -> Result<(), Problem> {
        if self.take(sign) {
            return Ok(());
        }
        Err(self.unexpected(format!("expected {after}`{sign}`, found {}", self.peek().describe())))
    }

    /// Runs `read` one level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Problem>) -> Result<T, Problem> {
        if self.depth == MAX_DEPTH {
            return Err(self.unexpected(format!("the expression is nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// An expression that says yes or no.
    fn boolean(&mut self) -> Result<Node, Problem> {
        let node = self.or()?;
        self.check_boolean(&node)?;
        Ok(node)
    }

    fn check_boolean(&self, node: &Node) -> Result<(), Problem> {
        let message = match &node.kind {
            Kind::Bool(_) | Kind::Call(_) => return Ok(()),
            kind if kind.is_boolean_expression() => return Ok(()),
            Kind::Path(_) => "this is a value, not a condition; compare it, as in `.. == true` or `.. != nil`",
            _ => "this is a value, not a condition; compare it with something",
        };
        if *self.peek() == Token::Sign('=') {
            return Err(self.unexpected("write `==` to compare"));
        }
        Err(Problem::new(self.source, node.at.clone(), message))
    }

    fn check_value(&self, node: &Node) -> Result<(), Problem> {
        if !node.kind.is_boolean_expression() {
            return Ok(());
        }
        let message = "this says yes or no and is not a value; join conditions with `and`, `or`, `not`";
        Err(Problem::new(self.source, node.at.clone(), message))
    }

    fn or(&mut self) -> Result<Node, Problem> {
        let first = self.and()?;
        self.joined(first, &Token::Or, Self::and, Kind::Or)
    }

    fn and(&mut self) -> Result<Node, Problem> {
        let first = self.not()?;
        self.joined(first, &Token::And, Self::not, Kind::And)
    }

    fn joined(
        &mut self,
        first: Node,
        by: &Token,
        next: fn(&mut Self) -> Result<Node, Problem>,
        join: fn(Vec<Node>) -> Kind,
    ) -> Result<Node, Problem> {
        if self.peek() != by {
            return Ok(first);
        }
        self.check_boolean(&first)?;
        let start = first.at.start;
        let mut parts = vec![first];
        while self.peek() == by {
            self.next();
            let part = next(self)?;
            self.check_boolean(&part)?;
            parts.push(part);
        }
        Ok(Node { kind: join(parts), at: start..self.end() })
    }

    fn not(&mut self) -> Result<Node, Problem> {
        if *self.peek() != Token::Not {
            return self.compare();
        }
        let (_, at) = self.next();
        if *self.peek() == Token::Not {
            return Err(self.unexpected("one `not` is enough; put the second one into parentheses if it is meant"));
        }
        let part = self.compare()?;
        self.check_boolean(&part)?;
        Ok(Node { kind: Kind::Not(Box::new(part)), at: at.start..self.end() })
    }

    fn compare(&mut self) -> Result<Node, Problem> {
        let left = self.sum()?;
        let Some(op) = self.compare_op() else {
            return Ok(left);
        };
        self.check_value(&left)?;
        self.next();
        let right = self.sum()?;
        self.check_value(&right)?;
        if self.compare_op().is_some() {
            return Err(self.unexpected("comparisons cannot be chained; join two of them with `and`"));
        }
        let at = left.at.start..self.end();
        Ok(Node { kind: Kind::Compare { op, left: Box::new(left), right: Box::new(right) }, at })
    }

    fn compare_op(&self) -> Option<CompareOp> {
        match self.peek() {
            Token::Compare(op) => Some(*op),
            _ => None,
        }
    }

    fn sum(&mut self) -> Result<Node, Problem> {
        self.chain(Self::product, |op| matches!(op, MathOp::Add | MathOp::Subtract))
    }

    fn product(&mut self) -> Result<Node, Problem> {
        self.chain(Self::unary, |op| matches!(op, MathOp::Multiply | MathOp::Divide))
    }

    fn chain(
        &mut self,
        part: fn(&mut Self) -> Result<Node, Problem>,
        belongs: fn(MathOp) -> bool,
    ) -> Result<Node, Problem> {
        let first = part(self)?;
        let mut rest = Vec::new();
        while let &Token::Math(op) = self.peek()
            && belongs(op)
        {
            if rest.is_empty() {
                self.check_number(&first)?;
            }
            self.next();
            let next = part(self)?;
            self.check_number(&next)?;
            rest.push((op, next));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let at = first.at.start..self.end();
        Ok(Node { kind: Kind::Math { first: Box::new(first), rest }, at })
    }

    /// Refuses what can never be calculated with.
    fn check_number(&self, node: &Node) -> Result<(), Problem> {
        let what = match &node.kind {
            Kind::Text(_) => "a text; use Concat([..], \"\") to join texts",
            Kind::Bool(_) => "a boolean",
            Kind::Nil => "nil",
            Kind::Bytes(_) => "bytes",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
            _ => return self.check_value(node),
        };
        Err(Problem::new(
            self.source,
            node.at.clone(),
            format!("only numbers and times are calculated with, not {what}"),
        ))
    }

    fn unary(&mut self) -> Result<Node, Problem> {
        let (negative, start) = match self.peek() {
            Token::Math(MathOp::Subtract) => (true, self.next().1.start),
            Token::Math(MathOp::Add) => (false, self.next().1.start),
            _ => return self.primary(),
        };
        if let (true, &Token::Int(number)) = (negative, self.peek()) {
            let at = start..self.next().1.end;
            // One more than what fits without a sign.
            return match 0i64.checked_sub_unsigned(number) {
                Some(number) => Ok(Node { kind: Kind::Int(number), at }),
                None => Err(Problem::new(self.source, at, "the number does not fit into 64 bits with a sign")),
            };
        }
        let node = self.primary()?;
        self.check_number(&node)?;
        let at = start..self.end();
        let kind = match (negative, node.kind) {
            (true, Kind::Double(number)) => Kind::Double(-number),
            (true, kind) => Kind::Negate(Box::new(Node { kind, at: node.at })),
            (false, kind) => kind,
        };
        Ok(Node { kind, at })
    }

    fn primary(&mut self) -> Result<Node, Problem> {
        let (token, at) = self.next();
        let start = at.start;
        let kind = match token {
            Token::Nil => Kind::Nil,
            Token::True => Kind::Bool(true),
            Token::False => Kind::Bool(false),
            Token::Int(number) => match i64::try_from(number) {
                Ok(number) => Kind::Int(number),
                Err(_) => {
                    return Err(Problem::new(self.source, at, "the number does not fit into 64 bits with a sign"));
                }
            },
            Token::Double(number) => Kind::Double(number),
            Token::Text(text) => Kind::Text(text),
            Token::Bytes(bytes) => Kind::Bytes(bytes),
            Token::Upper(name) if *self.peek() == Token::Sign('(') => Kind::Call(self.call(name, at)?),
            Token::Upper(name) => Kind::Enum(name),
            Token::Lower(name) if *self.peek() == Token::Sign('(') => {
                let hint = did_you_mean(&name, CONVERTERS.iter().map(|signature| signature.name));
                let message = if hint.is_empty() {
                    format!(
                        "`{name}` is no converter: their names begin with an upper-case letter, and editors change data"
                    )
                } else {
                    format!("`{name}` is no converter{hint}")
                };
                return Err(Problem::new(self.source, at, message));
            }
            Token::Lower(name) => Kind::Path(self.path(name)?),
            Token::Sign('[') => Kind::List(self.nested(|parser| parser.items(']', Self::value))?),
            Token::Sign('{') => Kind::Map(self.nested(|parser| parser.items('}', Self::entry))?),
            Token::Sign('(') => {
                let inner = self.nested(|parser| {
                    let inner = parser.or()?;
                    parser.expect(')', "")?;
                    Ok(inner)
                })?;
                inner.kind
            }
            other => {
                let hint = match (&other, self.position) {
                    (Token::End, _) => "",
                    (Token::Compare(_) | Token::And | Token::Or, 1) => "; something is missing before it",
                    _ => "",
                };
                let message = format!("expected a value, found {}{hint}", other.describe());
                return Err(Problem::new(self.source, at, message));
            }
        };
        Ok(Node { kind, at: start..self.end() })
    }

    fn value(&mut self) -> Result<Node, Problem> {
        let node = self.sum()?;
        self.check_value(&node)?;
        if self.compare_op().is_some() {
            return Err(self.unexpected("a comparison is not a value; only conditions compare"));
        }
        Ok(node)
    }

    fn entry(&mut self) -> Result<(Vec<u8>, Node), Problem> {
        let (token, at) = self.next();
        let Token::Text(key) = token else {
            let message = format!("expected a key in double quotes, found {}", token.describe());
            return Err(Problem::new(self.source, at, message));
        };
        self.expect(':', "")?;
        Ok((key, self.value()?))
    }

    /// Items with commas between them, up to `close`. The opening sign is taken already.
    fn items<T>(&mut self, close: char, item: fn(&mut Self) -> Result<T, Problem>) -> Result<Vec<T>, Problem> {
        let mut items = Vec::new();
        if self.take(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if !self.take(',') {
                self.expect(close, "`,` or ")?;
                return Ok(items);
            }
        }
    }

    fn path(&mut self, first: String) -> Result<Path, Problem> {
        let mut names = vec![first];
        while self.take('.') {
            let (token, at) = self.next();
            // Words with a meaning elsewhere are names here.
            let name = match token {
                Token::Lower(name) => name,
                Token::Upper(name) => {
                    let message = format!("the names of fields are in lower case, not `{name}`");
                    return Err(Problem::new(self.source, at, message));
                }
                other => {
                    let message = format!("expected the name of a field after `.`, found {}", other.describe());
                    return Err(Problem::new(self.source, at, message));
                }
            };
            names.push(name);
        }
        let keys = self.keys()?;
        if !keys.is_empty() && *self.peek() == Token::Sign('.') {
            return Err(self.unexpected("nothing follows a key; write nested keys as [\"a\"][\"b\"]"));
        }
        Ok(Path { names, keys })
    }

    fn keys(&mut self) -> Result<Vec<Key>, Problem> {
        let mut keys = Vec::new();
        while self.take('[') {
            let node = self.nested(Self::value)?;
            if !matches!(node.kind, Kind::Text(_) | Kind::Int(_) | Kind::Path(_) | Kind::Call(_) | Kind::Math { .. }) {
                let message = "a key is a text in double quotes, a number, a path or a converter";
                return Err(Problem::new(self.source, node.at, message));
            }
            self.expect(']', "")?;
            keys.push(Key { node });
        }
        Ok(keys)
    }

    /// The next token is `(`.
    fn call(&mut self, name: String, name_at: Range<usize>) -> Result<Call, Problem> {
        self.expect('(', "")?;
        let arguments = self.nested(|parser| parser.items(')', Self::argument))?;
        if let Some(pair) =
            arguments.windows(2).find(|pair| matches!(pair, [a, b] if a.name.is_some() && b.name.is_none()))
        {
            let at = pair.last().map_or(0..0, |argument| argument.value.at.clone());
            return Err(Problem::new(self.source, at, "arguments without a name come before those with one"));
        }
        Ok(Call { name, name_at, arguments, keys: self.keys()? })
    }

    fn argument(&mut self) -> Result<Argument, Problem> {
        let named = matches!(self.tokens.get(self.position + 1), Some((Token::Sign('='), _)));
        let name = match self.peek() {
            Token::Lower(name) if named => Some(name.clone()),
            _ => None,
        };
        if name.is_some() {
            self.position += 2;
        }
        Ok(Argument { name, value: self.value()? })
    }
}
