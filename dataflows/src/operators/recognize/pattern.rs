//! The text of a pattern, read.
//!
//! ```text
//!   choice    = sequence , { "|" , sequence }
//!   sequence  = item , { item }
//!   item      = step | "!" , NAME , [ within ]
//!   step      = ( NAME | "(" , choice , ")" ) , [ count , [ "?" ] ] , [ within ]
//!   count     = "?" | "*" | "+" | "{" n "}" | "{" n "," "}" | "{" n "," m "}" | "{" "," m "}"
//!   within    = "within" , DURATION
//! ```
//!
//! A `within` belongs to the one variable before it. What a pattern means stands in [`super`].

use std::iter::Peekable;
use std::str::CharIndices;

use levada_types::parse_duration_ms;

use crate::expressions::ExpressionProblem;

/// Variables that a pattern may have: they are bits of a word.
pub(super) const MAX_VARIABLES: usize = 64;
/// How deep groups may stand within one another.
const MAX_DEPTH: usize = 32;
/// Words, numbers and signs that a pattern may have.
const MAX_TOKENS: usize = 1_000;
/// The greatest number that a count may have.
const MAX_COUNT: u32 = 10_000;

/// A pattern as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern {
    /// The names of its variables, in the order in which they first occur.
    pub variables: Vec<String>,
    pub tree: Tree,
}

/// Line and column in the text, from 1.
pub(super) type Place = (usize, usize);

/// A part of a pattern. Variables are places in [`Pattern::variables`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    /// A row of a variable, at most `within_ms` after the row before it.
    Step { variable: usize, within_ms: Option<i64>, at: Place },
    /// No row of a variable between the row before and the row behind.
    Not { variable: usize, at: Place },
    /// No row of a variable at most `within_ms` after the last row.
    Absent { variable: usize, within_ms: i64, at: Place },
    /// One after the other.
    Sequence(Vec<Tree>),
    /// One of them, the earlier the better.
    Choice(Vec<Tree>),
    /// Again and again: the more the better, or the less if `reluctant`.
    Repeat { of: Box<Tree>, least: u32, most: Option<u32>, reluctant: bool },
}

/// Reads a pattern.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn parse(text: &str) -> Result<Pattern, ExpressionProblem> {
    let mut parser = Parser { tokens: Tokens::of(text)?, next: 0, variables: Vec::new() };
    if parser.tokens.all.len() == 1 {
        return Err(problem("the pattern is empty; write for instance `A B+ C`", (1, 1)));
    }
    let tree = parser.choice(0)?;
    match parser.peek() {
        (Token::End, _) => Ok(Pattern { variables: parser.variables, tree }),
        (token, at) => Err(problem(format!("{} has no place here", token.told()), at)),
    }
}

/// A problem at a place of the pattern, which is wrong whatever the step reads.
pub(super) fn problem(message: impl Into<String>, at: Place) -> ExpressionProblem {
    ExpressionProblem { at: Some(at), syntax: true, ..ExpressionProblem::new(message) }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Number(String),
    Sign(char),
    End,
}

impl Token {
    fn told(&self) -> String {
        match self {
            Token::Name(text) | Token::Number(text) => format!("`{text}`"),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end of the pattern".into(),
        }
    }
}

struct Tokens {
    all: Vec<(Token, Place)>,
}

impl Tokens {
    fn of(text: &str) -> Result<Tokens, ExpressionProblem> {
        let mut all = Vec::new();
        let (mut line, mut column) = (1, 1);
        let mut chars = text.char_indices().peekable();
        while let Some((start, sign)) = chars.next() {
            let at = (line, column);
            if all.len() == MAX_TOKENS {
                return Err(problem(format!("a pattern has {MAX_TOKENS} words and signs at most"), at));
            }
            column += 1;
            match sign {
                '\n' => (line, column) = (line + 1, 1),
                _ if sign.is_whitespace() => {}
                '?' | '*' | '+' | '{' | '}' | '(' | ')' | '|' | '!' | ',' => all.push((Token::Sign(sign), at)),
                _ if sign.is_ascii_alphabetic() || sign == '_' || sign.is_ascii_digit() => {
                    let word = word(text, start, &mut chars);
                    column += word.len() - 1;
                    let word = word.to_string();
                    all.push((if sign.is_ascii_digit() { Token::Number(word) } else { Token::Name(word) }, at));
                }
                _ => {
                    let problem = problem(format!("`{sign}` is no sign of a pattern"), at);
                    return Err(match habit(sign) {
                        Some(help) => problem.help(help),
                        None => problem,
                    });
                }
            }
        }
        all.push((Token::End, (line, column)));
        Ok(Tokens { all })
    }
}

