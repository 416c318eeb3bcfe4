//! Texts into the ids of pieces of words, as BERT cuts them (Devlin and others, 2019; `BertTokenizer`).
//!
//! ```text
//!   "Pool exhausted!" ──► pool  exhausted  ! ──► [CLS]  pool  exhaust  ##ed  !  [SEP]  [PAD] …
//! ```
//!
//! White space separates words, and each sign of punctuation and each ideograph is a word. Where the model asks for it they are
//! made lower case and lose their accents. A word becomes the longest piece that it begins with, and so on with the rest
//! (pieces within a word begin with `##`); one that cannot be cut so, or is longer than [`MAX_WORD`], is unknown.
//!
//! One difference: beyond ASCII, punctuation is what stands in [`is_sign`], and not all of Unicode's.

use std::collections::HashMap;

use levada_types::TextTokenizer;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// The letters of the longest word that is cut up.
const MAX_WORD: usize = 100;

/// The pieces of a vocabulary.
#[derive(Clone, Debug)]
pub struct WordPiece {
    pieces: HashMap<String, i64>,
    lowercase: bool,
    tokens: usize,
    padding: i64,
    unknown: i64,
    first: i64,
    last: i64,
}

impl WordPiece {
    /// Takes a vocabulary, a piece a line, for sequences of so many tokens.
    ///
    /// # Errors
    /// When it lacks a piece that it must have, or has one twice.
    pub fn new(vocabulary: &str, lowercase: bool, tokens: usize) -> Result<WordPiece, String> {
        let mut pieces = HashMap::new();
        for (line, piece) in (0..).zip(vocabulary.lines()) {
            if pieces.insert(piece.to_string(), line).is_some() {
                return Err(format!("line {} has the piece `{piece}` a second time", line + 1));
            }
        }
        let special = |piece: &str| {
            pieces.get(piece).copied().ok_or_else(|| format!("the vocabulary has no piece `{piece}`"))
        };
        let (padding, unknown) = (special("[PAD]")?, special("[UNK]")?);
        let (first, last) = (special("[CLS]")?, special("[SEP]")?);
        Ok(WordPiece { padding, unknown, first, last, pieces, lowercase, tokens })
    }

    /// How many pieces there are.
    pub fn size(&self) -> usize {
        self.pieces.len()
    }

    /// The id that stands where there is no piece.
    pub fn padding(&self) -> i64 {
        self.padding
    }

    /// The pieces of a word.
    fn cut(&self, word: &str, ids: &mut Vec<i64>) {
        let before = ids.len();
        let mut rest = word;
        let mut piece = String::new();
        while !rest.is_empty() && word.chars().count() <= MAX_WORD {
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
            let found = ends.into_iter().find_map(|end| {
                piece.clear();
                piece.push_str(if rest.len() < word.len() { "##" } else { "" });
                piece.push_str(&rest[..end]);
                Some((end, *self.pieces.get(&piece)?))
            });
            let Some((end, id)) = found else { break };
            ids.push(id);
            rest = &rest[end..];
        }
        if !rest.is_empty() {
            ids.truncate(before);
            ids.push(self.unknown);
        }
    }

    fn words(&self, text: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let text = match self.lowercase {
            true => text.to_lowercase().nfd().filter(|c| !is_combining_mark(*c)).collect(),
            false => text.to_string(),
        };
        for c in text.chars() {
            if c.is_whitespace() {
                words.push(String::new());
            } else if is_sign(c) {
                words.extend([c.to_string(), String::new()]);
            } else if !c.is_control()
                && c != '\u{fffd}'
                && let Some(word) = words.last_mut()
            {
                word.push(c);
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }
}

impl TextTokenizer for WordPiece {
    fn ids(&self, text: &str) -> Vec<i64> {
        let mut ids = vec![self.first];
        for word in self.words(text) {
            if ids.len() >= self.tokens {
                break;
            }
            self.cut(&word, &mut ids);
        }
        ids.truncate(self.tokens.saturating_sub(1));
        ids.push(self.last);
        ids.resize(self.tokens, self.padding);
        ids
    }
}

/// A character that is a word by itself.
fn is_sign(c: char) -> bool {
    c.is_ascii_punctuation()
        || matches!(c,
            '¡' | '§' | '«' | '¶' | '·' | '»' | '¿'
            | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}'
            | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{2fa1f}'
            | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\npool\nexhaust\n##ed\n!\ncafe\n東\n";

    #[test]
    fn words_are_cut_into_the_longest_pieces_that_there_are() {
        let pieces = WordPiece::new(VOCABULARY, true, 8).expect("a vocabulary");
        assert_eq!(pieces.ids("Pool exhausted!"), [2, 4, 5, 6, 7, 3, 0, 0]);
        assert_eq!(pieces.ids("  POOL\tpools Café東京 "), [2, 4, 1, 8, 9, 1, 3, 0]);
        // What is too long is cut off behind the last token that fits.
        assert_eq!(pieces.ids("pool pool pool pool exhausted"), [2, 4, 4, 4, 4, 5, 6, 3]);
        assert_eq!(pieces.ids("pool pool pool pool pool exhausted"), [2, 4, 4, 4, 4, 4, 5, 3]);
        assert_eq!(pieces.ids(""), [2, 3, 0, 0, 0, 0, 0, 0]);
        let cased = WordPiece::new(VOCABULARY, false, 4).expect("a vocabulary");
        assert_eq!(cased.ids("Pool café"), [2, 1, 1, 3]);
    }

    #[test]
    fn a_vocabulary_that_lacks_something_says_what() {
        assert_eq!(
            WordPiece::new("[PAD]\n[UNK]\n[CLS]\n", true, 8).err().as_deref(),
            Some("the vocabulary has no piece `[SEP]`")
        );
        assert_eq!(
            WordPiece::new("a\nb\na\n", true, 8).err().as_deref(),
            Some("line 3 has the piece `a` a second time")
        );
    }
}
