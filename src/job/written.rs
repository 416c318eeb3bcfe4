//! What a job file says, always written in one way: what identifies a job and its steps, so that a state that was
//! kept is known again by any later levada. Nothing of how levada holds a job may be in it.

use indexmap::IndexMap;
use toml::de::{DeTable, DeValue};

use super::connect::{SinkConnector, SourceConnector};
use super::document::{Document, Node};

/// The entries of the sections that decide what a job makes of its inputs, by name, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// `[source.NAME.CONNECTOR]`.
    pub source: IndexMap<String, String>,
    /// `[step.NAME.VERB]`.
    pub step: IndexMap<String, String>,
    /// `[sink.NAME.CONNECTOR]`.
    pub sink: IndexMap<String, String>,
}

impl Written {
    pub(super) fn of(document: &Document<'_>) -> Written {
        let entries = |section, but: fn(&str) -> &'static [&'static str]| {
            let children = document.children(section).into_iter();
            children.map(|(name, node)| (name.to_string(), entry(node, but))).collect()
        };
        Written {
            source: entries("source", SourceConnector::reached_by),
            step: entries("step", |_| &[]),
            sink: entries("sink", SinkConnector::reached_by),
        }
    }
}

/// An entry: a table with one field, the connector or the verb. That one's fields go by name, as their order says
/// nothing; everything in them goes as it is written, as the order of columns is that of the output. `but` gives the
/// fields of a connector that say nothing of the job: servers move, and secrets change, while it goes on.
fn entry(node: &Node<'_>, but: impl Fn(&str) -> &'static [&'static str]) -> String {
    let mut text = String::new();
    let Some(kinds) = node.get_ref().as_table() else { return text };
    for (kind, fields) in kinds {
        text += kind.get_ref();
        match fields.get_ref() {
            DeValue::Table(fields) => {
                let mut fields = in_order(fields);
                fields.retain(|(name, _)| !but(kind.get_ref()).contains(name));
                fields.sort_by_key(|(name, _)| *name);
                table(&mut text, &fields);
            }
            _ => value(&mut text, fields),
        }
    }
    text
}

fn table(text: &mut String, fields: &[(&str, &Node<'_>)]) {
    text.push('{');
    for (name, field) in fields {
        string(text, name);
        text.push('=');
        // A registry of schemas is reached, too.
        if *name != "registry" || !field.get_ref().is_table() {
            value(text, field);
        }
        text.push(',');
    }
    text.push('}');
}

fn value(text: &mut String, node: &Node<'_>) {
    match node.get_ref() {
        DeValue::String(value) => string(text, value),
        DeValue::Integer(value) => match i128::from_str_radix(value.as_str(), value.radix()) {
            Ok(number) => *text += &number.to_string(),
            Err(_) => *text += value.as_str(),
        },
        DeValue::Float(value) => match value.as_str().parse::<f64>() {
            // With the sign of a zero and with all digits, and never as an integer is.
            Ok(number) => *text += &format!("{number:e}"),
            Err(_) => *text += value.as_str(),
        },
        DeValue::Boolean(value) => *text += if *value { "true" } else { "false" },
        DeValue::Datetime(value) => *text += &value.to_string(),
        DeValue::Array(elements) => {
            text.push('[');
            for element in elements {
                value(text, element);
                text.push(',');
            }
            text.push(']');
        }
        DeValue::Table(fields) => table(text, &in_order(fields)),
    }
}

fn in_order<'n, 't>(fields: &'n DeTable<'t>) -> Vec<(&'n str, &'n Node<'t>)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| name.span().start);
    fields.into_iter().map(|(name, value)| (name.get_ref().as_ref(), value)).collect()
}

/// As it is, so that the words in it stay words; its length says where it ends.
fn string(text: &mut String, value: &str) {
    *text += &format!("{}\"{value}\"", value.len());
}
