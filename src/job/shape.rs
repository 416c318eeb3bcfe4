//! Whether a document has the shape that the JSON Schema of the spec demands; all that is wrong.
//!
//! serde stops at the first error, so the same structs' schema is walked first: unknown and missing
//! keys, wrong types, unknown variants, numbers out of range. What schemars writes is understood,
//! not all of JSON Schema: `$ref`, `oneOf`/`anyOf` (variants told apart by their key, by a constant
//! tag, or by type), `enum`, `const`, `required`, `additionalProperties`, `items`, bounds.

mod choice;

use std::ops::Range;

use levada_types::{DURATION_PATTERN, nearest};
use serde_json::{Map, Value};
use toml::de::{DeArray, DeTable, DeValue};

use super::document::Node;
use super::report::Diagnostic;
use choice::{accepts, bound, constants, equal, number, only_key, tag, tag_value, types, words};

type Object = Map<String, Value>;

/// A problem and the path of the value that it lies in.
#[derive(Debug)]
pub struct Found {
    /// Keys and indices from the top.
    pub path: Vec<String>,
    /// What is wrong.
    pub diagnostic: Diagnostic,
}

/// Everything in `root` that is not as `schema` says.
pub fn check(schema: &Value, root: &Node<'_>) -> Vec<Found> {
    let mut walk = Walk { root: schema, path: Vec::new(), found: Vec::new() };
    walk.value(schema, root);
    walk.found
}

struct Walk<'s> {
    root: &'s Value,
    path: Vec<String>,
    found: Vec<Found>,
}

impl<'s> Walk<'s> {
    fn value(&mut self, schema: &'s Value, node: &Node<'_>) {
        let choices = self.choices(schema);
        let fitting: Vec<&Object> = choices.iter().copied().filter(|c| accepts(c, node.get_ref())).collect();
        match (fitting.as_slice(), node.get_ref()) {
            ([], _) => self.wrong_type(&choices, node),
            ([one], DeValue::Table(table)) => self.table(one, table, node.span()),
            ([one], DeValue::Array(array)) => self.array(one, array, node.span()),
            (many, DeValue::Table(table)) => self.variant(many, table, node.span()),
            (many, DeValue::Array(array)) => {
                self.least_wrong(many, |walk, one| walk.array(one, array, node.span()));
            }
            (many, _) => self.scalar(many, &choices, node),
        }
    }

    /// What a schema may be: references followed, alternatives spread out, null left out.
    fn choices(&self, schema: &'s Value) -> Vec<&'s Object> {
        let Value::Object(object) = schema else { return Vec::new() };
        if let Some(target) = object.get("$ref").and_then(Value::as_str) {
            let target = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return target.map(|schema| self.choices(schema)).unwrap_or_default();
        }
        let alternatives = ["oneOf", "anyOf", "allOf"].iter().find_map(|key| object.get(*key)?.as_array());
        match alternatives {
            Some(all) => all.iter().flat_map(|schema| self.choices(schema)).collect(),
            None if object.get("type").is_some_and(|kind| kind == "null") => Vec::new(),
            None => vec![object],
        }
    }

    fn table(&mut self, schema: &'s Object, table: &DeTable<'_>, span: Range<usize>) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        let mut meant: Vec<&str> = Vec::new();
        for (key, value) in table.iter() {
            let name = key.get_ref().as_ref();
            self.path.push(name.to_string());
            match (properties.and_then(|p| p.get(name)), others) {
                (Some(schema), _) => self.value(schema, value),
                (None, Some(Value::Bool(false))) => {
                    let place = self.owner();
                    let known: Vec<&str> =
                        properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                    meant.extend(nearest(name, &known));
                    let message = format!("there is no field `{name}` in {place}");
                    let here = field_here(name).filter(|here| known.contains(here));
                    let diagnostic = Diagnostic::error(message).at(key.span());
                    self.report(match here.filter(|_| nearest(name, &known).is_none()) {
                        Some(here) => {
                            meant.push(here);
                            diagnostic.help(format!("that is `{here}` here"))
                        }
                        None => diagnostic.offer(name, known),
                    });
                }
                (None, Some(schema @ Value::Object(_))) => self.value(schema, value),
                (None, _) => {}
            }
            self.path.pop();
        }
        let required = schema.get("required").and_then(Value::as_array);
        let missing = required.into_iter().flatten().filter_map(Value::as_str);
        for name in missing.filter(|name| table.get(*name).is_none() && !meant.contains(name)) {
            let place = self.place();
            let mut diagnostic = Diagnostic::error(format!("{place} has no `{name}`")).at(span.clone());
            let about = properties.and_then(|p| p.get(name)).and_then(|schema| self.about(schema));
            if let Some(about) = about {
                diagnostic = diagnostic.help(format!("`{name}`: {about}"));
            }
            self.report(diagnostic);
        }
        if let Some(least) = bound(schema, "minProperties").filter(|&least| (table.len() as f64) < least) {
            let what = shown(&self.path);
            self.report(Diagnostic::error(format!("{what} needs at least {least} entry")).at(span));
        }
    }

