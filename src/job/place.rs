//! From a place in a string's value to a place in its TOML literal.
//!
//! An expression's problem is known by line and column of the *value*; the text has quotes, escapes
//! and, in multi-line strings, a first line break that does not count.

use std::ops::Range;

/// How much is marked.
#[derive(Clone, Copy, Debug)]
pub enum Extent<'a> {
    /// The word that stands there.
    Word,
    /// This text, if it is what stands there; otherwise the word.
    Text(&'a str),
    /// All before this line and column.
    Until((usize, usize)),
}

/// The bytes of `raw`, a TOML string literal (or bare text), where the value's character at `at`
/// (line and column, from 1) stands, and as much behind it as `extent` says.
pub fn within(raw: &str, at: (usize, usize), extent: Extent<'_>) -> Range<usize> {
    let (characters, end) = characters(raw);
    let found = index_of(&characters, at);
    let value = |index: usize| characters.get(index).map(|&(_, c)| c);
    let place = |index: usize| characters.get(index).map_or(end, |&(offset, _)| offset);
    let matches = |word: &&str| {
        word.chars().enumerate().all(|(i, c)| value(found + i).is_some_and(|v| v.eq_ignore_ascii_case(&c)))
    };
    let length = match extent {
        Extent::Until(end) => index_of(&characters, end).saturating_sub(found).max(1),
        Extent::Text(text) if !text.is_empty() && matches(&text) => text.chars().count(),
        _ => {
            let word = |index: &usize| value(*index).is_some_and(|c| c.is_alphanumeric() || c == '_');
            (found..).take_while(word).count().max(1)
        }
    };
    let start = place(found);
    start..place(found + length).max(start)
}

/// Which character stands at a line and column; the end if there is none.
fn index_of(characters: &[(usize, char)], at: (usize, usize)) -> usize {
    let (mut line, mut column) = (1, 1);
    for (index, &(_, c)) in characters.iter().enumerate() {
        if (line, column) == at || line > at.0 {
            return index;
        }
        if c == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    characters.len()
}

/// The characters of the value, each with its byte in the literal, and the byte where the value ends.
fn characters(raw: &str) -> (Vec<(usize, char)>, usize) {
    let (quotes, basic) = if raw.starts_with("\"\"\"") {
        (3, true)
    } else if raw.starts_with("'''") {
        (3, false)
    } else if raw.starts_with('"') {
        (1, true)
    } else {
        (usize::from(raw.starts_with('\'')), false)
    };
    let end = raw.len().saturating_sub(quotes).max(quotes.min(raw.len()));
    let mut start = quotes.min(raw.len());
    if quotes == 3 {
        let body = &raw[start..];
        start += if body.starts_with("\r\n") { 2 } else { usize::from(body.starts_with('\n')) };
    }
    let mut out = Vec::new();
    let mut rest = raw.get(start..end).unwrap_or("").char_indices().map(|(i, c)| (start + i, c)).peekable();
    while let Some((offset, c)) = rest.next() {
        if !(basic && c == '\\') {
            out.push((offset, c));
            continue;
        }
        match rest.next().map(|(_, c)| c) {
            Some(blank) if blank.is_whitespace() => {
                while rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
            }
            Some('n') => out.push((offset, '\n')),
            Some(kind @ ('u' | 'U' | 'x')) => {
                let digits = match kind {
                    'u' => 4,
                    'U' => 8,
                    _ => 2,
                };
                let hex: String = rest.by_ref().take(digits).map(|(_, c)| c).collect();
                let c = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
                out.push((offset, c.unwrap_or('?')));
            }
            Some('t') => out.push((offset, '\t')),
            Some(other) => out.push((offset, other)),
            None => {}
        }
    }
    (out, end)
}

#[cfg(test)]
mod tests {
    use super::{Extent, within};

    fn text(raw: &str, at: (usize, usize)) -> &str {
        &raw[within(raw, at, Extent::Word)]
    }

    #[test]
    fn finds_the_word_in_every_kind_of_string() {
        assert_eq!(text("\"a > dely\"", (1, 5)), "dely");
        assert_eq!(text("'a > dely'", (1, 5)), "dely");
        assert_eq!(text("\"\"\"\na >\n dely\"\"\"", (2, 2)), "dely");
        assert_eq!(text("'''a >\n dely + 1'''", (2, 2)), "dely");
        assert_eq!(text("a > dely", (1, 5)), "dely");
    }

    #[test]
    fn escapes_count_as_the_one_character_they_mean() {
        assert_eq!(text(r#""\"x\" > dely""#, (1, 7)), "dely");
        assert_eq!(text(r#""\u00e9 > dely""#, (1, 5)), "dely");
        assert_eq!(text("\"\"\"a > \\\n   dely\"\"\"", (1, 5)), "dely");
        assert_eq!(text(r#""a >\ndely""#, (2, 1)), "dely");
    }

    #[test]
    fn a_place_past_the_end_is_the_end() {
        assert_eq!(within("\"abc\"", (1, 4), Extent::Word), 4..4);
        assert_eq!(within("\"abc\"", (9, 9), Extent::Word), 4..4);
        assert_eq!(within("\"", (1, 1), Extent::Word), 1..1);
    }

    #[test]
    fn a_wrong_name_with_blanks_is_marked_whole() {
        let raw = "\"x = 'two words'\"";
        assert_eq!(&raw[within(raw, (1, 6), Extent::Text("two words"))], "two words");
    }

    #[test]
    fn a_part_is_marked_to_its_end() {
        let raw = r#""a > 1 and \"b\" + 'x' > 2""#;
        assert_eq!(&raw[within(raw, (1, 11), Extent::Until((1, 20)))], r#"\"b\" + 'x'"#);
        let raw = "'''a +\n b > 2'''";
        assert_eq!(&raw[within(raw, (1, 1), Extent::Until((2, 3)))], "a +\n b");
    }
}
