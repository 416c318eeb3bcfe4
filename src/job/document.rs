//! A job file as a tree that knows where everything stands, and the overrides on top of it.
//!
//! The file and every `--set` flag are *segments* of one text: a place is a byte range in their
//! concatenation, so that a value that came from a flag is reported in that flag.

use std::borrow::Cow;
use std::ops::Range;

use levada_dataflows::plan::Problem;
use levada_types::nearest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::place::{self, Extent};
use super::report::Diagnostic;
use super::syntax;

/// A value and where it stands.
pub type Node<'t> = Spanned<DeValue<'t>>;

/// One piece of text: the file, or a flag.
#[derive(Clone, Debug)]
pub struct Segment {
    /// What reports call it.
    pub name: String,
    /// What it says.
    pub text: String,
    base: usize,
}

/// The texts that make a job, end to end.
#[derive(Clone, Debug)]
pub struct Texts {
    segments: Vec<Segment>,
}

impl Texts {
    /// A file's text, and flags `KEY=VALUE`.
    pub fn new(name: &str, text: &str, overrides: &[String]) -> Self {
        let mut segments = vec![Segment { name: name.into(), text: text.into(), base: 0 }];
        let mut base = text.len() + 1;
        for flag in overrides {
            segments.push(Segment { name: format!("--set {flag}"), text: flag.clone(), base });
            base += flag.len() + 1;
        }
        Texts { segments }
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        self.segments.first().map_or("", |segment| &segment.name)
    }

    /// The segment that a place is in, and the place within it: on one line, on character boundaries.
    pub fn place(&self, span: &Range<usize>) -> (&Segment, Range<usize>) {
        let index = self.segments.partition_point(|segment| segment.base <= span.start).saturating_sub(1);
        let segment = &self.segments[index];
        let text = &segment.text;
        let inside = |offset: usize| {
            let mut offset = offset.saturating_sub(segment.base).min(text.len());
            while !text.is_char_boundary(offset) {
                offset -= 1;
            }
            offset
        };
        let (start, end) = (inside(span.start), inside(span.end.max(span.start)));
        let line = text[start..end].find('\n').unwrap_or(end - start);
        let line = text[start..start + line].trim_end_matches('\r').len();
        (segment, start..start + line)
    }

    /// What stands at a place, which lies in one segment.
    fn text(&self, span: &Range<usize>) -> &str {
        let index = self.segments.partition_point(|segment| segment.base <= span.start).saturating_sub(1);
        let segment = &self.segments[index];
        segment.text.get(span.start - segment.base..span.end.saturating_sub(segment.base)).unwrap_or("")
    }
}

/// A job file, parsed.
pub struct Document<'t> {
    texts: &'t Texts,
    /// The whole.
    pub root: Node<'t>,
}

impl<'t> Document<'t> {
    /// Parses the file and lays the flags over it.
    ///
    /// # Errors
    /// All syntax errors.
    pub fn parse(texts: &'t Texts) -> Result<Self, Vec<Diagnostic>> {
        let (file, flags) = texts.segments.split_at(1);
        let (root, errors) = DeTable::parse_recoverable(&file[0].text);
        let mut found = syntax::errors(&file[0].text, &errors);
        let mut root = Spanned::new(0..0, DeValue::Table(root.into_inner()));
        for flag in flags {
            if let Err(diagnostic) = lay_over(&mut root, flag) {
                found.push(diagnostic);
            }
        }
        if found.is_empty() { Ok(Document { texts, root }) } else { Err(found) }
    }

    /// The value at a path of keys.
    pub fn find(&self, path: &[&str]) -> Option<&Node<'t>> {
        path.iter().try_fold(&self.root, |node, key| step(node, key).map(|(_, value)| value))
    }

    /// The entries of a table at the top, in the order of the file.
    pub fn children(&self, section: &str) -> Vec<(&str, &Node<'t>)> {
        let table = self.find(&[section]).and_then(|node| node.get_ref().as_table());
        let mut entries: Vec<_> = table.into_iter().flat_map(DeTable::iter).collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries.into_iter().map(|(key, value)| (key.get_ref().as_ref(), value)).collect()
    }

    /// A planner's problem, whose path starts at the top, at its place in the text.
    pub fn diagnose(&self, problem: &Problem) -> Diagnostic {
        let mut span = self.root.span();
        let mut key_span = None;
        let mut node = &self.root;
        let mut whole = true;
        for key in &problem.path {
            let Some((place, child)) = step(node, key) else {
                whole = false;
                break;
            };
            node = child;
            key_span = (problem.wrong.as_deref() == Some(key.as_str())).then(|| place.clone());
            // A table made by its children's headers has no place of its own but its name.
            span = if child.get_ref().is_table() && child.span() == place { place } else { child.span() };
        }
        if let (Some(at), true, DeValue::String(_)) = (problem.within, whole, node.get_ref()) {
            let raw = self.texts.text(&span);
            let extent = match (problem.until, &problem.wrong) {
                (Some(end), _) => Extent::Until(end),
                (None, Some(wrong)) => Extent::Text(wrong),
                (None, None) => Extent::Word,
            };
            let inner = place::within(raw, at, extent);
            span = span.start + inner.start..span.start + inner.end;
        }
        // What is wrong may be the key itself, as in `on = { destt = "faa" }`.
        let span = key_span.filter(|_| whole && problem.within.is_none()).unwrap_or(span);
        let diagnostic = Diagnostic::error(&problem.message).at(span);
        let known = problem.known.iter().map(String::as_str);
        match (&problem.wrong, &problem.help) {
            (Some(wrong), None) => diagnostic.offer(wrong, known),
            (Some(wrong), Some(help)) => match nearest(wrong, &known.collect::<Vec<_>>()) {
                Some(name) => diagnostic.help(format!("did you mean `{name}`? {help}")),
                None => diagnostic.help(help),
            },
            (None, Some(help)) => diagnostic.help(help),
            (None, None) => diagnostic,
        }
    }
}

