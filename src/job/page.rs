//! `[page]`: what the gateway shows of a job, and the check of it against the job's topics.
//!
//! In: settings, and the columns of every topic that the job reads or writes. Out: problems with their
//! places. Past that the gateway hands the settings to the page as they are ([`PageSpec::to_json`]).

use std::collections::BTreeMap;

use indexmap::IndexMap;
use levada_dataflows::plan::{PlanContext, Problem};
use levada_types::parse_duration_ms;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::spec::object;

/// `[page]`: what the gateway's page shows of the job.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageSpec {
    /// The headline, by default the job's name.
    #[serde(default)]
    pub title: Option<String>,
    /// A line below the headline.
    #[serde(default)]
    pub description: Option<String>,
    /// What it shows, in this order; figures stand on top.
    #[schemars(extend("minItems" = 1))]
    pub panels: Vec<PanelSpec>,
}

/// `[[page.panels]]`: a part of the page. In a text such as `note`, `{column}` stands for a row's value.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PanelSpec {
    /// One number: how many records there are, how many keys are open, or a figure of a column.
    Figure {
        /// What it is called.
        title: String,
        /// The topic that it reads.
        topic: String,
        /// The column that is measured. Without it, records are counted, or keys.
        #[serde(default)]
        column: Option<String>,
        /// Which figure of the column.
        #[serde(default)]
        measure: Measure,
        /// Of the rows of the last so much event time; otherwise of all that the page has.
        #[serde(default)]
        within: Option<Span>,
        /// A column that weighs an average.
        #[serde(default)]
        weight: Option<String>,
        /// A column with the whole of which the figure is a part.
        #[serde(default)]
        of: Option<String>,
        /// What stands behind the number.
        #[serde(default)]
        unit: Option<String>,
        /// Counts the values of this column whose last row has not ended.
        #[serde(default)]
        key: Option<String>,
        /// By column, the values of a row that ends its key.
        #[serde(default)]
        ends: IndexMap<String, Vec<String>>,
        /// The note is of the key with the greatest of this column.
        #[serde(default)]
        sort: Option<String>,
        /// A line about the newest row.
        #[serde(default)]
        note: Option<String>,
    },
    /// Lines and bars over event time, one small chart for each value of `by`.
    Chart {
        /// What it is called.
        title: String,
        /// The topic that it reads.
        topic: String,
        /// A column with the time, by default the record's own.
        #[serde(default)]
        x: Option<String>,
        /// The columns that are lines.
        #[schemars(extend("minItems" = 1))]
        y: Vec<String>,
        /// A column that is bars, on a scale of its own.
        #[serde(default)]
        bars: Option<String>,
        /// The column whose values have a chart each: the first eight that come.
        #[serde(default)]
        by: Option<String>,
        /// A dashed line out of another topic.
        #[serde(default)]
        also: Option<AlsoSpec>,
        /// How much event time it shows; by default all that the page has.
        #[serde(default)]
        span: Option<Span>,
        /// The unit of the lines.
        #[serde(default)]
        unit: Option<String>,
        /// How many of the newest records it begins with.
        #[serde(default = "chart_rows")]
        #[schemars(range(min = 1, max = 20000))]
        rows: u32,
        /// How many of the page's three columns it takes.
        #[serde(default = "one")]
        #[schemars(range(min = 1, max = 3))]
        width: u8,
        /// How many rows of panels it takes.
        #[serde(default = "one")]
        #[schemars(range(min = 1, max = 2))]
        height: u8,
    },
    /// The newest rows as a table.
    Table {
        /// What it is called.
        title: String,
        /// The topic that it reads.
        topic: String,
        /// The columns, by default all.
        #[serde(default)]
        columns: Vec<String>,
        /// The columns whose words are coloured.
        #[serde(default)]
        labels: Vec<String>,
        /// How many rows it shows.
        #[serde(default = "shown_rows")]
        #[schemars(range(min = 1, max = 200))]
        rows: u32,
        /// How many of the page's three columns it takes.
        #[serde(default = "one")]
        #[schemars(range(min = 1, max = 3))]
        width: u8,
        /// How many rows of panels it takes.
        #[serde(default = "one")]
        #[schemars(range(min = 1, max = 2))]
        height: u8,
    },
    /// Rows as entries that open: the newest first, or those of keys that are open.
    List {
        /// What it is called.
        title: String,
        /// The topic that it reads.
        topic: String,
        /// A column whose word is coloured.
        #[serde(default)]
        label: Option<String>,
        /// A column that stands out.
        #[serde(default)]
        strong: Option<String>,
        /// What an entry says, by default the whole row.
        #[serde(default)]
        text: Option<String>,
        /// One entry for each value of this column: its last row.
        #[serde(default)]
        key: Option<String>,
        /// By column, the values of a row that ends its key.
        #[serde(default)]
        ends: IndexMap<String, Vec<String>>,
        /// The greatest of this column first, rather than the newest.
        #[serde(default)]
        sort: Option<String>,
        /// A column that is drawn as a bar.
        #[serde(default)]
        meter: Option<String>,
        /// How many entries it shows.
        #[serde(default = "shown_rows")]
        #[schemars(range(min = 1, max = 200))]
        rows: u32,
        /// How many of the page's three columns it takes.
        #[serde(default = "one")]
        #[schemars(range(min = 1, max = 3))]
        width: u8,
        /// How many rows of panels it takes.
        #[serde(default = "one")]
        #[schemars(range(min = 1, max = 2))]
        height: u8,
    },
}

