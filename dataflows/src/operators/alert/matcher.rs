//! Matchers: which alerts a rule, a silence or an acknowledgement is about.
//!
//! | written | matches a label |
//! | --- | --- |
//! | `service = "shop"` | of that value |
//! | `service != "shop"` | of any other, or none |
//! | `service =~ "shop|stock"` | whose whole value the regular expression matches |
//! | `service !~ "shop|stock"` | whose whole value it does not |
//!
//! A label that is missing has the empty value. Several, between commas and, if one likes, in braces, have to match all:
//! `{service="shop", severity=~"crit.*"}`. Quotes may be left out around what has neither quotes, commas nor braces; within
//! them `\"`, `\\` and `\n` are escapes.

use regex::{Regex, RegexBuilder};

use super::labels::Labels;

/// The most matchers that a text may have.
const MAX_MATCHERS: usize = 50;
/// How much memory a compiled expression may take.
const MAX_REGEX_BYTES: usize = 1 << 17;
/// The longest text of matchers.
const MAX_TEXT_BYTES: usize = 4096;

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    pub(super) name: String,
    wanted: Wanted,
    /// Whether it is to match, or not to.
    equal: bool,
}

#[derive(Clone, Debug)]
enum Wanted {
    Text(String),
    Expression(Regex),
}

impl Matcher {
    pub(super) fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.name);
        let same = match &self.wanted {
            Wanted::Text(text) => value == text,
            Wanted::Expression(regex) => regex.is_match(value),
        };
        same == self.equal
    }

    fn of(name: &str, operator: &str, text: &str) -> Result<Matcher, String> {
        let wanted = match operator {
            "=" | "!=" => Wanted::Text(text.to_owned()),
            _ => {
                let built = |text: &str| {
                    RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES).build()
                };
                // A text that closes the group and opens another would not be anchored.
                match built(text).and_then(|_| built(&format!("^(?s:{text})$"))) {
                    Ok(regex) => Wanted::Expression(regex),
                    Err(_) => return Err(format!("`{text}` is no regular expression that can be used")),
                }
            }
        };
        Ok(Matcher { name: name.to_owned(), wanted, equal: operator.starts_with('=') })
    }
}

/// Whether all of them match.
pub(super) fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels))
}

/// Reads matchers.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn parse(text: &str) -> Result<Vec<Matcher>, String> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("matchers of more than {MAX_TEXT_BYTES} bytes"));
    }
    let mut rest = text.trim();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner.strip_suffix('}').ok_or("there is a `{` without its `}`")?.trim();
    }
    let mut matchers = Vec::new();
    while !rest.is_empty() {
        if matchers.len() == MAX_MATCHERS {
            return Err(format!("more than {MAX_MATCHERS} matchers"));
        }
        let (matcher, behind) = one(rest)?;
        matchers.push(matcher);
        rest = match behind.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if behind.is_empty() => behind,
            None => return Err(format!("a comma is missing before `{behind}`")),
        };
    }
    Ok(matchers)
}

/// Reads the matchers of a silence.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn parse_silence(text: &str) -> Result<Vec<Matcher>, String> {
    let matchers = parse(text)?;
    // What matches an alert without any label matches all that there are.
    if all_match(&matchers, &Labels::default()) {
        return Err("a silence must have a matcher that does not match what is empty".into());
    }
    Ok(matchers)
}

/// The first matcher of a text, and what stands behind it.
fn one(text: &str) -> Result<(Matcher, &str), String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || "_:.-".contains(c))).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return Err(format!("a matcher begins with a label's name, as in `service=\"shop\"`, and not `{text}`"));
    }
    let rest = rest.trim_start();
    let operator = ["=~", "!~", "!=", "="].into_iter().find(|operator| rest.starts_with(operator));
    let Some(operator) = operator else {
        return Err(format!("behind `{name}` there must be one of `=`, `!=`, `=~`, `!~`"));
    };
    let rest = rest[operator.len()..].trim_start();
    let (value, behind) = match rest.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => {
            let end = rest.find(['"', ',', '{', '}']).unwrap_or(rest.len());
            (rest[..end].trim_end().to_owned(), &rest[end..])
        }
    };
    Ok((Matcher::of(name, operator, &value)?, behind.trim_start()))
}

/// The text up to the quote that ends it, and what stands behind that.
fn unquote(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((place, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[place + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                // Of a regular expression, as in `\d`.
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err("there is a quote without the one that ends it".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_match_whole_values_and_what_is_missing_is_empty() {
        let labels = Labels::new([("service", "shop"), ("note", "a \"b\", c\\d\ne")]);
        for (text, expected) in [
            ("service=\"shop\"", true),
            ("service = shop", true),
            ("service=sho", false),
            ("service!=shop", false),
            ("service!=stock", true),
            ("service=~\"shop|stock\"", true),
            ("service=~\"ho\"", false),
            ("service=~\".*ho.*\"", true),
            ("service=~\"s|shopper\"", false),
            ("service!~\"ho\"", true),
            ("service!~\"shop\"", false),
            ("zone=\"\"", true),
            ("zone!=\"\"", false),
            ("zone=~\".*\"", true),
            ("zone=~\".+\"", false),
            ("zone!=\"a\"", true),
            ("{service=\"shop\", zone=\"\"}", true),
            ("{service=\"shop\",zone=\"a\",}", false),
            (r#"note="a \"b\", c\\d\ne""#, true),
            (r#"note=~"a.*\ne""#, true),
            ("{}", true),
        ] {
            let matchers = parse(text).unwrap();
            assert_eq!(all_match(&matchers, &labels), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_matcher_is_refused_with_the_reason() {
        for (text, expected) in [
            ("=\"a\"", "begins with a label's name"),
            ("service", "there must be one of"),
            ("service=\"a", "a quote without"),
            ("{service=\"a\"", "`{` without its `}`"),
            ("service=\"a\" zone=\"b\"", "a comma is missing before `zone"),
            ("service=~\"(\"", "no regular expression"),
            ("service=~\"a)|(b\"", "no regular expression"),
            ("service=~\"(a{1000}){1000}\"", "no regular expression"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        assert!(parse(&"a=b,".repeat(51)).is_err() && parse(&"a=b,".repeat(50)).is_ok());
        assert!(parse(&format!("a=\"{}\"", "x".repeat(5000))).is_err());
    }
}
