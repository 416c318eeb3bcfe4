//! `make nab`: a directory of series goes through an ordinary job, and each value gets a score by those before it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Rows of `timestamp,value`, every five minutes; at `spike` a value as there was none.
fn series(rows: usize, spike: usize) -> String {
    let row = |i: usize| {
        let (day, minute) = (1 + i / 288, i % 288 * 5);
        // One time is there twice, and one goes back.
        let minute = minute - if i == 700 || i == 900 { 5 * (i / 450) } else { 0 };
        let usual = (i % 288) as f64 / 10.0 + (i * i * 31 % 1_009) as f64 / 500.0;
        let value = match i {
            1_200 => "nan".to_owned(),
            _ if i == spike => "90".to_owned(),
            _ => usual.to_string(),
        };
        format!("2014-04-{day:02} {:02}:{:02}:00,{value}\n", minute / 60, minute % 60)
    };
    "timestamp,value\n".to_owned() + &(0..rows).map(row).collect::<String>()
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    for (text, told) in [
        (
            "timestamp,value\n2014-04-01 00:05:00,1\nsoon,2\n",
            "levada: a/bad.csv, line 3: `soon` is no timestamp, as",
        ),
        ("time,value\n2014-04-01 00:05:00,1\n", "bad.csv has no column timestamp: its first line names"),
    ] {
        let (output, _folder) = run(&[("a/bad.csv", text)], "1");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(told) && said.lines().count() == 1, "{said}");
    }
}

fn score(files: &[(&str, &str)], workers: &str) -> Vec<Vec<(String, f64)>> {
    let (output, folder) = run(files, workers);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    files.iter().map(|(name, _)| read(&folder.path().join("out").join(name))).collect()
}

/// Lays files through the job; the folder has `out`.
fn run(files: &[(&str, &str)], workers: &str) -> (Output, TempDir) {
    let folder = TempDir::new().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    for (name, text) in files {
        fs::create_dir_all(data.join(name).parent().unwrap()).unwrap();
        fs::write(data.join(name), text).unwrap();
    }
    let mut command = Command::new("python3");
    command.args(["scripts/nab.py", env!("CARGO_BIN_EXE_levada")]).args([&data, &out]);
    (command.args(["--workers", workers]).output().unwrap(), folder)
}

fn read(path: &Path) -> Vec<(String, f64)> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("timestamp,score"));
    let row = |line: &str| {
        let (timestamp, score) = line.split_once(',').unwrap();
        (timestamp.to_owned(), score.parse().unwrap())
    };
    lines.map(row).collect()
}

#[test]
fn each_value_is_scored_once_by_those_before_it() {
    let (long, short, other) = (series(3_000, 2_500), series(2_501, 2_500), series(1_500, usize::MAX));
    let scored = score(&[("a/one.csv", &long), ("a/begin.csv", &short), ("b/other.csv", &other)], "1");
    for (rows, text) in scored.iter().zip([&long, &short, &other]) {
        let stamps = rows.iter().map(|(timestamp, _)| timestamp.as_str());
        assert!(
            stamps.eq(text.lines().skip(1).map(|line| line.split_once(',').unwrap().0)),
            "the rows of the series"
        );
        assert!(rows.iter().all(|(_, score)| (0.0..=1.0).contains(score)));
    }
    let most =
        |rows: &[(String, f64)]| (0..rows.len()).max_by(|a, b| rows[*a].1.total_cmp(&rows[*b].1)).unwrap();
    assert_eq!(most(&scored[0]), 2_500);
    assert_eq!(scored[0][1_200].1, 0.0, "what is no number has no score");
    assert!(scored[0][2_500].1 > 0.9999, "{}", scored[0][2_500].1);
    assert_eq!(scored[0][..2_501], scored[1], "what comes later does not matter");
    let again = score(&[("b/other.csv", &other), ("a/one.csv", &long)], "2");
    assert_eq!([&again[1], &again[0]], [&scored[0], &scored[2]], "nor do other series, nor workers");
}
