//! Texts of the code as Markdown of a page.

/// How wide a page is where its text is wrapped.
const WIDTH: usize = 100;

/// What the module doc (`//!`) at the beginning of a Rust file says behind its first paragraph, which only says again what
/// the module is. Headings stand two levels deeper; ``(see [`x`])`` points into the code and is left out, and what else
/// rustdoc makes a link is code.
pub fn of_module(rust: &str) -> String {
    let lines = rust.lines().map_while(|line| line.strip_prefix("//!"));
    let lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line));
    let (mut text, mut prose) = (String::new(), String::new());
    let mut in_block = false;
    for line in lines.skip_while(|line| !line.is_empty()).skip(1) {
        let fence = line.starts_with("```");
        in_block ^= fence;
        if in_block || fence {
            text += &without_links(&std::mem::take(&mut prose));
            text += &format!("{line}\n");
        } else {
            let deeper = if line.starts_with('#') { "##" } else { "" };
            prose += &format!("{deeper}{line}\n");
        }
    }
    text + &without_links(&prose)
}

/// A text without the brackets around code that is no link: ``[`x`]`` as `` `x` ``.
fn without_links(prose: &str) -> String {
    let mut text = String::new();
    let mut rest = prose;
    while let Some((before, link)) = rest.split_once("[`") {
        let Some((code, after)) = link.split_once("`]").filter(|(_, after)| !after.starts_with('(')) else {
            text += &format!("{before}[`");
            rest = link;
            continue;
        };
        match (before.trim_end().strip_suffix("(see"), after.strip_prefix(')')) {
            (Some(before), Some(after)) => {
                text += before.trim_end();
                rest = after;
            }
            _ => {
                text += &format!("{before}`{code}`");
                rest = after;
            }
        }
    }
    text + rest
}

/// Paragraphs of a doc comment, wrapped, all lines but the first behind an indent. Code is not broken.
pub fn wrapped(text: &str, indent: &str) -> String {
    let paragraphs: Vec<String> = text.split("\n\n").map(|paragraph| wrap(paragraph, indent)).collect();
    paragraphs.join(&format!("\n\n{indent}"))
}

fn wrap(paragraph: &str, indent: &str) -> String {
    let mut text = String::new();
    let mut width = indent.chars().count();
    for word in words(paragraph) {
        let long = word.chars().count();
        // What stands at the beginning of a line may be a sign to Markdown.
        let sign = word.starts_with(['-', '+', '*', '#', '>', '|']) && !word.starts_with("**");
        if text.is_empty() {
            width += long;
        } else if width + 1 + long > WIDTH && !sign {
            text += &format!("\n{indent}");
            width = indent.chars().count() + long;
        } else {
            text.push(' ');
            width += 1 + long;
        }
        text += &word;
    }
    text
}

/// What stands between white space that is not in code.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut in_code = false;
    for character in text.chars() {
        in_code ^= character == '`';
        match words.last_mut() {
            Some(word) if !character.is_whitespace() => word.push(character),
            // A code that goes on in the next line.
            Some(word) if in_code => word.push(' '),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_doc_becomes_part_of_a_page() {
        let rust = "//! `x`: what it is,\n//! in short.\n//!\n//! # Of [`Cells`]\n//!\n//! See [`a::b`], [`c`](d) and [e] (see\n//! [`f`]).\n//!\n\
                    //! ```text\n//!  # [`f`]\n//! ```\n\nuse x;\n//! not this\n";
        assert_eq!(
            of_module(rust),
            "### Of `Cells`\n\nSee `a::b`, [`c`](d) and [e].\n\n```text\n # [`f`]\n```\n"
        );
        assert_eq!(of_module("//! One paragraph.\nmod x;\n"), "");
    }

    #[test]
    fn texts_are_wrapped_between_words_and_not_in_code() {
        let text = format!("{} `a  b\nc` - {}\n\nnext", "word ".repeat(19), "more ".repeat(3));
        let wrapped = wrapped(&text, "  ");
        let lines: Vec<&str> = wrapped.lines().collect();
        assert_eq!(lines[1], "  `a  b c` - more more more");
        assert_eq!(lines[2..], ["", "  next"]);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
        // A sign that would begin a list stays where it is.
        let text = format!("{}- more", "word ".repeat(20));
        assert_eq!(super::wrapped(&text, "").lines().last(), Some("more"));
    }
}
