//! The check of a page against the job's topics.
//!
//! In: the settings, and the columns of every topic that the job reads or writes. Out: problems with their
//! places: topics and columns that there are not, columns of another type than is drawn or calculated with,
//! values that a column never has.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field};
use indexmap::IndexMap;
use levada_dataflows::plan::{PlanContext, Problem};
use levada_types::parse_duration_ms;

use super::{PageSpec, PanelSpec, Span};
use crate::job::spec::ColumnType;

/// A column of a topic.
#[derive(Clone, Debug)]
pub struct PageColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// The only values that it has, if that is known.
    pub values: Option<&'static [&'static str]>,
}

impl PageColumn {
    /// A column that may have any value.
    pub fn new(field: &Field) -> PageColumn {
        PageColumn { name: field.name().clone(), kind: ColumnType::of(field), values: None }
    }
}

/// The columns of the job's topics; `None` of a topic whose rows are not known, since something else is wrong.
pub type Topics = BTreeMap<String, Option<Vec<PageColumn>>>;

/// Reports the topics and columns of the settings that the job does not have.
pub fn check(page: &PageSpec, topics: &Topics, cx: &mut PlanContext<'_>) {
    for (index, panel) in page.panels.iter().enumerate() {
        let mut checker = Checker { at: index.to_string(), topics, cx };
        checker.panel(panel);
    }
}

struct Checker<'c, 'p> {
    /// Which panel.
    at: String,
    topics: &'c Topics,
    cx: &'c mut PlanContext<'p>,
}

