//! `[page]`: what the gateway shows of a job. The gateway hands the settings to the page as they are
//! ([`PageSpec::to_json`]).

mod check;

use indexmap::IndexMap;
use levada_types::parse_duration_ms;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::spec::object;
pub use check::{PageColumn, Topics, check};

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
        object(
            json!({ "type": "string", "pattern": levada_types::DURATION_PATTERN, "description": "A duration, as `90s`, `1h` or `14d`." }),
        )
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