    fn array(&mut self, schema: &'s Object, array: &[Node<'_>], span: Range<usize>) {
        if let Some(least) = bound(schema, "minItems").filter(|&least| (array.len() as f64) < least) {
            let what = shown(&self.path);
            self.report(Diagnostic::error(format!("{what} needs at least {least}, but is empty")).at(span));
        }
        let first = schema.get("prefixItems").and_then(Value::as_array);
        for (index, value) in array.iter().enumerate() {
            let of = first.and_then(|schemas| schemas.get(index)).or_else(|| schema.get("items"));
            if let Some(of) = of {
                self.path.push(index.to_string());
                self.value(of, value);
                self.path.pop();
            }
        }
    }

    fn scalar(&mut self, choices: &[&'s Object], all: &[&'s Object], node: &Node<'_>) {
        let allowed: Vec<&Value> = choices.iter().flat_map(|choice| constants(choice)).collect();
        let free = choices.iter().any(|choice| constants(choice).is_empty());
        if !free && !allowed.iter().any(|value| equal(value, node.get_ref())) {
            let what = shown(&self.path);
            let diagnostic = match node.get_ref() {
                DeValue::String(text) => {
                    let known = allowed.iter().filter_map(|value| value.as_str());
                    let diagnostic = Diagnostic::error(format!("{what} cannot be `{text}`"));
                    let known: Vec<&str> = known.collect();
                    let is_table =
                        all.iter().any(|choice| only_key(choice).is_some_and(|(key, _)| key == text));
                    match type_here(text).filter(|here| known.contains(&here.as_str())) {
                        Some(here) => diagnostic.help(format!("that is `{here}` here")),
                        None if is_table => diagnostic.help(format!("write `{{ {text} = {{ ... }} }}`")),
                        None => diagnostic.offer(text, known),
                    }
                }
                _ => {
                    let others = all.iter().filter(|choice| !accepts(choice, node.get_ref()));
                    let others = others.flat_map(|choice| types(choice)).map(String::from);
                    let allowed: Vec<String> =
                        others.chain(allowed.iter().map(|value| format!("`{value}`"))).collect();
                    Diagnostic::error(format!("{what} can only be {}", allowed.join(" or ")))
                }
            };
            self.report(diagnostic.at(node.span()));
            return;
        }
        let Some(number) = number(node.get_ref()) else { return };
        let [one] = choices else { return };
        let what = shown(&self.path);
        let limits: [(&str, &str, fn(f64, f64) -> bool); 4] = [
            ("minimum", "at least", |value, limit| value >= limit),
            ("maximum", "at most", |value, limit| value <= limit),
            ("exclusiveMinimum", "more than", |value, limit| value > limit),
            ("exclusiveMaximum", "less than", |value, limit| value < limit),
        ];
        for (key, words, holds) in limits {
            if let Some(limit) = bound(one, key).filter(|&limit| !holds(number, limit)) {
                let message = format!("{what} must be {words} {limit}");
                self.report(Diagnostic::error(message).at(node.span()));
            }
        }
    }

    /// A table that may be one of several: told apart by its only key, by a constant field, or by
    /// which has the least wrong with it.
    fn variant(&mut self, choices: &[&'s Object], table: &DeTable<'_>, span: Range<usize>) {
        if let Some(kinds) = choices.iter().map(|choice| only_key(choice)).collect::<Option<Vec<_>>>() {
            return self.kind(&kinds, table, span);
        }
        let Some(tag) = tag(choices) else {
            return self.least_wrong(choices, |walk, one| walk.table(one, table, span.clone()));
        };
        let tags: Vec<(&str, &'s Object)> =
            choices.iter().filter_map(|choice| Some((tag_value(choice, tag)?, *choice))).collect();
        let Some(value) = table.get(tag) else {
            let place = self.place();
            let diagnostic = Diagnostic::error(format!("{place} has no `{tag}`")).at(span);
            return self.report(diagnostic.offer("", tags.iter().map(|(name, _)| *name)));
        };
        let text = value.get_ref().as_str().unwrap_or_default();
        match tags.iter().find(|(name, _)| *name == text) {
            Some((_, choice)) => self.table(choice, table, span),
            None => {
                let diagnostic = Diagnostic::error(format!("`{tag}` cannot be `{text}`")).at(value.span());
                self.report(diagnostic.offer(text, tags.iter().map(|(name, _)| *name)));
            }
        }
    }

    /// `{ KIND = … }`: exactly one of the kinds.
    fn kind(&mut self, kinds: &[(&'s str, &'s Value)], table: &DeTable<'_>, span: Range<usize>) {
        let what = self.kind_word();
        let place = self.place();
        let names = || kinds.iter().map(|(name, _)| *name);
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut first: Option<(&str, Range<usize>)> = None;
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            let Some((_, schema)) = kinds.iter().find(|(kind, _)| *kind == name) else {
                if !value.get_ref().is_table() && self.path.len() == 2 {
                    let header = format!("[{}.{}]", self.path.join("."), what.to_uppercase());
                    let message = format!("{place} does not say its {what}");
                    let names: Vec<String> = names().map(|name| format!("`{name}`")).collect();
                    let help = format!("write `{header}` with one of {}", names.join(", "));
                    self.report(Diagnostic::error(message).at(key.span()).help(help));
                    return;
                }
                let diagnostic = Diagnostic::error(format!("there is no {what} `{name}`")).at(key.span());
                self.report(match elsewhere(what, name) {
                    Some(help) => diagnostic.help(help),
                    None => diagnostic.offer(name, names()),
                });
                first.get_or_insert((name, key.span()));
                continue;
            };
            if let Some((other, at)) = &first {
                let message = format!("{place} is either `{other}` or `{name}`, not both");
                self.report(Diagnostic::error(message).at(key.span()).also(at.clone(), "and here"));
                continue;
            }
            first = Some((name, key.span()));
            self.path.push(name.to_string());
            self.value(schema, value);
            self.path.pop();
        }
        if first.is_none() {
            let diagnostic = Diagnostic::error(format!("{place} does not say its {what}")).at(span);
            self.report(diagnostic.offer("", names()));
        }
    }

    fn least_wrong(&mut self, choices: &[&'s Object], walk: impl Fn(&mut Self, &'s Object)) {
        let mut best: Option<Vec<Found>> = None;
        for &choice in choices {
            let before = std::mem::take(&mut self.found);
            walk(self, choice);
            let found = std::mem::replace(&mut self.found, before);
            if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        self.found.extend(best.unwrap_or_default());
    }

    fn wrong_type(&mut self, choices: &[&'s Object], node: &Node<'_>) {
        let mut wanted: Vec<&str> = choices.iter().flat_map(|choice| types(choice)).collect();
        wanted.dedup();
        let what = if self.path.is_empty() { "a job".into() } else { shown(&self.path) };
        let found = words(node.get_ref());
        let message = format!("{what} must be {}, not {found}", wanted.join(" or "));
        let diagnostic = Diagnostic::error(message).at(node.span());
        let value = match node.get_ref() {
            DeValue::Table(table) if wanted == ["a list"] => {
                return self.report_table(diagnostic, choices, table);
            }
            DeValue::Table(table) if wanted.first() == Some(&"a string") => {
                let mut values = table.values().map(|value| value.get_ref());
                let (only, others) = (values.next().and_then(DeValue::as_str), values.next());
                let only = only.filter(|text| others.is_none() && !text.contains(['"', '\\']));
                let field = self.path.last().map_or("", String::as_str);
                return self.report(match only {
                    Some(text) => diagnostic.help(format!("write `{field} = \"{text}\"`")),
                    None => diagnostic,
                });
            }
            DeValue::Array(_)
                if wanted == ["a string"] && self.path.last().is_some_and(|at| at == "path") =>
            {
                return self.report(diagnostic.help("several files are `paths`"));
            }
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().to_string(),
            DeValue::Float(number) => number.as_str().to_string(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Array(values) if wanted == ["a table"] => {
                return self.report_list(diagnostic, choices, values);
            }
            _ => return self.report(diagnostic),
        };
        let about = choices.iter().find_map(|choice| choice.get("description")?.as_str()).map(first_sentence);
        let about = about.filter(|about| about.split_whitespace().count() > 3);
        let of_texts = |choice: &&Object| {
            choice.get("items").and_then(|items| items.get("type")?.as_str()) == Some("string")
        };
        let plain = value.chars().all(|c| !c.is_control() && !matches!(c, '"' | '\\'));
        self.report(match (wanted.as_slice(), about, node.get_ref()) {
            (["a list"], _, DeValue::String(_)) if plain && choices.iter().any(of_texts) => {
                diagnostic.help(format!("write `[\"{value}\"]`"))
            }
            (["a table"], _, scalar) if plain => match self.form(choices, scalar, &value) {
                Some(form) => diagnostic.help(format!("write {form}")),
                None => diagnostic,
            },
            (["a string", ..], ..) if choices.iter().any(|choice| is_duration(choice)) => {
                diagnostic.help("a duration stands in quotes and has a unit, ms, s, m, h or d: `\"30s\"`")
            }
            (["a string"], Some(about), _) => diagnostic.help(format!("text stands in quotes. {about}")),
            (["a string"], None, _) => diagnostic.help(format!("write `\"{value}\"`")),
            _ => diagnostic,
        });
    }

    /// How a table would be written of which only a value was given: `` `{ gap = "30m" }` ``, or which fields
    /// it has. Nothing where that would be a guess.
    fn form(&self, choices: &[&'s Object], scalar: &DeValue<'_>, value: &str) -> Option<String> {
        let [table] = choices else { return None };
        let Some(properties) = table.get("properties").and_then(Value::as_object) else {
            // Where columns are named anew, a name may stand for itself.
            let bare = value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
            let itself = self.is_of_columns() && bare && scalar.is_str();
            return itself.then(|| format!("`{{ {value} = \"{value}\" }}`"));
        };
        let required = table.get("required").and_then(Value::as_array);
        let required: Vec<&str> = required.into_iter().flatten().filter_map(Value::as_str).collect();
        let is_connector =
            self.path.len() == 3 && matches!(self.path.first().map(String::as_str), Some("source" | "sink"));
        if let [field] = required.as_slice()
            && let [one] = self.choices(properties.get(*field)?).as_slice()
            && accepts(one, scalar)
            && !is_connector
        {
            let value = if scalar.is_str() { format!("\"{value}\"") } else { value.to_string() };
            return Some(format!("`{{ {field} = {value} }}`"));
        }
        let fields: Vec<String> = properties.keys().map(|name| format!("`{name}`")).collect();
        Some(format!("`{{ ... }}` with its fields {}", fields.join(", ")))
    }

    /// `on = ["user"]` where columns are named anew, and each may stand for itself.
    fn report_list(&mut self, diagnostic: Diagnostic, choices: &[&'s Object], values: &DeArray<'_>) {
        let entries = values.iter().map(|value| match value.get_ref() {
            DeValue::String(name) => {
                let form = self.form(choices, value.get_ref(), name)?;
                Some(form.strip_prefix("`{ ")?.strip_suffix(" }`")?.to_string())
            }
            _ => None,
        });
        let entries: Option<Vec<String>> = entries.collect();
        let entries = entries.filter(|entries| !entries.is_empty() && self.is_of_columns());
        let tables = || {
            let [table] = choices else { return None };
            let properties = table.get("properties")?.as_object()?;
            let one = |value: &Node<'_>| {
                let name = value.get_ref().as_str()?;
                let of_table = self.choices(properties.get(name)?);
                of_table.iter().any(|one| types(one).contains(&"a table")).then(|| format!("{name} = {{}}"))
            };
            values.iter().map(one).collect::<Option<Vec<String>>>().filter(|tables| !tables.is_empty())
        };
        self.report(match entries.or_else(tables) {
            Some(entries) => diagnostic.help(format!("write `{{ {} }}`", entries.join(", "))),
            None => diagnostic,
        });
    }

    /// Whether the field at hand names columns anew.
    fn is_of_columns(&self) -> bool {
        matches!(self.path.last().map(String::as_str), Some("columns" | "on" | "parameters"))
    }

    /// `[step.d.decide.policies]` where each of a list is a table of its own.
    fn report_table(&mut self, diagnostic: Diagnostic, choices: &[&'s Object], table: &DeTable<'_>) {
        let of_tables = choices
            .iter()
            .filter_map(|choice| choice.get("items"))
            .any(|items| self.choices(items).iter().any(|item| types(item).contains(&"a table")));
        let single = table.values().any(|value| !value.get_ref().is_table());
        let (name, header) = (self.path.last().map_or("", String::as_str), header(&self.path));
        self.report(match of_tables && single {
            true => diagnostic.help(format!("write `[[{header}]]` once for each, or `{name} = [{{ ... }}]`")),
            false => diagnostic,
        });
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.found.push(Found { path: self.path.clone(), diagnostic });
    }

    /// The table at hand: `step.hourly.window`.
    fn place(&self) -> String {
        if self.path.is_empty() { "the job file".into() } else { format!("`{}`", self.path.join(".")) }
    }

    /// The table that the key at hand is in.
    fn owner(&self) -> String {
        match self.path.split_last() {
            Some((_, [])) | None => "the job file".into(),
            Some((_, table)) => format!("`{}`", table.join(".")),
        }
    }

    fn kind_word(&self) -> &'static str {
        match self.path.first().map(String::as_str) {
            Some("step") if self.path.len() == 2 => "verb",
            Some("source" | "sink") if self.path.len() == 2 => "connector",
            _ => "kind",
        }
    }

    /// The first sentence about a field.
    fn about(&self, schema: &'s Value) -> Option<String> {
        let object = schema.as_object()?;
        let own = object.get("description").and_then(Value::as_str);
        let text = own.or_else(|| self.choices(schema).first()?.get("description")?.as_str())?;
        Some(first_sentence(text))
    }
}

/// What does here what is called so elsewhere.
fn elsewhere(what: &str, name: &str) -> Option<&'static str> {
    Some(match (what, name) {
        ("verb", "where" | "filter" | "map" | "project") => {
            "that is a `select` step, with `where` and `columns`"
        }
        ("verb", "aggregate" | "group_by" | "groupby" | "count" | "reduce") => {
            "that is a `window` step, or without windows a `group` step, with `key` and `aggregate`"
        }
        ("verb", "match" | "match_recognize" | "pattern" | "cep" | "sequence") => {
            "that is a `recognize` step, with `pattern` and `define`"
        }
        ("verb", "top_n" | "topn" | "rank" | "row_number" | "limit" | "order" | "sort") => {
            "that is a `top` step, with `order_by` and `rows`"
        }
        ("verb", "interval_join" | "interval" | "stream_join") => {
            "that is a `pair` step, with `with` and `on`"
        }
        ("verb", "enrich" | "lookup") => "that is a `join` step, with `table` and `on`",
        ("verb", "rule" | "rules" | "policy" | "policies") => {
            "that is a `decide` step, with `[[...policies]]`"
        }
        ("verb", "merge" | "concat" | "append") => "that is a `union` step",
        ("connector", "topic" | "topics" | "embedded") => {
            "a topic of the data folder is of the connector `log`"
        }
        ("connector", "csv" | "json" | "jsonl") => "that is of the connector `file`",
        _ => return None,
    })
}

/// What a field is called here that is called so elsewhere.
fn field_here(name: &str) -> Option<&'static str> {
    Some(match name {
        "group_by" | "groupby" | "by" | "keys" | "key_by" | "keyed_by" | "partition_by" | "group" => "key",
        "input" | "inputs" | "stream" | "reads" | "upstream" => "from",
        "slide" | "sliding" | "hop" => "hopping",
        "tumble" | "size" | "window" | "every" => "tumbling",
        "gap" | "inactivity" => "session",
        "aggregates" | "aggregations" | "agg" | "metrics" | "compute" => "aggregate",
        "filter" | "condition" | "predicate" => "where",
        "watermark"
        | "watermark_delay"
        | "delay"
        | "lateness"
        | "allowed_lateness"
        | "disorder"
        | "max_out_of_orderness"
        | "bounded_out_of_orderness" => "out_of_order",
        "timestamp" | "field" | "time" => "column",
        "idle_timeout" | "idleness" => "idle",
        "file" | "filename" | "file_name" => "path",
        "files" | "glob" | "patterns" => "paths",
        "order" | "orderby" | "sort" | "sort_by" => "order_by",
        "n" | "limit" | "top" => "rows",
        "lookup" | "right" | "with" => "table",
        "fields" | "project" | "projection" | "output" => "columns",
        "rules" => "policies",
        "throttle" | "suppress" => "cooldown",
        "params" | "args" => "parameters",
        _ => return None,
    })
}

/// What the type of a column is called here that is called so elsewhere, with its `?`.
fn type_here(name: &str) -> Option<String> {
    let (bare, may_lack) = name.strip_suffix('?').map_or((name, ""), |bare| (bare, "?"));
    let bare = bare.to_ascii_lowercase();
    let here = match bare.split('(').next().unwrap_or_default() {
        "double" | "number" | "numeric" | "decimal" | "real" | "float32" | "float64" | "f32" | "f64" => {
            "float"
        }
        "integer" | "long" | "bigint" | "short" | "smallint" | "int32" | "int64" | "uint64" | "i32"
        | "i64" => "int",
        "str" | "text" | "varchar" | "char" | "utf8" => "string",
        "boolean" => "bool",
        "datetime" | "date" | "time" | "instant" | "timestamptz" | "timestamp_ltz" => "timestamp",
        "object" | "map" | "array" | "list" | "struct" | "row" | "variant" | "any" => "json",
        _ => return None,
    };
    Some(format!("{here}{may_lack}"))
}

fn is_duration(schema: &Object) -> bool {
    schema.get("pattern").and_then(Value::as_str) == Some(DURATION_PATTERN)
}

/// A table's name as a header writes it.
fn header(path: &[String]) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let quoted = path.iter().map(|part| match !part.is_empty() && part.chars().all(bare) {
        true => part.clone(),
        false => format!("{part:?}"),
    });
    quoted.collect::<Vec<_>>().join(".")
}

/// Without the full stop.
fn first_sentence(text: &str) -> String {
    let text = text.split("\n\n").next().unwrap_or(text).replace('\n', " ");
    text.split(". ").next().unwrap_or(&text).trim_end_matches('.').to_string()
}

/// The last part of a path, for people, as `--set` would name it: `` `in_flight` ``, `` `key.1` ``.
fn shown(path: &[String]) -> String {
    let is_index = |part: &String| part.bytes().all(|b| b.is_ascii_digit());
    let last_name = path.iter().rposition(|part| !is_index(part)).unwrap_or_default();
    format!("`{}`", path.get(last_name..).unwrap_or_default().join("."))
}
