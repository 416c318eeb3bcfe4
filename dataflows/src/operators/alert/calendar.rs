//! Times of the calendar: nights, weekends, the last days of a month.
//!
//! Within a field one of its ranges is enough; all fields that are given have to agree. The calendar is that of a place of
//! the IANA time zone database, UTC by default. The database is compiled in, so a replay has the same one as long as it is
//! the same levada.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, Timelike};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plan::PlanContext;

/// Times at which a step tells nothing, or at which alone it does.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimesSpec {
    /// What they are called in the history. Several may have one name.
    pub name: String,
    /// Times of the day, each with the minute it begins at and the one that ends it and is no part of it, up to `24:00`.
    #[serde(default)]
    pub times: Vec<TimeRangeSpec>,
    /// Days of the week, as `saturday`, or from one to another as `monday:friday`, in a week that begins on Sunday.
    #[serde(default)]
    pub weekdays: Vec<String>,
    /// Days of the month, as `1` or `1:5`; negative ones count from its end, `-1` being the last.
    #[serde(default)]
    pub days_of_month: Vec<String>,
    /// Months by name or number, as `december` or `5:8`.
    #[serde(default)]
    pub months: Vec<String>,
    /// Years, as `2026` or `2026:2028`.
    #[serde(default)]
    pub years: Vec<String>,
    /// The place whose clocks count, as `Europe/Berlin`.
    #[serde(default)]
    pub location: Option<String>,
}

/// A part of the day.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeRangeSpec {
    /// When it begins, as `09:00`.
    pub start_time: String,
    /// When it ends, as `17:30` or `24:00`.
    pub end_time: String,
}

/// Times that have been checked.
#[derive(Clone, Debug)]
pub(super) struct Times {
    pub(super) name: String,
    /// Minutes of the day, the end excluded.
    minutes: Vec<(u32, u32)>,
    /// From Sunday, 0.
    weekdays: Vec<(i32, i32)>,
    days_of_month: Vec<(i32, i32)>,
    months: Vec<(i32, i32)>,
    years: Vec<(i32, i32)>,
    place: Tz,
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

impl TimesSpec {
    /// Checks them; `path` leads to their table.
    pub(super) fn plan(&self, path: &[&str], cx: &mut PlanContext<'_>) -> Option<Times> {
        let before = cx.problems.len();
        let mut at = |field: &str, index: Option<usize>, message: String| {
            let mut path: Vec<String> = path.iter().map(ToString::to_string).collect();
            path.push(field.into());
            path.extend(index.map(|index| index.to_string()));
            cx.problem(path, message);
        };
        let mut minutes = Vec::new();
        for (index, range) in self.times.iter().enumerate() {
            match (minute_of_day(&range.start_time), minute_of_day(&range.end_time)) {
                (Some(start), Some(end)) if start < end => minutes.push((start, end)),
                (Some(_), Some(_)) => {
                    at("times", Some(index), "it ends before it begins; a night is two, up to `24:00` and from `00:00`".into())
                }
                _ => at("times", Some(index), "times are written `HH:MM`, from `00:00` to `24:00`".into()),
            }
        }
        let mut ranges = |field: &str, texts: &[String], what: &str, read: &dyn Fn(&str) -> Option<i32>| {
            let mut all = Vec::new();
            for (index, text) in texts.iter().enumerate() {
                let (from, to) = text.split_once(':').unwrap_or((text, text));
                match (read(from.trim()), read(to.trim())) {
                    // One from the beginning of a month to its end is in order, one from its end to its beginning is not.
                    (Some(from), Some(to)) if from <= to && (from >= 0 || to < 0) || (from > 0 && to < 0) => {
                        all.push((from, to));
                    }
                    (Some(_), Some(_)) => at(field, Some(index), format!("`{text}` ends before it begins")),
                    _ => at(field, Some(index), format!("`{text}` is not {what}")),
                }
            }
            all
        };
        let named = |names: &'static [&'static str], first: i32| {
            move |text: &str| {
                let place = names.iter().position(|name| *name == text.to_lowercase())?;
                Some(place as i32 + first)
            }
        };
        let weekdays = ranges("weekdays", &self.weekdays, "a day of the week", &named(&WEEKDAYS, 0));
        let day = |text: &str| text.parse().ok().filter(|day: &i32| *day != 0 && day.abs() <= 31);
        let days_of_month = ranges("days_of_month", &self.days_of_month, "a day of the month", &day);
        let by_name = named(&MONTHS, 1);
        let month = |text: &str| {
            let number = || text.parse().ok().filter(|month: &i32| (1..=12).contains(month));
            by_name(text).or_else(number)
        };
        let months = ranges("months", &self.months, "a month", &month);
        let years = ranges("years", &self.years, "a year", &|text: &str| {
            text.parse().ok().filter(|year: &i32| (0..=9999).contains(year))
        });
        let place = match &self.location {
            None => Some(Tz::UTC),
            Some(name) => name.parse().ok(),
        };
        if place.is_none() {
            let message = "this is no place of the IANA time zone database, as `Europe/Berlin` is";
            at("location", None, message.into());
        }
        let name = self.name.clone();
        let times = Times { name, minutes, weekdays, days_of_month, months, years, place: place? };
        (cx.problems.len() == before).then_some(times)
    }
}

