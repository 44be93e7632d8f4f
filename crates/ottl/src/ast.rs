//! An expression as it is written: what the parser makes, and editors will read.

use std::ops::Range;

/// A part of an expression, and its place in the text as a range of bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub at: Range<usize>,
}

/// What a part of an expression is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `nil`.
    Nil,
    /// `true`, `false`.
    Bool(bool),
    /// `42`.
    Int(i64),
    /// `1.5`.
    Double(f64),
    /// `"text"`. With `\x` escapes it may be other than UTF-8.
    Text(Vec<u8>),
    /// `0x1f`.
    Bytes(Vec<u8>),
    /// `[1, "a"]`.
    List(Vec<Node>),
    /// `{"a": 1}`.
    Map(Vec<(Vec<u8>, Node)>),
    /// `SPAN_KIND_SERVER`.
    Enum(String),
    /// `span.attributes["a"]`.
    Path(Path),
    /// `IsMatch(name, "a")`.
    Call(Call),
    /// `-x`.
    Negate(Box<Node>),
    /// `x + y - z`, or `x * y / z`: from left to right. Flat, so that a long chain is not a deep tree.
    Math {
        /// What it begins with.
        first: Box<Node>,
        /// What is added, subtracted and so on.
        rest: Vec<(MathOp, Node)>,
    },
    /// `x == y`.
    Compare {
        /// How they are compared.
        op: CompareOp,
        /// What is on the left.
        left: Box<Node>,
        /// What is on the right.
        right: Box<Node>,
    },
    /// `x and y and z`.
    And(Vec<Node>),
    /// `x or y or z`.
    Or(Vec<Node>),
    /// `not x`.
    Not(Box<Node>),
}

impl Kind {
    /// Does it say yes or no by itself, without being a value?
    pub(crate) fn is_boolean_expression(&self) -> bool {
        matches!(self, Self::Compare { .. } | Self::And(_) | Self::Or(_) | Self::Not(_))
    }
}

/// A reference to a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// The names between dots; at least one.
    pub names: Vec<String>,
    /// What follows in brackets.
    pub keys: Vec<Key>,
}

/// What stands in brackets.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// A text, a number, a path or a call.
    pub node: Node,
}

/// A function and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The function; converters begin with an upper-case letter, editors with a lower-case one.
    pub name: String,
    /// Where the name stands.
    pub name_at: Range<usize>,
    /// What it is given.
    pub arguments: Vec<Argument>,
    /// What follows in brackets.
    pub keys: Vec<Key>,
}

/// An argument.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its value. The name of a function alone is read as an enum.
    pub value: Node,
}

/// An editor, and the condition under which it is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// The editor.
    pub editor: Call,
    /// What stands after `where`.
    pub condition: Option<Node>,
}

/// `+ - * /`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MathOp {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
}

/// `== != < <= > >=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}
