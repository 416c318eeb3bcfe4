//! What stands between operands, and the forms that look like no call.

use super::{Reference, ReferenceKind};

/// Sign, form, what it gives, example.
type Row = (&'static str, &'static str, &'static str, &'static str);

const ROWS: &[Row] = &[
    ("+", "a + b", "the sum; a timestamp and an interval give a timestamp", "1 + 2"),
    (
        "-",
        "a - b",
        "the difference; of two timestamps the milliseconds between them",
        "timestamp '2013-01-01T00:01:00Z' - timestamp '2013-01-01T00:00:00Z'",
    ),
    ("*", "a * b", "the product", "2 * 3.5"),
    ("/", "a / b", "the quotient, null if b is 0; of two ints a whole number", "7 / 2"),
    ("%", "a % b", "the remainder, with the sign of a; null if b is 0", "7 % 3"),
    (
        "&",
        "a & b",
        "the bits that both ints have; also `a | b`, `a << b` and `a >> b`, and `a ^ b`: the bits that one has",
        "12 & 10",
    ),
    ("||", "a || b", "both texts, one behind the other", "'JFK' || '-' || 'LGA'"),
    ("=", "a = b", "true if they are equal; null if one is null", "1 = 1.0"),
    ("<>", "a <> b", "true if they differ; also written `!=`", "'a' <> 'b'"),
    ("<", "a < b", "true if a is less; also `<=`, `>` and `>=`", "1 < 2"),
    (
        "is distinct from",
        "a is [not] distinct from b",
        "like `<>` and `=`, but a null equals a null",
        "1 is distinct from null",
    ),
    ("and", "a and b", "true if both are", "1 < 2 and 2 < 3"),
    ("or", "a or b", "true if one is", "1 > 2 or 2 < 3"),
    ("not", "not a", "true if it is false", "not 1 > 2"),
    ("is null", "a is [not] null", "true if it is null", "cast(null as int) is null"),
    ("is true", "a is [not] true", "true if it is true, and never null; also `is false`", "1 < 2 is true"),
    ("between", "a [not] between b and c", "true if it is at least b and at most c", "2 between 1 and 3"),
    ("in", "a [not] in (b, …)", "true if it equals one of them", "'JFK' in ('JFK', 'EWR')"),
    (
        "like",
        "a [not] like b",
        "true if the text has the form b, `%` being any text and `_` any character",
        "'flight 12' like 'flight %'",
    ),
    ("ilike", "a [not] ilike b", "like `like`, upper and lower case alike", "'JFK' ilike 'j%'"),
    (
        "~",
        "a ~ b",
        "true if the regular expression b matches in a; `~*` in any case, `!~` if not",
        "'N123' ~ '^N[0-9]+$'",
    ),
    (
        "case",
        "case when a then b … [else c] end",
        "the b of the first a that is true, else c or null",
        "case when 1 > 2 then 'more' else 'less' end",
    ),
    (
        "cast",
        "cast(a as type)",
        "it as a string, int, float, bool, timestamp or date; null if it cannot be; also `a::type`",
        "cast('12' as int)",
    ),
    (
        "extract",
        "extract(unit from a)",
        "a part of a timestamp: year, month, day, hour, minute, dow (Sunday is 0), …",
        "extract(hour from timestamp '2013-01-01T10:17:00Z')",
    ),
    (
        "timestamp",
        "timestamp 'text'",
        "a point in time, in UTC unless the text says otherwise",
        "timestamp '2013-01-01T12:00:00+02:00'",
    ),
    ("date", "date 'text'", "midnight UTC of a day", "date '2013-01-01'"),
    (
        "interval",
        "interval 'text'",
        "a length of time, to add to a timestamp or take from it",
        "date '2013-01-01' + interval '1 day 30 minutes'",
    ),
];

/// Signs that have no row of their own, and are told of in this one.
fn signs(name: &str) -> &'static [&'static str] {
    match name {
        "&" => &["|", "^", "<<", ">>"],
        "=" => &["=="],
        "<>" => &["!="],
        "<" => &["<=", ">", ">="],
        "is distinct from" => &["is not distinct from"],
        "is null" => &["is not null"],
        "is true" => &["is not true", "is false", "is not false"],
        "between" => &["not between"],
        "in" => &["not in"],
        "like" => &["not like"],
        "ilike" => &["not ilike"],
        "~" => &["~*", "!~", "!~*"],
        "cast" => &["::"],
        _ => &[],
    }
}

pub(super) fn all() -> Vec<Reference> {
    ROWS.iter()
        .map(|&(name, signature, about, example)| Reference {
            name,
            aliases: signs(name).iter().map(|sign| (*sign).to_string()).collect(),
            kind: ReferenceKind::Operator,
            group: "operators",
            signature: signature.into(),
            about: about.into(),
            example,
        })
        .collect()
}