impl<'c> Checker<'c, '_> {
    fn panel(&mut self, panel: &PanelSpec) {
        use Wanted::{Any, Number, Time};
        match panel {
            PanelSpec::Figure { topic, column, within, weight, of, key, ends, sort, note, .. } => {
                self.span("within", within.as_ref());
                let Some(known) = self.topic(&["topic"], topic) else { return };
                for (field, column, wanted) in [
                    ("column", column, Number),
                    ("weight", weight, Number),
                    ("of", of, Number),
                    ("key", key, Any),
                    ("sort", sort, Number),
                ] {
                    self.column(&[field], column.as_deref(), wanted, known);
                }
                self.ends(ends, key.is_some(), known);
                self.text("note", note.as_deref(), known);
            }
            PanelSpec::Chart { topic, x, y, bars, by, also, span, .. } => {
                self.span("span", span.as_ref());
                if let Some(also) = also
                    && let Some(known) = self.topic(&["also", "topic"], &also.topic)
                {
                    self.column(&["also", "x"], also.x.as_deref(), Time, known);
                    self.column(&["also", "y"], Some(&also.y), Number, known);
                }
                let Some(known) = self.topic(&["topic"], topic) else { return };
                for (field, column, wanted) in [("x", x, Time), ("bars", bars, Number), ("by", by, Any)] {
                    self.column(&[field], column.as_deref(), wanted, known);
                }
                self.columns("y", y, Number, known);
            }
            PanelSpec::Table { topic, columns, labels, .. } => {
                let Some(known) = self.topic(&["topic"], topic) else { return };
                self.columns("columns", columns, Any, known);
                self.columns("labels", labels, Any, known);
            }
            PanelSpec::List { topic, label, strong, text, key, ends, sort, meter, .. } => {
                let Some(known) = self.topic(&["topic"], topic) else { return };
                for (field, column, wanted) in [
                    ("label", label, Any),
                    ("strong", strong, Any),
                    ("key", key, Any),
                    ("sort", sort, Number),
                    ("meter", meter, Number),
                ] {
                    self.column(&[field], column.as_deref(), wanted, known);
                }
                self.ends(ends, key.is_some(), known);
                self.text("text", text.as_deref(), known);
            }
        }
    }

    /// The columns of a topic, if they are known.
    fn topic(&mut self, field: &[&str], name: &str) -> Option<&'c [PageColumn]> {
        match self.topics.get(name) {
            Some(columns) => columns.as_deref(),
            None => {
                let path = self.path(field);
                self.cx.unknown(path, "topic", name, self.topics.keys().cloned());
                None
            }
        }
    }

    fn column(&mut self, field: &[&str], column: Option<&str>, wanted: Wanted, known: &[PageColumn]) {
        let Some(name) = column else { return };
        let path = self.path(field);
        let Some(column) = known.iter().find(|column| column.name == name) else {
            return self.cx.unknown(path, "column", name, names(known));
        };
        if !wanted.takes(&column.kind.data_type) {
            let (wanted, kind) = (wanted.words(), &column.kind);
            self.cx.problem(path, format!("`{name}` must be {wanted}, and is {kind}"));
        }
    }

    fn columns(&mut self, field: &str, columns: &[String], wanted: Wanted, known: &[PageColumn]) {
        for (index, column) in columns.iter().enumerate() {
            self.column(&[field, &index.to_string()], Some(column), wanted, known);
        }
    }

    fn span(&mut self, field: &str, span: Option<&Span>) {
        let wrong = match span.map(|Span(text)| parse_duration_ms(text)) {
            Some(Err(why)) => why,
            Some(Ok(..=0)) => "this must be longer than nothing".into(),
            _ => return,
        };
        let path = self.path(&[field]);
        self.cx.problem(path, wrong);
    }

    fn ends(&mut self, ends: &IndexMap<String, Vec<String>>, keyed: bool, known: &[PageColumn]) {
        if !keyed && !ends.is_empty() {
            let path = self.path(&["ends"]);
            self.cx.problem(path, "`ends` is about the rows of a `key`, which is not given");
        }
        for (name, values) in ends {
            self.column(&["ends", name], Some(name), Wanted::Any, known);
            let all = known.iter().find(|column| column.name == *name).and_then(|column| column.values);
            for (index, value) in values.iter().enumerate() {
                if let Some(all) = all.filter(|all| !all.contains(&value.as_str())) {
                    let path = self.path(&["ends", name, &index.to_string()]);
                    self.cx.unknown(
                        path,
                        &format!("`{name}`"),
                        value,
                        all.iter().map(|value| value.to_string()),
                    );
                }
            }
        }
    }

    /// Every `{column}` of a text.
    fn text(&mut self, field: &str, text: Option<&str>, known: &[PageColumn]) {
        let text = text.unwrap_or_default();
        let mut from = 0;
        while let Some((start, length)) = text
            .get(from..)
            .and_then(|rest| rest.find('{'))
            .and_then(|open| Some((from + open + 1, text.get(from + open + 1..)?.find('}')?)))
        {
            from = start + length;
            let name = text.get(start..from).unwrap_or_default();
            if known.iter().any(|column| column.name == name) {
                continue;
            }
            let before = text.get(..start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            self.cx.problems.push(Problem {
                path: self.path(&[field]),
                message: format!("there is no column `{name}`"),
                within: Some((line, column)),
                known: names(known).collect(),
                wrong: Some(name.into()),
                ..Problem::default()
            });
        }
    }

    fn path(&self, field: &[&str]) -> Vec<String> {
        ["page", "panels", &self.at].iter().chain(field).map(|part| (*part).to_string()).collect()
    }
}

/// What a column must be.
#[derive(Clone, Copy)]
enum Wanted {
    Any,
    Number,
    Time,
}

impl Wanted {
    fn takes(self, data_type: &DataType) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::Number => matches!(data_type, DataType::Int64 | DataType::Float64),
            // The page reads milliseconds since 1970 and RFC 3339 too.
            Wanted::Time => matches!(data_type, DataType::Timestamp(..) | DataType::Int64 | DataType::Utf8),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Wanted::Any => "any",
            Wanted::Number => "a number",
            Wanted::Time => "a timestamp",
        }
    }
}

fn names(known: &[PageColumn]) -> impl Iterator<Item = String> {
    known.iter().map(|column| column.name.clone())
}