/// The letters, digits and underscores from `start` on.
fn word<'t>(text: &'t str, start: usize, chars: &mut Peekable<CharIndices<'_>>) -> &'t str {
    let mut end = start + 1;
    while let Some((place, _)) = chars.next_if(|(_, sign)| sign.is_ascii_alphanumeric() || *sign == '_') {
        end = place + 1;
    }
    &text[start..end]
}

/// What other languages of patterns write.
fn habit(sign: char) -> Option<&'static str> {
    match sign {
        '-' | '>' | ';' => Some("steps that follow one another stand side by side: `A B`"),
        '^' | '$' => Some("a pattern has no beginning or end of rows"),
        '~' => Some("that no row of `N` comes between is written `A !N B`"),
        '&' => Some("what comes in any order is written `(A B | B A)`"),
        '[' | ']' => Some("a group stands in parentheses: `(A | B)`"),
        _ => None,
    }
}

struct Parser {
    tokens: Tokens,
    next: usize,
    variables: Vec<String>,
}

impl Parser {
    fn peek(&self) -> (Token, Place) {
        self.tokens.all.get(self.next).or(self.tokens.all.last()).cloned().unwrap_or((Token::End, (1, 1)))
    }

    fn take(&mut self) -> (Token, Place) {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn takes(&mut self, sign: char) -> bool {
        let takes = self.peek().0 == Token::Sign(sign);
        self.next += usize::from(takes);
        takes
    }

    fn choice(&mut self, depth: usize) -> Result<Tree, ExpressionProblem> {
        let mut all = vec![self.sequence(depth)?];
        while self.takes('|') {
            all.push(self.sequence(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Tree::Choice(all) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Tree, ExpressionProblem> {
        let mut all = Vec::new();
        loop {
            let (token, at) = self.peek();
            match token {
                Token::Name(_) => all.push(self.step(depth)?),
                Token::Sign('(') => all.push(self.step(depth)?),
                Token::Sign('!') => all.push(self.negation()?),
                Token::Sign('|' | ')') | Token::End if !all.is_empty() => break,
                Token::Sign('|' | ')') | Token::End => {
                    return Err(problem(format!("a step is missing before {}", token.told()), at));
                }
                Token::Sign('?' | '*' | '+' | '{') => {
                    let message = format!("{} counts nothing: it stands behind a variable or a group", token.told());
                    return Err(problem(message, at));
                }
                _ => return Err(problem(format!("{} has no place here", token.told()), at)),
            }
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Tree::Sequence(all) })
    }

    fn step(&mut self, depth: usize) -> Result<Tree, ExpressionProblem> {
        let (token, at) = self.peek();
        let mut tree = if token == Token::Sign('(') {
            self.next += 1;
            if depth == MAX_DEPTH {
                return Err(problem(format!("groups stand {MAX_DEPTH} deep at most"), at));
            }
            let inner = self.choice(depth + 1)?;
            if !self.takes(')') {
                let (found, at) = self.peek();
                return Err(problem(format!("expected `)`, found {}", found.told()), at));
            }
            inner
        } else {
            let variable = self.variable()?;
            Tree::Step { variable, within_ms: None, at }
        };
        let is_group = token == Token::Sign('(');
        if let Some((least, most)) = self.count()? {
            let reluctant = self.takes('?');
            tree = Tree::Repeat { of: Box::new(tree), least, most, reluctant };
        }
        let (behind, at) = self.peek();
        if let Some(ms) = self.within()? {
            match &mut tree {
                Tree::Step { within_ms, .. } if !is_group => *within_ms = Some(ms),
                Tree::Repeat { of, .. } if !is_group => {
                    if let Tree::Step { within_ms, .. } = of.as_mut() {
                        *within_ms = Some(ms);
                    }
                }
                _ => {
                    let help = "write it behind the variables within, or set the step's own `within`";
                    return Err(problem("a group has no `within`: it belongs to a variable", at).help(help));
                }
            }
        } else if matches!(behind, Token::Sign('?' | '*' | '+' | '{')) {
            let message = "there are two counts: put what the first is of in a group, as `(A{2})+`";
            return Err(problem(message, at));
        }
        Ok(tree)
    }

    fn negation(&mut self) -> Result<Tree, ExpressionProblem> {
        let (_, at) = self.take();
        if let (Token::Sign('('), at) = self.peek() {
            let help = "define a variable for what must not come: `N = \"… or …\"`";
            return Err(problem("`!` stands before one variable", at).help(help));
        }
        let variable = self.variable()?;
        if let (Token::Sign('?' | '*' | '+' | '{'), at) = self.peek() {
            return Err(problem("what must not come is not counted", at));
        }
        Ok(match self.within()? {
            Some(within_ms) => Tree::Absent { variable, within_ms, at },
            None => Tree::Not { variable, at },
        })
    }

    fn variable(&mut self) -> Result<usize, ExpressionProblem> {
        let (token, at) = self.take();
        let Token::Name(name) = token else {
            return Err(problem(format!("expected a variable, found {}", token.told()), at));
        };
        if name == "within" {
            return Err(problem("`within` stands behind a variable, and is none", at));
        }
        if let Some(known) = self.variables.iter().position(|known| *known == name) {
            return Ok(known);
        }
        if self.variables.len() == MAX_VARIABLES {
            return Err(problem(format!("a pattern has {MAX_VARIABLES} variables at most"), at));
        }
        self.variables.push(name);
        Ok(self.variables.len() - 1)
    }

    /// How often, if it is said.
    fn count(&mut self) -> Result<Option<(u32, Option<u32>)>, ExpressionProblem> {
        let (token, at) = self.peek();
        let count = match token {
            Token::Sign('?') => (0, Some(1)),
            Token::Sign('*') => (0, None),
            Token::Sign('+') => (1, None),
            Token::Sign('{') => {
                self.next += 1;
                let least = self.number()?;
                let most = if self.takes(',') { self.number()? } else { least };
                let exact = self.tokens.all.get(self.next - 1).is_some_and(|last| last.0 != Token::Sign(','));
                if !self.takes('}') {
                    let (found, at) = self.peek();
                    return Err(problem(format!("expected `}}`, found {}", found.told()), at));
                }
                if least.is_none() && most.is_none() {
                    return Err(problem("a count needs a number: `{2}`, `{2,}`, `{2,4}` or `{,4}`", at));
                }
                let most = if exact { most } else { None };
                return match (least.unwrap_or(0), most) {
                    (least, Some(most)) if least > most => {
                        Err(problem(format!("{{{least},{most}}} is impossible: {least} is more than {most}"), at))
                    }
                    (_, Some(0)) => Err(problem("what comes no times can be left out", at)),
                    count => Ok(Some(count)),
                };
            }
            _ => return Ok(None),
        };
        self.next += 1;
        Ok(Some(count))
    }

    fn number(&mut self) -> Result<Option<u32>, ExpressionProblem> {
        let (token, at) = self.peek();
        match token {
            Token::Number(digits) => {
                self.next += 1;
                match digits.parse() {
                    Ok(number) if number <= MAX_COUNT => Ok(Some(number)),
                    _ => Err(problem(format!("`{digits}` is no number up to {MAX_COUNT}"), at)),
                }
            }
            _ => Ok(None),
        }
    }

    /// A duration, if one is said.
    fn within(&mut self) -> Result<Option<i64>, ExpressionProblem> {
        if self.peek().0 != Token::Name("within".into()) {
            return Ok(None);
        }
        self.next += 1;
        let (token, at) = self.take();
        let Token::Number(text) = token else {
            return Err(problem(format!("expected a duration as `5m`, found {}", token.told()), at));
        };
        match parse_duration_ms(&text) {
            Ok(0) => Err(problem("this must be longer than no time", at)),
            Ok(ms) => Ok(Some(ms)),
            Err(message) => Err(problem(message, at)),
        }
    }
}
