//! The fields of a table as a nested list, from the JSON Schema that is made of the specs.
//!
//! ```text
//!   - **`hopping`** (table, optional): Windows that overlap: `{ size = "1h", slide = "10m" }`.
//!     - **`size`** (duration, required): How long a window is.
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;

use levada_types::DURATION_PATTERN;
use serde_json::{Map, Value};

use super::prose::wrapped;

/// So many values that a text may have are listed; of more the field's own words tell.
const MOST_VALUES: usize = 8;

/// The definitions that a schema's references name.
pub struct Fields<'s> {
    definitions: Option<&'s Map<String, Value>>,
}

impl<'s> Fields<'s> {
    /// Those of a schema.
    pub fn new(schema: &'s Value) -> Fields<'s> {
        Fields { definitions: schema["$defs"].as_object() }
    }

    /// One of them; nothing if there is none of that name.
    pub fn definition(&self, name: &str) -> &'s Value {
        self.definitions.and_then(|all| all.get(name)).unwrap_or(&Value::Null)
    }

    /// The names of a table's fields.
    pub fn names(&self, table: &'s Value) -> BTreeSet<&'s str> {
        properties(self.resolve(table)).map(|(name, _)| name.as_str()).collect()
    }

    /// Some fields of a table, and all of the tables in it.
    pub fn list(&self, table: &'s Value, chosen: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        let table = self.resolve(table);
        for (name, field) in properties(table).filter(|(name, _)| chosen(name)) {
            self.field(table, name, field, 0, &mut text);
        }
        text
    }

    fn field(&self, table: &'s Value, name: &str, field: &'s Value, depth: usize, text: &mut String) {
        let need = match &field["default"] {
            _ if strings(&table["required"]).any(|required| required == name) => "required".into(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                format!("by default `{}`", field["default"])
            }
            _ => "optional".to_string(),
        };
        let about = field["description"].as_str().unwrap_or_default();
        let head = format!("**`{name}`** ({}; {need})", self.kind(field));
        self.item(&head, about, field, depth, text);
    }

    /// A line of the list, and what belongs to it.
    fn item(&self, head: &str, about: &str, value: &'s Value, depth: usize, text: &mut String) {
        let indent = "  ".repeat(depth);
        let inner = format!("{indent}  ");
        let colon = if about.is_empty() { "" } else { ": " };
        // Writing to a string cannot fail.
        _ = writeln!(text, "{indent}- {}", wrapped(&format!("{head}{colon}{about}"), &inner));
        let inside = self.inside(value);
        // Its first paragraph says what it is, as the field does; the others say more.
        let more = inside["description"].as_str().and_then(|all| all.split_once("\n\n"));
        if let Some((_, more)) = more.filter(|(_, more)| !about.contains(more)) {
            _ = writeln!(text, "\n{inner}{}\n", wrapped(more, &inner));
        }
        // A constant is what a choice is known by.
        for (name, field) in properties(inside).filter(|(_, field)| field.get("const").is_none()) {
            self.field(inside, name, field, depth + 1, text);
        }
        self.choices(inside, depth + 1, text);
    }

    /// What a value may be, where that is one of several.
    fn choices(&self, value: &'s Value, depth: usize, text: &mut String) {
        for choice in alternatives(value) {
            let about = choice["description"].as_str().unwrap_or_default();
            let content = self.tagged(choice).map(|(_, content)| content);
            if content.is_some() || !about.is_empty() {
                self.item(&self.choice(choice), about, content.unwrap_or(choice), depth, text);
            }
        }
    }

    /// The one field of a choice that is named by it: `{ to_first = … }`.
    fn tagged(&self, choice: &'s Value) -> Option<(&'s str, &'s Value)> {
        let fields = choice["properties"].as_object().filter(|fields| fields.len() == 1)?;
        let mut required = strings(&choice["required"]);
        let (name, content) = fields.iter().next()?;
        (required.next() == Some(name.as_str())).then_some((name.as_str(), content))
    }

    /// What a value of several kinds is, if it is of this one.
    fn choice(&self, choice: &'s Value) -> String {
        if let Some((name, constant)) =
            properties(choice).find_map(|(name, field)| Some((name, field.get("const")?)))
        {
            return format!("`{{ {name} = {constant}, … }}`");
        }
        match self.tagged(choice).map(|(name, content)| (name, self.kind(content))) {
            Some((name, kind)) if kind == "string" => format!("`{{ {name} = \"…\" }}`"),
            Some((name, kind)) if kind == "table" => format!("`{{ {name} = {{ … }} }}`"),
            Some((name, _)) => format!("`{{ {name} = … }}`"),
            None => self.kind(choice),
        }
    }

    /// What a value is, in a few words.
    fn kind(&self, value: &'s Value) -> String {
        let value = self.resolve(value);
        if let Some(constant) = value.get("const") {
            return format!("`{constant}`");
        }
        if let Some(values) = value["enum"].as_array().filter(|values| values.len() <= MOST_VALUES) {
            return or(values.iter().map(|value| format!("`{value}`")).collect());
        }
        let choices = alternatives(value);
        if !choices.is_empty() {
            return or(choices.into_iter().map(|choice| self.choice(choice)).collect());
        }
        let mut kinds = strings(&value["type"]).chain(value["type"].as_str());
        match kinds.find(|kind| *kind != "null").unwrap_or_default() {
            "string" if value["pattern"] == DURATION_PATTERN => "duration".into(),
            "boolean" => "true or false".into(),
            "integer" => format!("integer{}", range(value)),
            "array" => many("list", &self.kind(&value["items"])),
            "object" if value["additionalProperties"].is_object() => {
                many("table", &self.kind(&value["additionalProperties"]))
            }
            "object" => "table".into(),
            "" => "any value".into(),
            other => other.into(),
        }
    }

    /// The table or the choices that are to be explained below a value: its own, or those of each of its entries.
    fn inside(&self, value: &'s Value) -> &'s Value {
        let value = self.resolve(value);
        match [&value["items"], &value["additionalProperties"]]
            .into_iter()
            .find(|entries| entries.is_object())
        {
            Some(entries) => self.inside(entries),
            None => value,
        }
    }

    /// What a value refers to. That a field may be left out is no value of it.
    pub fn resolve(&self, value: &'s Value) -> &'s Value {
        let name = value["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        match (name, alternatives(value).as_slice()) {
            (Some(name), _) => self.resolve(self.definition(name)),
            (None, [only]) => self.resolve(only),
            _ => value,
        }
    }
}

/// What a value may be one of.
fn alternatives(value: &Value) -> Vec<&Value> {
    let all = [&value["oneOf"], &value["anyOf"]].into_iter().filter_map(Value::as_array).flatten();
    all.filter(|choice| choice["type"] != "null").collect()
}

/// The fields of a table.
fn properties(table: &Value) -> impl Iterator<Item = (&String, &Value)> {
    table["properties"].as_object().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// `a, b or c`.
fn or(mut words: Vec<String>) -> String {
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} or {last}", words.join(", ")),
        None => String::new(),
    }
}

/// Several of a kind, in a list or under names.
fn many(what: &str, kind: &str) -> String {
    match kind.contains([' ', '`']) {
        true => format!("{what}, each {kind}"),
        false => format!("{what} of {kind}s"),
    }
}

/// Between which numbers one must be.
fn range(value: &Value) -> String {
    match (value["minimum"].as_u64().filter(|least| *least > 0), value["maximum"].as_u64()) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        (Some(least), None) => format!(", at least {least}"),
        (None, Some(most)) => format!(", at most {most}"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_listed_with_what_they_refer_to() {
        let schema = json!({
            "$defs": {
                "Gap": {
                    "type": "object",
                    "description": "A silence.\n\nIt ends a session.",
                    "properties": { "gap": { "type": "string", "pattern": DURATION_PATTERN, "description": "How long." } },
                    "required": ["gap"],
                },
                "Skip": {
                    "oneOf": [
                        { "type": "string", "const": "next", "description": "The next." },
                        {
                            "type": "object", "properties": { "to": { "type": "string" } }, "required": ["to"],
                            "description": "That one.",
                        },
                    ],
                },
            },
            "type": "object",
            "properties": {
                "key": { "type": "array", "items": { "type": "string" }, "default": [], "description": "The key." },
                "gap": { "anyOf": [{ "$ref": "#/$defs/Gap" }, { "type": "null" }], "description": "When it ends." },
                "links": { "type": "array", "items": { "$ref": "#/$defs/Gap" }, "description": "All." },
                "skip": { "$ref": "#/$defs/Skip", "default": "next", "description": "Where to." },
                "sums": { "type": "object", "additionalProperties": { "type": "string" }, "description": "Sums." },
                "most": { "type": ["integer", "null"], "minimum": 1, "maximum": 9, "description": "How many." },
                "parts": {
                    "type": "array", "description": "Parts.",
                    "items": { "oneOf": [
                        {
                            "type": "object", "required": ["kind"], "description": "A table.",
                            "properties": {
                                "kind": { "type": "string", "const": "table" },
                                "wide": { "type": "boolean", "default": false, "description": "Whether it is wide." },
                            },
                        },
                        { "type": "object", "properties": { "kind": { "type": "string", "const": "line" } } },
                    ] },
                },
                "other": { "type": "string", "description": "Not asked for." },
            },
            "required": ["sums"],
        });
        let list = Fields::new(&schema).list(&schema, |name| name != "other");
        assert_eq!(
            list,
            "\
- **`key`** (list of strings; optional): The key.
- **`gap`** (table; optional): When it ends.

  It ends a session.

  - **`gap`** (duration; required): How long.
- **`links`** (list of tables; optional): All.

  It ends a session.

  - **`gap`** (duration; required): How long.
- **`skip`** (`\"next\"` or `{ to = \"…\" }`; by default `\"next\"`): Where to.
  - `\"next\"`: The next.
  - `{ to = \"…\" }`: That one.
- **`sums`** (table of strings; required): Sums.
- **`most`** (integer from 1 to 9; optional): How many.
- **`parts`** (list, each `{ kind = \"table\", … }` or `{ kind = \"line\", … }`; optional): Parts.
  - `{ kind = \"table\", … }`: A table.
    - **`wide`** (true or false; by default `false`): Whether it is wide.
"
        );
    }
}
