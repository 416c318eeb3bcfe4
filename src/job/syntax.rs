//! What is wrong with a text that is no TOML, in the words of whoever wrote it.
//!
//! The parser goes on after an error and reports what it stumbles over next, so one slip may give a dozen.
//! Told are those that do not only follow from another. Two slips are looked for first, because the parser
//! blames innocent lines for them: a list that is not closed, and a text without its quotes.

use std::ops::Range;

use toml::de::DeValue;

use super::report::Diagnostic;

/// How many errors are told one by one.
const SHOWN: usize = 8;

/// The errors in the order of the text, less those that only follow from another: what comes after a bracket
/// that is not closed, the later ones of a line, and the keys of a table that is there twice.
pub fn errors(text: &str, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
    const TWICE: &str = "duplicate key";
    let mut found = Vec::new();
    let open = if errors.is_empty() { None } else { unclosed(text) };
    let mut last_line = None;
    let (mut line, mut counted) = (0, 0);
    let mut twice: Option<usize> = None;
    let mut errors: Vec<(Range<usize>, &str)> =
        errors.iter().map(|error| (error.span().unwrap_or_default(), error.message().trim_end())).collect();
    errors.sort_by_key(|(span, _)| span.start);
    for (span, message) in errors {
        if let Some(open) = open.as_ref().filter(|open| span.start >= open.at) {
            found.push(open.diagnostic());
            break;
        }
        let before = text.get(..span.start).unwrap_or(text);
        // Counted on from the error before, or a long file with an error a line would take for ever.
        line += before.bytes().skip(counted).filter(|&byte| byte == b'\n').count();
        counted = before.len();
        let start_of_line = before.rfind('\n').map_or(0, |end| end + 1);
        let is_header = text[start_of_line..].trim_start().starts_with('[');
        let is_twice = message == TWICE;
        let same_table = |header: usize| !before.get(header..).unwrap_or("").contains("\n[");
        if last_line.replace(line) == Some(line) || (is_twice && twice.is_some_and(same_table)) {
            continue;
        }
        if is_twice && is_header {
            twice = Some(span.start);
        }
        found.push(match unquoted(text, start_of_line, message) {
            Some(diagnostic) => diagnostic,
            None => one(message, text.get(span.clone()).unwrap_or(""), is_twice).at(span),
        });
    }
    summed_up(found)
}

/// The first of a great many errors, and how many more there are: a file that is no TOML at all has one a line.
fn summed_up(mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let more = found.len().saturating_sub(SHOWN);
    if more > 1
        && let Some(first) = found.get(SHOWN)
    {
        let here = first.span.clone().unwrap_or_default();
        let rest = Diagnostic::error(format!("from here on there are {more} more errors")).at(here);
        found.truncate(SHOWN);
        found.push(rest.help("a job file is TOML, as in `config/jobs/first.toml`"));
    }
    found
}

fn one(message: &str, there: &str, is_twice: bool) -> Diagnostic {
    let no_value = is_no_value(message);
    match there {
        key if is_twice => Diagnostic::error(format!("`{key}` is there twice")),
        "" if no_value => Diagnostic::error("there is no value"),
        word if no_value => no_toml_value(word),
        _ => Diagnostic::error(message),
    }
}

fn is_no_value(message: &str) -> bool {
    message.starts_with("string values must be quoted") || message.starts_with("invalid boolean")
}

fn no_toml_value(value: &str) -> Diagnostic {
    let help = match value.contains(['"', '\'']) {
        true => "text stands in quotes".into(),
        false => format!("text stands in quotes: `\"{value}\"`"),
    };
    Diagnostic::error(format!("`{value}` is not a TOML value")).help(help)
}

/// `key = a >= 3`, where the value is a text without its quotes, and `key = 5,`.
fn unquoted(text: &str, start_of_line: usize, message: &str) -> Option<Diagnostic> {
    if !message.starts_with("unexpected key or value") && !is_no_value(message) {
        return None;
    }
    let line = text.get(start_of_line..)?.lines().next()?;
    let (key, value) = line.split_once('=').filter(|_| begins_anew(line))?;
    let start = start_of_line + key.len() + 1 + (value.len() - value.trim_start().len());
    let value = value.split('#').next().unwrap_or_default().trim();
    let at = start..start + value.len();
    if let Some(without) = value.strip_suffix([',', ';'])
        && DeValue::parse(without.trim()).is_ok()
    {
        let sign = value.len() - 1;
        let message = format!("there is no `{}` at the end of a field", &value[sign..]);
        return Some(Diagnostic::error(message).at(at.start + sign..at.end));
    }
    if value.is_empty() || value.starts_with(['"', '\'', '[', '{']) {
        return None;
    }
    Some(match value.contains(" = ") {
        true => Diagnostic::error("a line has one field").at(at),
        false => no_toml_value(value).at(at),
    })
}

/// A bracket that nothing closes.
#[derive(Debug, PartialEq, Eq)]
struct Unclosed {
    at: usize,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Header,
    List,
    /// It is closed, but holds `key = value`.
    ListOfFields,
}

impl Unclosed {
    fn diagnostic(&self) -> Diagnostic {
        let diagnostic = Diagnostic::error(match self.what {
            What::Header => "the header of a table that begins here has no `]`",
            What::List => "the list that begins here has no `]`",
            What::ListOfFields => "the list that begins here has fields, and a list has values only",
        });
        let diagnostic = diagnostic.at(self.at..self.at + 1);
        match self.what {
            What::ListOfFields => diagnostic.help("fields stand in braces: `{ name = \"value\" }`"),
            What::Header | What::List => diagnostic,
        }
    }
}