/// A line of a chart out of another topic, which has the chart's `by` column too.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlsoSpec {
    /// The topic.
    pub topic: String,
    /// A column with the time, by default the record's own.
    #[serde(default)]
    pub x: Option<String>,
    /// The column that is the line.
    pub y: String,
}

/// A figure of a column.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The newest value.
    #[default]
    Last,
    /// The sum.
    Sum,
    /// The average.
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

/// A duration as it was written; the page gets milliseconds.
#[derive(Clone, Debug, Deserialize)]
pub struct Span(String);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // One that is none was reported.
        parse_duration_ms(&self.0).ok().serialize(serializer)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        object(json!({ "type": "string", "description": "A duration, as `90s`, `1h` or `14d`." }))
    }
}

fn chart_rows() -> u32 {
    1200
}

fn shown_rows() -> u32 {
    60
}

fn one() -> u8 {
    1
}

impl PageSpec {
    /// The settings as the page takes them, of a job of this name and description.
    pub fn to_json(&self, job: &str, description: Option<&str>) -> Value {
        let title = self.title.as_deref().unwrap_or(job);
        let description = self.description.as_deref().or(description);
        json!({ "title": title, "description": description, "panels": self.panels })
    }
}

/// The columns of the job's topics; `None` of a topic whose rows are not known, since something else is wrong.
pub type Topics = BTreeMap<String, Option<Vec<String>>>;

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
        match panel {
            PanelSpec::Figure { topic, column, within, weight, of, key, ends, sort, note, .. } => {
                self.span("within", within.as_ref());
                let Some(known) = self.topic(&["topic"], topic) else { return };
                for (field, column) in
                    [("column", column), ("weight", weight), ("of", of), ("key", key), ("sort", sort)]
                {
                    self.column(&[field], column.as_deref(), known);
                }
                self.ends(ends, key.is_some(), known);
                self.text("note", note.as_deref(), known);
            }
            PanelSpec::Chart { topic, x, y, bars, by, also, span, .. } => {
                self.span("span", span.as_ref());
                if let Some(also) = also
                    && let Some(known) = self.topic(&["also", "topic"], &also.topic)
                {
                    self.column(&["also", "x"], also.x.as_deref(), known);
                    self.column(&["also", "y"], Some(&also.y), known);
                }
                let Some(known) = self.topic(&["topic"], topic) else { return };
                for (field, column) in [("x", x), ("bars", bars), ("by", by)] {
                    self.column(&[field], column.as_deref(), known);
                }
                self.columns("y", y, known);
            }
            PanelSpec::Table { topic, columns, labels, .. } => {
                let Some(known) = self.topic(&["topic"], topic) else { return };
                self.columns("columns", columns, known);
                self.columns("labels", labels, known);
            }
            PanelSpec::List { topic, label, strong, text, key, ends, sort, meter, .. } => {
                let Some(known) = self.topic(&["topic"], topic) else { return };
                for (field, column) in
                    [("label", label), ("strong", strong), ("key", key), ("sort", sort), ("meter", meter)]
                {
                    self.column(&[field], column.as_deref(), known);
                }
                self.ends(ends, key.is_some(), known);
                self.text("text", text.as_deref(), known);
            }
        }
    }

    /// The columns of a topic, if they are known.
    fn topic(&mut self, field: &[&str], name: &str) -> Option<&'c [String]> {
        match self.topics.get(name) {
            Some(columns) => columns.as_deref(),
            None => {
                let path = self.path(field);
                self.cx.unknown(path, "topic", name, self.topics.keys().cloned());
                None
            }
        }
    }

    fn column(&mut self, field: &[&str], column: Option<&str>, known: &[String]) {
        let Some(column) = column.filter(|column| !known.iter().any(|name| name == column)) else { return };
        let path = self.path(field);
        self.cx.unknown(path, "column", column, known.iter().cloned());
    }

    fn columns(&mut self, field: &str, columns: &[String], known: &[String]) {
        for (index, column) in columns.iter().enumerate() {
            self.column(&[field, &index.to_string()], Some(column), known);
        }
    }

    fn span(&mut self, field: &str, span: Option<&Span>) {
        if let Some(Err(why)) = span.map(|Span(text)| parse_duration_ms(text)) {
            let path = self.path(&[field]);
            self.cx.problem(path, why);
        }
    }

    fn ends(&mut self, ends: &IndexMap<String, Vec<String>>, keyed: bool, known: &[String]) {
        if !keyed && !ends.is_empty() {
            let path = self.path(&["ends"]);
            self.cx.problem(path, "`ends` is about the rows of a `key`, which is not given");
        }
        for column in ends.keys() {
            self.column(&["ends", column], Some(column), known);
        }
    }

    /// Every `{column}` of a text.
    fn text(&mut self, field: &str, text: Option<&str>, known: &[String]) {
        let text = text.unwrap_or_default();
        let mut from = 0;
        while let Some((start, length)) = text
            .get(from..)
            .and_then(|rest| rest.find('{'))
            .and_then(|open| Some((from + open + 1, text.get(from + open + 1..)?.find('}')?)))
        {
            from = start + length;
            let name = text.get(start..from).unwrap_or_default();
            if known.iter().any(|column| column == name) {
                continue;
            }
            let before = text.get(..start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            self.cx.problems.push(Problem {
                path: self.path(&[field]),
                message: format!("there is no column `{name}`"),
                within: Some((line, column)),
                until: None,
                known: known.to_vec(),
                wrong: Some(name.into()),
                help: None,
            });
        }
    }

    fn path(&self, field: &[&str]) -> Vec<String> {
        ["page", "panels", &self.at].iter().chain(field).map(|part| (*part).to_string()).collect()
    }
}