/// `HH:MM` as minutes.
fn minute_of_day(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| {
        let good = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        good.then(|| digits.parse::<u32>().ok()).flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60 || (hours, minutes) == (24, 0)).then_some(hours * 60 + minutes)
}

impl Times {
    /// Whether an instant is one of these times.
    pub(super) fn contain(&self, at_ms: i64) -> bool {
        let Some(utc) = DateTime::from_timestamp_millis(at_ms) else { return false };
        let here = utc.with_timezone(&self.place);
        let minute = here.hour() * 60 + here.minute();
        let within = |ranges: &[(i32, i32)], value: i32| {
            ranges.is_empty() || ranges.iter().any(|&(from, to)| (from..=to).contains(&value))
        };
        let day_of_month = || {
            let length = days_in_month(here.date_naive());
            let day = |day: i32| if day < 0 { length + day + 1 } else { day };
            let on = |&(from, to): &(i32, i32)| (day(from)..=day(to)).contains(&(here.day() as i32));
            self.days_of_month.is_empty() || self.days_of_month.iter().any(on)
        };
        (self.minutes.is_empty() || self.minutes.iter().any(|&(start, end)| (start..end).contains(&minute)))
            && day_of_month()
            && within(&self.months, here.month() as i32)
            && within(&self.weekdays, here.weekday().num_days_from_sunday() as i32)
            && within(&self.years, here.year())
    }
}

