//! Which scalar functions and types expressions may name: DataFusion's, less what would make a job
//! depend on more than its inputs and what deals in types that streams do not have.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::datatype::DataTypeExt;
use datafusion_common::{Result, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF};
use datafusion_functions::core::planner::CoreFunctionPlanner;
use datafusion_functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion_functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion_sql::sqlparser::ast::DataType as SqlType;
use levada_types::Batch;

use super::bounded::bounded;
use super::{json, reference};

/// Functions that would give another value on another day, in another process, at another call.
const CLOCKS: &[&str] = &[
    "now",
    "current_timestamp",
    "current_date",
    "current_time",
    "today",
    "localtime",
    "localtimestamp",
    "clock_timestamp",
    "random",
    "rand",
    "uuid",
    "gen_random_uuid",
];

/// Functions over structures, lists, times of day, files and Arrow's own types, none of which a stream has.
const FOREIGN: &[&str] = &[
    "arrow_cast",
    "arrow_field",
    "arrow_try_cast",
    "arrow_metadata",
    "arrow_typeof",
    "cast_to_type",
    "try_cast_to_type",
    "with_metadata",
    "named_struct",
    "struct",
    "row",
    "get_field",
    "union_extract",
    "union_tag",
    "version",
    "input_file_name",
    "file_row_index",
    "make_time",
    "to_time",
    "regexp_match",
    "encode",
    "decode",
];

/// Functions of many rows, refused in an expression over one.
const AGGREGATES: &[&str] = &[
    "avg",
    "mean",
    "sum",
    "count",
    "min",
    "max",
    "median",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "var",
    "variance",
    "var_pop",
    "var_samp",
    "first",
    "last",
    "first_value",
    "last_value",
    "percentile",
    "approx_percentile",
    "approx_percentile_cont",
    "approx_distinct",
    "approx_median",
    "bool_and",
    "bool_or",
    "corr",
    "array_agg",
    "string_agg",
];

/// What a function name is.
pub enum Named {
    /// A function of one row.
    Scalar,
    /// A clock or a source of randomness.
    Clock,
    /// A function of many rows.
    Aggregate,
    /// Nothing that is known.
    Unknown,
}

/// What `name`, in lower case, is.
pub fn named(name: &str) -> Named {
    if CLOCKS.contains(&name) {
        Named::Clock
    } else if registry().contains_key(name) {
        Named::Scalar
    } else if AGGREGATES.contains(&name) {
        Named::Aggregate
    } else {
        Named::Unknown
    }
}

/// The names of all scalar functions, sorted.
pub fn names() -> Vec<String> {
    registry().keys().cloned().collect()
}

/// The scalar function of this name or alias.
pub fn scalar(name: &str) -> Option<Arc<ScalarUDF>> {
    registry().get(name).cloned()
}

/// The parameters of a scalar function, for people: `(text, start[, length])`.
pub fn parameters(name: &str) -> Option<String> {
    reference::parameters(name)
}

fn registry() -> &'static BTreeMap<String, Arc<ScalarUDF>> {
    static REGISTRY: OnceLock<BTreeMap<String, Arc<ScalarUDF>>> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut all = BTreeMap::new();
        for function in datafusion_functions::all_default_functions().into_iter().chain(json::functions()) {
            let names = std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str));
            for name in names {
                let pure = function.signature().volatility == Volatility::Immutable;
                if pure && !CLOCKS.contains(&name) && !FOREIGN.contains(&name) {
                    all.insert(name.to_string(), bounded(function.clone()));
                }
            }
        }
        all
    })
}

/// What the SQL planner asks about the world: there are functions and types, and nothing else.
#[derive(Debug)]
pub struct World {
    options: ConfigOptions,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl World {
    pub fn new() -> World {
        World {
            options: ConfigOptions::default(),
            planners: vec![
                Arc::new(CoreFunctionPlanner {}),
                Arc::new(DatetimeFunctionPlanner),
                Arc::new(UnicodeFunctionPlanner),
            ],
        }
    }
}

impl ContextProvider for World {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("There is no table {name}")
    }
    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }
    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }
    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        scalar(name)
    }
    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }
    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }
    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }
    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }
    fn options(&self) -> &ConfigOptions {
        &self.options
    }
    fn udf_names(&self) -> Vec<String> {
        names()
    }
    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }
    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }
    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The types that `cast(x as …)` knows: those of streams, by SQL's names and by the job file's.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql: &SqlType) -> Result<Option<FieldRef>> {
        let data_type = match sql {
            SqlType::Character(_)
            | SqlType::Char(_)
            | SqlType::CharacterVarying(_)
            | SqlType::CharVarying(_)
            | SqlType::Varchar(_)
            | SqlType::Nvarchar(_)
            | SqlType::Text
            | SqlType::String(_) => DataType::Utf8,
            SqlType::TinyInt(_)
            | SqlType::Int2(_)
            | SqlType::SmallInt(_)
            | SqlType::MediumInt(_)
            | SqlType::Int(_)
            | SqlType::Int4(_)
            | SqlType::Int8(_)
            | SqlType::Int16
            | SqlType::Int32
            | SqlType::Int64
            | SqlType::Integer(_)
            | SqlType::BigInt(_) => DataType::Int64,
            SqlType::Numeric(_)
            | SqlType::Decimal(_)
            | SqlType::Dec(_)
            | SqlType::Float(_)
            | SqlType::Float4
            | SqlType::Float8
            | SqlType::Float32
            | SqlType::Float64
            | SqlType::Real
            | SqlType::Double(_)
            | SqlType::DoublePrecision => DataType::Float64,
            SqlType::Bool | SqlType::Boolean => DataType::Boolean,
            SqlType::Date => DataType::Date32,
            SqlType::Timestamp(..) | SqlType::TimestampNtz(_) | SqlType::Datetime(_) => {
                Batch::timestamp_type()
            }
            other => {
                return plan_err!(
                    "there is no type `{}`; there are string, int, float, bool, timestamp and date",
                    other.to_string().to_lowercase()
                );
            }
        };
        Ok(Some(data_type.into_nullable_field_ref()))
    }
}
