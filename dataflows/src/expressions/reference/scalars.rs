//! The functions of one row. What each is for is in the registry; an example of each, and the words for
//! those of which DataFusion speaks in terms that streams do not have, stand here.

use datafusion_expr::{Documentation, ScalarUDF};

use super::super::functions;
use super::{Reference, ReferenceKind};

/// Name, example, and what it gives if the registry does not say it well.
type Row = (&'static str, &'static str, &'static str);

const ROWS: &[Row] = &[
    ("abs", "abs(-5)", ""),
    ("acos", "acos(1.0)", ""),
    ("acosh", "acosh(2.0)", ""),
    ("ascii", "ascii('abc')", "the number of the first character in Unicode"),
    ("asin", "asin(0.5)", ""),
    ("asinh", "asinh(1.0)", ""),
    ("atan", "atan(1.0)", ""),
    ("atan2", "atan2(1.0, 1.0)", "the angle of the point (x, y), in radians"),
    ("atanh", "atanh(0.5)", ""),
    ("bit_length", "bit_length('JFK')", ""),
    ("btrim", "btrim('__JFK___', '_')", "the text without the characters, by default spaces, at both ends"),
    ("cbrt", "cbrt(27.0)", ""),
    ("ceil", "ceil(3.14)", ""),
    ("character_length", "character_length('Ångström')", ""),
    ("chr", "chr(128640)", "the character of a number in Unicode"),
    ("coalesce", "coalesce(cast(null as int), 7)", "the first of its arguments that is not null"),
    ("concat", "concat('JFK', '-', 'LGA')", "the texts, one behind the other; a null is no text"),
    (
        "concat_ws",
        "concat_ws('-', 'JFK', 'LGA')",
        "the texts with a separator between them; nulls are left out",
    ),
    ("contains", "contains('the quick brown fox', 'row')", "true if one text is found in the other"),
    ("cos", "cos(0.0)", ""),
    ("cosh", "cosh(1.0)", ""),
    ("cot", "cot(1.0)", ""),
    (
        "date_bin",
        "date_bin(interval '15 minutes', timestamp '2013-01-01T10:17:00Z')",
        "the beginning of the interval that a timestamp is in, counted from 1970 or from an origin",
    ),
    (
        "date_part",
        "date_part('hour', timestamp '2013-01-01T10:17:00Z')",
        "a part of a timestamp: year, month, day, hour, minute, dow (Sunday is 0), …",
    ),
    (
        "date_trunc",
        "date_trunc('hour', timestamp '2013-01-01T10:17:00Z')",
        "the beginning of the year, month, week, day, hour, minute or second that a timestamp is in",
    ),
    ("degrees", "degrees(pi())", ""),
    ("ends_with", "ends_with('flight', 'ght')", "true if a text ends with another"),
    ("exp", "exp(1.0)", ""),
    ("factorial", "factorial(5)", "the product of the whole numbers up to a number; null if it does not fit"),
    (
        "find_in_set",
        "find_in_set('b', 'a,b,c')",
        "the place, from 1, of a text in a list with commas; 0 if it is not there",
    ),
    ("floor", "floor(3.14)", ""),
    ("from_unixtime", "from_unixtime(1357035420)", "the timestamp that is so many seconds after 1970"),
    ("gcd", "gcd(48, 18)", "the greatest common divisor"),
    ("greatest", "greatest(4, 7, 5)", "the greatest of its arguments; nulls are left out"),
    ("initcap", "initcap('new york')", "the text with the first letter of each word in upper case"),
    ("isnan", "isnan(1.0)", "true if it is not a number (NaN)"),
    ("iszero", "iszero(0.0)", "true if it is 0.0 or -0.0"),
    ("json_get", "json_get('[[\"JFK\",9]]', '0.0')", ""),
    ("json_length", "json_length('[[\"JFK\",9],[\"LGA\",5]]')", ""),
    ("lcm", "lcm(4, 5)", "the least common multiple"),
    ("least", "least(4, 7, 5)", "the least of its arguments; nulls are left out"),
    ("left", "left('flight', 2)", "the first characters of a text"),
    (
        "levenshtein",
        "levenshtein('kitten', 'sitting')",
        "how many characters must change to make one text the other",
    ),
    ("ln", "ln(2.71828)", ""),
    ("log", "log(2.0, 8.0)", "the logarithm to a base, by default 10"),
    ("log10", "log10(100.0)", ""),
    ("log2", "log2(8.0)", ""),
    ("lower", "lower('JFK')", ""),
    (
        "lpad",
        "lpad('7', 3, '0')",
        "the text filled up on its left to a number of characters; null for more than 65,536",
    ),
    ("ltrim", "ltrim('  JFK', ' ')", "the text without the characters, by default spaces, at its beginning"),
    ("make_date", "make_date(2013, 1, 31)", "midnight UTC of a day"),
    ("nanvl", "nanvl(0.5, 5.0)", "the first argument, or the second if the first is not a number (NaN)"),
    ("nullif", "nullif(7, 0)", "the first argument; null if it equals the second"),
    ("nvl", "nvl(cast(null as int), 7)", "the first argument, or the second if the first is null"),
    ("nvl2", "nvl2('JFK', 1, 2)", "the second argument if the first is not null, else the third"),
    ("octet_length", "octet_length('Ångström')", "how many bytes a text has in UTF-8"),
    ("overlay", "overlay('Txxxxas' placing 'hom' from 2 for 4)", "a text with a part of it replaced"),
    ("pi", "pi()", "π"),
    ("power", "power(2.0, 3.0)", "a number raised to the power of another"),
    ("radians", "radians(180.0)", ""),
    ("regexp_count", "regexp_count('abcAbAbc', 'abc', 2, 'i')", "how often a regular expression matches"),
    (
        "regexp_instr",
        "regexp_instr('ABCDEF', 'C(.)(..)')",
        "the place, from 1, where a regular expression matches; 0 if it does not",
    ),
    ("regexp_like", "regexp_like('N123', '^n[0-9]+$', 'i')", "true if a regular expression matches"),
    (
        "regexp_replace",
        "regexp_replace('N123', '[0-9]', '#', 'g')",
        "the text with what a regular expression matches replaced, the first match or (`g`) all",
    ),
    ("repeat", "repeat('ab', 3)", "a text so many times over; null if that is longer than 65,536 bytes"),
    ("replace", "replace('JFK-LGA', '-', ' to ')", "the text with all occurrences of another replaced"),
    ("reverse", "reverse('JFK')", "the text, its last character first"),
    ("right", "right('flight', 3)", "the last characters of a text"),
    ("round", "round(3.14159, 2)", "the nearest whole number, or the nearest with so many decimal places"),
    (
        "rpad",
        "rpad('7', 3, '0')",
        "the text filled up on its right to a number of characters; null for more than 65,536",
    ),
    ("rtrim", "rtrim('JFK  ', ' ')", "the text without the characters, by default spaces, at its end"),
    ("signum", "signum(-42.0)", ""),
    ("sin", "sin(0.0)", ""),
    ("sinh", "sinh(1.0)", ""),
    (
        "split_part",
        "split_part('1.2.3', '.', 3)",
        "the part of a text at a place, from 1, between delimiters; '' if there is none",
    ),
    ("sqrt", "sqrt(2.0)", ""),
    ("starts_with", "starts_with('flight', 'fl')", "true if a text begins with another"),
    ("strpos", "strpos('flight', 'gh')", "the place, from 1, of a text in another; 0 if it is not there"),
    (
        "substr",
        "substr('flight', 2, 3)",
        "the part of a text from a place, counted from 1, to its end or of a length",
    ),
    (
        "substr_index",
        "substr_index('www.example.org', '.', 2)",
        "the text up to so many delimiters; from the right if less than 0",
    ),
    ("tan", "tan(0.5)", ""),
    ("tanh", "tanh(20.0)", ""),
    (
        "to_char",
        "to_char(timestamp '2013-01-01T10:17:00Z', '%d.%m.%Y %H:%M')",
        "a timestamp as text, in a format of `%Y`, `%m`, `%d`, `%H`, `%M`, `%S`, …",
    ),
    ("to_date", "to_date('2013-01-31')", "midnight UTC of the day that a text says, in one of some formats"),
    ("to_hex", "to_hex(255)", "an int in hexadecimal digits"),
    (
        "to_local_time",
        "to_local_time(timestamp '2013-01-01T10:17:00Z')",
        "a timestamp as it is: all are in UTC",
    ),
    (
        "to_timestamp",
        "to_timestamp('2013-01-31T09:26:56-05:00')",
        "the timestamp that a text says, in one of some formats, or of an int of seconds",
    ),
    (
        "to_timestamp_micros",
        "to_timestamp_micros(1357035420000000)",
        "like `to_timestamp`, an int being microseconds",
    ),
    (
        "to_timestamp_millis",
        "to_timestamp_millis(1357035420000)",
        "like `to_timestamp`, an int being milliseconds",
    ),
    (
        "to_timestamp_nanos",
        "to_timestamp_nanos(1357035420000000000)",
        "like `to_timestamp`, an int being nanoseconds",
    ),
    ("to_timestamp_seconds", "to_timestamp_seconds(1357035420)", "like `to_timestamp`, an int being seconds"),
    ("to_unixtime", "to_unixtime('2013-01-01T10:17:00Z')", "the seconds from 1970 to a time"),
    (
        "translate",
        "translate('twice', 'wic', 'her')",
        "the text with each character of one list replaced by that of another",
    ),
    ("trunc", "trunc(42.738, 1)", "the number without its decimal places, or with so many of them"),
    ("upper", "upper('jfk')", ""),
];

/// How arguments are called in DataFusion's documentation, and here.
const NAMES: &[(&str, &str)] = &[
    ("numeric_expression", "number"),
    ("expression_x", "x"),
    ("expression_y", "y"),
    ("expression1", "a"),
    ("expression2", "b"),
    ("expression3", "c"),
    ("expression_n", "n"),
    ("expression", "value"),
    ("padding_str", "padding"),
    ("search_str", "part"),
    ("trim_str", "characters"),
    ("start_pos", "start"),
    ("str1", "a"),
    ("str2", "b"),
    ("str_n", "n"),
    ("strlist", "list"),
    ("substr", "part"),
    ("str", "text"),
];

pub(super) fn all() -> Vec<Reference> {
    ROWS.iter().filter_map(|row| Some(entry(row, functions::scalar(row.0)?.as_ref()))).collect()
}

fn entry(&(name, example, about): &Row, function: &ScalarUDF) -> Reference {
    let documentation = function.documentation();
    let about = match about {
        "" => documentation.map(|text| summary(&text.description)).unwrap_or_default(),
        ours => ours.into(),
    };
    Reference {
        name,
        aliases: function.aliases().to_vec(),
        kind: ReferenceKind::Function,
        group: documentation.map_or("other functions", |text| group(text.doc_section.label)),
        signature: format!("{name}{}", documentation.map(takes).unwrap_or_default()),
        about,
        example,
    }
}

/// The parameters of a function, as `(text, start[, length])`.
pub fn parameters(name: &str) -> Option<String> {
    functions::scalar(name)?.documentation().map(takes)
}

fn takes(documentation: &Documentation) -> String {
    let forms = documentation.syntax_example.lines().filter_map(|form| form.get(form.find('(')?..));
    forms.map(renamed).collect::<Vec<_>>().join(" or ")
}

/// The arguments in their order, each with what is said of it.
pub(super) fn about_arguments(name: &str) -> Vec<(String, String)> {
    let function = functions::scalar(name);
    let documentation = function.as_ref().and_then(|function| function.documentation());
    let arguments = documentation.and_then(|text| text.arguments.clone()).unwrap_or_default();
    arguments.into_iter().map(|(name, about)| (renamed(&name), sentence(&about))).collect()
}

/// With our names of arguments instead of DataFusion's, whole words only.
fn renamed(syntax: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut rest = syntax;
    while let Some(start) = rest.find(is_word) {
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |length| start + length);
        let word = &rest[start..end];
        let ours = NAMES.iter().find(|(theirs, _)| *theirs == word).map_or(word, |(_, ours)| ours);
        out.push_str(&rest[..start]);
        out.push_str(&if word == word.to_uppercase() { word.to_lowercase() } else { ours.to_string() });
        rest = &rest[end..];
    }
    out + rest
}