/// One step down: the place of the key (or of the element) and the value.
fn step<'n, 't>(node: &'n Node<'t>, key: &str) -> Option<(Range<usize>, &'n Node<'t>)> {
    match node.get_ref() {
        DeValue::Table(table) => table.get_key_value(key).map(|(key, value)| (key.span(), value)),
        DeValue::Array(array) => {
            let value = array.get(key.parse::<usize>().ok()?)?;
            Some((value.span(), value))
        }
        _ => None,
    }
}

/// Puts a flag's value at its key, making tables on the way.
fn lay_over<'t>(root: &mut Node<'t>, flag: &'t Segment) -> Result<(), Diagnostic> {
    const USAGE: &str = "write `--set KEY=VALUE`, for instance `--set job.epoch=50ms`";
    let whole = flag.base..flag.base + flag.text.len();
    let Some((key_text, value_text)) = flag.text.split_once('=') else {
        return Err(Diagnostic::error(format!("`--set {}` sets nothing", flag.text)).at(whole).help(USAGE));
    };
    let keys: Vec<(String, Range<usize>)> = keys(key_text, flag.base).ok_or_else(|| {
        Diagnostic::error(format!("`{key_text}` is not a dotted key")).at(whole).help(USAGE)
    })?;
    let at = flag.base + key_text.len() + 1;
    let value = match DeValue::parse(value_text) {
        Ok(value) => shifted(value, at),
        Err(_) => Spanned::new(at..at + value_text.len(), DeValue::String(Cow::Borrowed(value_text))),
    };
    let Some(((last, last_span), parents)) = keys.split_last() else { return Ok(()) };
    let mut node = root;
    for (key, span) in parents {
        node = enter(node, key, span)?;
    }
    let new = Spanned::new(last_span.clone(), Cow::Owned(last.clone()));
    match node.get_mut() {
        DeValue::Table(table) => {
            // A key that is there keeps its place among the others.
            match table.get_mut(last.as_str()) {
                Some(old) => *old = value,
                None => drop(table.insert(new, value)),
            }
            Ok(())
        }
        DeValue::Array(_) => {
            *enter(node, last, last_span)? = value;
            Ok(())
        }
        other => Err(no_table(last, last_span, other.type_str())),
    }
}

fn enter<'n, 't>(
    node: &'n mut Node<'t>,
    key: &str,
    span: &Range<usize>,
) -> Result<&'n mut Node<'t>, Diagnostic> {
    match node.get_mut() {
        DeValue::Table(table) => Ok(table
            .entry(Spanned::new(span.clone(), Cow::Owned(key.to_string())))
            .or_insert_with(|| Spanned::new(span.clone(), DeValue::Table(DeTable::new())))),
        DeValue::Array(array) => {
            let length = array.len();
            let element = key.parse::<usize>().ok().and_then(|index| array.get_mut(index));
            element.ok_or_else(|| {
                Diagnostic::error(format!("there is no element `{key}` in a list of {length}"))
                    .at(span.clone())
            })
        }
        other => Err(no_table(key, span, other.type_str())),
    }
}

fn no_table(key: &str, span: &Range<usize>, found: &str) -> Diagnostic {
    Diagnostic::error(format!("`{key}` would be a field of a {found}, which has none")).at(span.clone())
}

/// A dotted key's parts and their places. An element of a list may be written `policies.0` or
/// `policies[0]`.
fn keys(text: &str, base: usize) -> Option<Vec<(String, Range<usize>)>> {
    let document = format!("{}=0", dotted(text));
    let root = DeTable::parse(&document).ok()?;
    let mut parts = Vec::new();
    let mut table = root.get_ref();
    loop {
        let (key, value) = table.iter().next()?;
        parts.push((key.get_ref().to_string(), base + key.span().start..base + key.span().end));
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return Some(parts),
        }
    }
}

/// `policies[0].name` as `policies.0 .name`: the parts stay where they were.
fn dotted(key: &str) -> String {
    let mut quote = None;
    let out = key.chars().map(|c| match (quote, c) {
        (None, '"' | '\'') => {
            quote = Some(c);
            c
        }
        (Some(open), _) if open == c => {
            quote = None;
            c
        }
        (None, '[') => '.',
        (None, ']') => ' ',
        _ => c,
    });
    out.collect()
}

/// The same value, `by` bytes further on.
fn shifted(node: Node<'_>, by: usize) -> Node<'_> {
    let span = node.span().start + by..node.span().end + by;
    let value = match node.into_inner() {
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(|node| shifted(node, by)).collect()),
        DeValue::Table(table) => {
            let moved = |key: Spanned<Cow<'_, str>>| {
                Spanned::new(
                    key.span().start + by..key.span().end + by,
                    Cow::Owned(key.into_inner().into_owned()),
                )
            };
            DeValue::Table(table.into_iter().map(|(key, node)| (moved(key), shifted(node, by))).collect())
        }
        scalar => scalar,
    };
    Spanned::new(span, value)
}