/// An opening bracket, and what it opens.
#[derive(Clone, Copy)]
struct Opened {
    at: usize,
    sign: u8,
    header: bool,
}

/// The `[` that is still open where the next table or the text ends. None where quotes or braces are in
/// disorder too: then it is not certain which is to blame.
fn unclosed(text: &str) -> Option<Unclosed> {
    let mut open: Vec<Opened> = Vec::new();
    let mut fields: Option<usize> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(last) = open.last() {
            // A header line ends whatever was open.
            if is_header_line(line) {
                break;
            }
            if last.header {
                return Some(Unclosed { at: last.at, what: What::Header });
            }
            if last.sign == b'[' && begins_anew(line) {
                fields.get_or_insert(last.at);
            }
        }
        if line.contains("\"\"\"") || line.contains("'''") {
            // Texts of several lines are left to the parser.
            return None;
        }
        scan(line, start, &mut open)?;
        if let Some(at) = fields.filter(|at| !open.iter().any(|opened| opened.at == *at)) {
            return Some(Unclosed { at, what: What::ListOfFields });
        }
        start += line.len();
    }
    let last = open.last().filter(|last| last.sign == b'[')?;
    Some(Unclosed { at: last.at, what: if last.header { What::Header } else { What::List } })
}

/// Opens and closes what a line does, which begins at `start`. None if its quotes or brackets do not match.
fn scan(line: &str, start: usize, open: &mut Vec<Opened>) -> Option<()> {
    let mut quote = None;
    let mut escaped = false;
    for (offset, byte) in line.bytes().enumerate() {
        match (quote, byte) {
            (Some(b'"'), b'\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(sign), byte) if byte == sign && !escaped => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'#') => break,
            (None, b'[' | b'{') => {
                let header = byte == b'[' && open.is_empty() && line[..offset].trim().is_empty();
                open.push(Opened { at: start + offset, sign: byte, header });
            }
            (None, b']' | b'}') => {
                let opened = open.pop()?;
                if (opened.sign == b'[') != (byte == b']') {
                    return None;
                }
            }
            _ => {}
        }
        escaped = false;
    }
    quote.is_none().then_some(())
}

/// Whether a line is `[table]` and no more.
fn is_header_line(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    let inner = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
    let name = inner.map(|inner| inner.trim_start_matches('[').trim_end_matches(']'));
    name.is_some_and(|name| is_name(name) && !matches!(name, "true" | "false" | "inf" | "nan"))
}

/// Whether a line is `key = …`.
fn begins_anew(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| is_name(key))
}

/// Whether it is a name that needs no quotes, or several with dots between.
fn is_name(name: &str) -> bool {
    let name = name.trim();
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(String, String)> {
        let (_, errors) = toml::de::DeTable::parse_recoverable(text);
        let told = super::errors(text, &errors).into_iter();
        told.map(|one| (one.message, text.get(one.span.unwrap_or_default()).unwrap_or("").to_string()))
            .collect()
    }

    fn at(text: &str) -> Option<(usize, What)> {
        unclosed(text).map(|open| (open.at, open.what))
    }

    #[test]
    fn a_bracket_is_blamed_only_where_nothing_closes_it() {
        assert_eq!(at("key = [\"a\"\nb = 1\n[c]\n"), Some((6, What::List)));
        assert_eq!(at("key = [\n  [\"a\"\n"), Some((10, What::List)), "the inner one");
        assert_eq!(at("[job\nname = \"x\"\n"), Some((0, What::Header)));
        assert_eq!(at("a = [\n n = \"x\",\n m = \"y\"\n]\n"), Some((4, What::ListOfFields)));
        for innocent in [
            "a = [\n  [true],\n  [1e5]\n]\n",
            "a = [ # [\n  \"]\", '[', \"\\\"[\",\n]\n[[b]]\n",
            "a = [\n  { n = 1, m = [2] },\n  { n = 3 },\n]\r\n",
            // Something else is missing.
            "key = [\"meter]\nb = 1\n",
            "key = [meter\", \"zone\"]\nb = 1\n",
            "p = [\n { name = \"many, when = \"n > 3\" },\n]\n[b]\n",
            "p = [\n { name = \"many\",\n { name = \"few\" },\n]\n[b]\n",
            "a = 1 \"\"\"\nb = [\n",
        ] {
            assert_eq!(at(innocent), None, "{innocent}");
        }
    }

    #[test]
    fn a_value_without_quotes_is_all_of_it_and_no_more() {
        let no_value = |value: &str| vec![(format!("`{value}` is not a TOML value"), value.to_string())];
        assert_eq!(told("when = n >= 3 # often\n"), no_value("n >= 3"));
        let comma =
            |sign: &str| vec![(format!("there is no `{sign}` at the end of a field"), sign.to_string())];
        assert_eq!(told("a = 5,\n"), comma(","));
        assert_eq!(told("a = true;\n"), comma(";"));
        assert_eq!(told("a = 5; b = 4\n"), [("a line has one field".to_string(), "5; b = 4".to_string())]);
    }

    #[test]
    fn errors_come_in_the_order_of_the_text() {
        let text: String = (0..12).map(|n| format!("a{n} = \n")).collect();
        let all = told(&text);
        assert_eq!(all.len(), SHOWN + 1);
        assert_eq!(all[SHOWN].0, "from here on there are 4 more errors");
    }
}