fn group(section: &str) -> &'static str {
    match section {
        "Conditional Functions" => "conditional functions",
        "Math Functions" => "functions of numbers",
        "Regular Expression Functions" => "regular expressions",
        "Time and Date Functions" => "functions of time",
        "JSON Functions" => "functions of JSON",
        _ => "functions of text",
    }
}

/// What a function gives: the first sentence of its description, as the rest of a line.
fn summary(description: &str) -> String {
    let text = sentence(description);
    let text = ["Returns ", "Return "].iter().find_map(|verb| text.strip_prefix(verb)).unwrap_or(&text);
    words_lower(text)
}

fn words_lower(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// The first sentence of a text in Markdown, without the marks and the full stop.
fn sentence(text: &str) -> String {
    let text = text.trim().replace('\n', " ");
    let first = text.split(". ").next().unwrap_or_default().trim_end_matches('.');
    let mut out = String::new();
    let mut rest = first;
    // `[words](address)` is its words.
    while let Some((before, link)) = rest.split_once('[') {
        let Some((words, after)) = link
            .split_once("](")
            .and_then(|(words, tail)| tail.split_once(')').map(|(_, after)| (words, after)))
        else {
            break;
        };
        out.push_str(before);
        out.push_str(words);
        rest = after;
    }
    (out + rest).replace(['_', '`'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}