fn days_in_month(day: NaiveDate) -> i32 {
    let first = day.with_day(1).and_then(|first| first.checked_add_months(Months::new(1)));
    first.and_then(|next| next.checked_sub_days(Days::new(1))).map_or(31, |last| last.day() as i32)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plan(spec: Value) -> Result<Times, String> {
        let mut spec = spec;
        spec["name"] = json!("times");
        let spec: TimesSpec = serde_json::from_value(spec).unwrap();
        let mut cx = PlanContext { models: &|_| unreachable!(), problems: Vec::new() };
        let times = spec.plan(&["mute", "0"], &mut cx);
        times.ok_or_else(|| cx.problems.iter().map(|problem| problem.message.clone()).collect())
    }

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[test]
    fn an_instant_is_in_or_out() {
        let range = |start: &str, end: &str| json!([{ "start_time": start, "end_time": end }]);
        let cases: &[(Value, &str, bool)] = &[
            (json!({}), "2020-02-29T12:00:00Z", true),
            // Minutes, the last one excluded.
            (json!({ "times": range("09:00", "17:00") }), "2020-05-04T09:00:00Z", true),
            (json!({ "times": range("09:00", "17:00") }), "2020-05-04T16:59:59.999Z", true),
            (json!({ "times": range("09:00", "17:00") }), "2020-05-04T17:00:00Z", false),
            (json!({ "times": range("17:00", "24:00") }), "2020-05-04T23:59:59Z", true),
            // 2020-05-04 was a Monday.
            (json!({ "weekdays": ["monday:friday"] }), "2020-05-04T00:00:00Z", true),
            (json!({ "weekdays": ["Monday:Friday"] }), "2020-05-08T23:59:00Z", true),
            (json!({ "weekdays": ["monday:friday"] }), "2020-05-09T00:00:00Z", false),
            (json!({ "weekdays": ["saturday", "sunday"] }), "2020-05-10T00:00:00Z", true),
            // Days counted from the end.
            (json!({ "days_of_month": ["-1"] }), "2020-02-29T12:00:00Z", true),
            (json!({ "days_of_month": ["-1"] }), "2021-02-28T12:00:00Z", true),
            (json!({ "days_of_month": ["-1"] }), "2020-02-28T12:00:00Z", false),
            (json!({ "days_of_month": ["-3:-1"] }), "2020-01-29T12:00:00Z", true),
            (json!({ "days_of_month": ["-3:-1"] }), "2020-01-28T12:00:00Z", false),
            (json!({ "days_of_month": ["1:-4"] }), "2020-01-28T12:00:00Z", true),
            (json!({ "days_of_month": ["1:31"] }), "2020-02-29T12:00:00Z", true),
            (json!({ "days_of_month": ["31"] }), "2020-04-30T12:00:00Z", false),
            (json!({ "days_of_month": ["-31:-30"] }), "2020-04-01T12:00:00Z", true),
            (json!({ "months": ["1:3", "may:august", "december"] }), "2020-06-01T00:00:00Z", true),
            (json!({ "months": ["1:3", "may:august", "december"] }), "2020-04-01T00:00:00Z", false),
            (json!({ "years": ["2020:2022"] }), "2022-12-31T23:59:59Z", true),
            (json!({ "years": ["2020:2022"] }), "2023-01-01T00:00:00Z", false),
            // All fields together: office hours of the first Monday.
            (
                json!({ "times": range("09:00", "17:00"), "weekdays": ["monday"], "days_of_month": ["1:7"] }),
                "2020-05-04T10:00:00Z",
                true,
            ),
            (
                json!({ "times": range("09:00", "17:00"), "weekdays": ["monday"], "days_of_month": ["1:7"] }),
                "2020-05-11T10:00:00Z",
                false,
            ),
            // Clocks of a place, in summer and in winter: 09:00 in Sydney is 23:00 or 22:00 of the day before in UTC.
            (json!({ "times": range("09:00", "10:00"), "location": "Australia/Sydney" }), "2020-07-01T23:30:00Z", true),
            (json!({ "times": range("09:00", "10:00"), "location": "Australia/Sydney" }), "2020-12-01T22:30:00Z", true),
            (json!({ "times": range("09:00", "10:00"), "location": "Australia/Sydney" }), "2020-12-01T23:30:00Z", false),
            (json!({ "weekdays": ["tuesday"], "location": "Australia/Sydney" }), "2020-05-04T23:30:00Z", true),
        ];
        for (spec, at, expected) in cases {
            assert_eq!(plan(spec.clone()).unwrap().contain(ms(at)), *expected, "{spec} at {at}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for (spec, expected) in [
            (json!({ "times": [{ "start_time": "9:00", "end_time": "17:00" }] }), "HH:MM"),
            (json!({ "times": [{ "start_time": "09:00", "end_time": "24:01" }] }), "HH:MM"),
            (json!({ "times": [{ "start_time": "22:00", "end_time": "06:00" }] }), "a night is two"),
            (json!({ "weekdays": ["montag"] }), "`montag` is not a day of the week"),
            (json!({ "weekdays": ["friday:monday"] }), "ends before it begins"),
            (json!({ "days_of_month": ["0"] }), "not a day of the month"),
            (json!({ "days_of_month": ["32"] }), "not a day of the month"),
            (json!({ "days_of_month": ["-1:-3"] }), "ends before it begins"),
            (json!({ "days_of_month": ["-3:5"] }), "ends before it begins"),
            (json!({ "months": ["13"] }), "not a month"),
            (json!({ "years": ["next"] }), "not a year"),
            (json!({ "location": "Europe/Bremen" }), "no place"),
        ] {
            let problem = plan(spec.clone()).unwrap_err();
            assert!(problem.contains(expected), "{spec}: {problem}");
        }
    }
}
