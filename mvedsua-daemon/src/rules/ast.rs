//! What a rules file says, as it was written.
//!
//! Positions do not count when two trees are compared, so that what was printed and read again is equal to what was there.

use std::fmt;
use std::ops::Range;

/// Something with its place in the file.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub is: T,
    pub span: Range<usize>,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &At<T>) -> bool {
        self.is == other.is
    }
}

/// While which version leads a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The old version leads, the new one follows.
    OutdatedLeader,
    /// The new version leads, the old one follows.
    UpdatedLeader,
}

impl Direction {
    /// Both, in the order of an update.
    pub const ALL: [Direction; 2] = [Direction::OutdatedLeader, Direction::UpdatedLeader];

    /// Returns the word that stands for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Direction::OutdatedLeader => "outdated-leader",
            Direction::UpdatedLeader => "updated-leader",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A file: rules, each with the direction of its section.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: At<String>,
    /// `None` means both.
    pub direction: Option<Direction>,
    pub left: At<Left>,
    /// Empty means `nothing`.
    pub right: At<Vec<RightItem>>,
    pub clauses: Vec<Clause>,
}

/// What the leader did.
#[derive(Clone, Debug, PartialEq)]
pub enum Left {
    Nothing,
    Calls { begin: bool, items: Vec<Item> },
}

/// One part of a left side.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub label: Option<At<String>>,
    pub atom: At<Atom>,
    pub repeat: Option<Repeat>,
}

/// A call, any call, or a group of alternatives.
#[derive(Clone, Debug, PartialEq)]
pub enum Atom {
    Any,
    Call(Call),
    Group(Vec<Vec<Item>>),
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    pub min: u32,
    pub max: Option<u32>,
    /// As few as possible.
    pub lazy: bool,
}

/// A call with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub name: At<String>,
    pub args: Vec<At<Arg>>,
    pub result: Option<At<Outcome>>,
}

/// One argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// `_`: on the left anything, on the right what was recorded.
    Wild,
    /// `any`: anything that the follower passes.
    Any,
    /// A number, a constant, a variable, or a sum of them.
    Value(Expr),
    /// `$name`: one of the descriptors that were remembered.
    Stored(String),
    /// A kind of descriptor and the variable for it.
    Kind(Kind, Option<String>),
    Text(Template),
    Regex(Pattern),
    /// `replace(/a/ -> "b", …)`, on the right.
    Replace(Vec<(Pattern, Template)>),
    /// `lines(/a/ -> "b", …)`, on the right: the same for whole lines, what is no line yet is kept back.
    Lines(Vec<(Pattern, Template)>),
}

/// Kinds of descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Listener,
    Client,
    Socket,
    Pipe,
    Epoll,
    /// With the pattern of its path, where one was given: `*` stands for anything.
    File(Option<String>),
}

/// What is said of a result.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Wild,
    /// Not an error.
    Ok,
    /// Any error.
    Error,
    Value(Expr),
}

/// A number.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Number(i64),
    /// A constant or a variable.
    Name(At<String>),
    /// How many bytes a variable holds.
    Len(At<String>),
    Add(Box<Expr>, Box<Expr>),
    Sub(Box<Expr>, Box<Expr>),
}

/// A string with variables in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

/// A part of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Bytes(Vec<u8>),
    Variable(String),
}

/// A regular expression as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub text: String,
    pub flags: String,
}

/// One part of a right side.
#[derive(Clone, Debug, PartialEq)]
pub enum RightItem {
    /// What the label stands for, as it was recorded.
    Recorded(At<String>),
    /// A call; with a label it is made of what the label stands for.
    Call { label: Option<At<String>>, call: Call },
}

/// What follows the two sides.
#[derive(Clone, Debug, PartialEq)]
pub enum Clause {
    Where(At<Condition>),
    /// `remember x as name`.
    Remember(At<String>, String),
    /// `forget x from name`.
    Forget(At<String>, String),
}

/// A condition on variables.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    Compare(Expr, Comparison, Expr),
    /// A variable's bytes and a string.
    Is(At<String>, Template),
    Matches(At<String>, At<Pattern>),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

/// A comparison of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}
