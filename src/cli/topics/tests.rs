//! The commands end to end, on a folder.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::Parser;

use super::{Topics, size};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    topics: Topics,
}

fn run(data: &Path, command: &str) -> Result<String, String> {
    let words = std::iter::once("topics").chain(command.split_whitespace());
    let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    line.topics.execute(data, &mut out).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_topic_is_filled_shown_exported_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("a.jsonl"));
    let lines: String = (0..25).map(|n| format!("{{\"k\":\"k{}\",\"t\":{n}}}\n", n % 3)).collect();
    fs::write(&file, &lines).unwrap();
    let none = format!("There are no topics in {}.\n", data.display());
    assert_eq!(run(&data, "list").unwrap(), none);
    assert!(!data.exists(), "looking makes no folder");
    let produce = format!("produce events --file {} --key k --time t --batch 4", file.display());
    assert_eq!(run(&data, &produce).unwrap(), "produced 25 records to events\n");
    assert_eq!(run(&data, "export events").unwrap(), lines);
    assert_eq!(
        run(&data, "export events --from 23 --limit 1 --with-position").unwrap(),
        "{\"partition\":0,\"offset\":23,\"time\":\"1970-01-01T00:00:00.023Z\",\"key\":\"k2\",\
         \"value\":{\"k\":\"k2\",\"t\":23}}\n"
    );
    assert_eq!(run(&data, "tail events -n 1").unwrap(), "{\"k\":\"k0\",\"t\":24}\n");
    assert_eq!(run(&data, "verify").unwrap(), "events partition 0: sound, 25 records from offset 0\n");
    run(&data, "create wide.topic --partitions 12").unwrap();
    let list = run(&data, "list").unwrap();
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["TOPIC", "PARTITIONS", "RECORDS", "SIZE", "CREATED"]);
    assert_eq!(rows[1][..3], ["events", "1", "25"]);
    assert_eq!(rows[2][..3], ["wide.topic", "12", "0"]);
    assert_eq!(list.lines().map(|line| line.find("RECORDS").is_some()).filter(|found| *found).count(), 1);
    let json: serde_json::Value = serde_json::from_str(&run(&data, "list --json").unwrap()).unwrap();
    assert_eq!(
        (json[0]["records"].as_u64(), json[0]["partitions"][0]["next"].as_u64()),
        (Some(25), Some(25))
    );
    assert_eq!(run(&data, "delete events").unwrap(), "deleted events\n");
    assert!(
        run(&data, "export events").unwrap_err().starts_with("failed to open topic events: there is none")
    );
}

#[test]
fn several_topics_are_deleted_or_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    for name in ["a", "b", "c"] {
        run(data, &format!("create {name}")).unwrap();
    }
    assert!(run(data, "delete a d b").unwrap_err().contains("topic d"));
    assert_eq!(run(data, "list").unwrap().lines().count(), 4, "nothing was deleted");
    assert_eq!(run(data, "delete a c").unwrap(), "deleted a\ndeleted c\n");
    assert_eq!(run(data, "list").unwrap().lines().count(), 2);
    assert!(run(data, "delete").is_err());
}

#[test]
fn a_bad_line_stops_producing_unless_it_is_to_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("a.jsonl"));
    fs::write(&file, "{\"t\":1}\n{\"t\":2}\n{\"t\":\n{\"t\":\"x\"}\n{\"u\":0}").unwrap();
    let produce = format!("produce events --file {} --time t --batch 4", file.display());
    let error = run(&data, &produce).unwrap_err();
    assert_eq!(
        error,
        format!(
            "failed to produce line 3 of {}: not JSON: it breaks off after 5 bytes; the lines before it were \
             produced (2 records): once it is mended, go on with --from-line 3 (with --keep-bad such lines are \
             produced too, and a job sets them aside with the reason)",
            file.display()
        )
    );
    let mended = "{\"t\":1}\n{\"t\":2}\n{\"t\":3}\n{\"t\":4}\n{\"t\":5}";
    fs::write(folder.path().join("b.jsonl"), mended).unwrap();
    let go_on = produce.replace("a.jsonl", "b.jsonl").replace("events", "mended") + " --from-line 4";
    assert_eq!(run(&data, &go_on).unwrap(), "produced 2 records to mended\n");
    assert_eq!(run(&data, "export mended").unwrap(), "{\"t\":4}\n{\"t\":5}\n");
    let kept = run(&data, &format!("{produce} --keep-bad")).unwrap();
    assert_eq!(kept, "produced 5 records to events, 3 of them without key or time\n");
    let tail = run(&data, "tail events -n 3 --with-position").unwrap();
    assert_eq!(
        tail.lines().next().unwrap(),
        "{\"partition\":0,\"offset\":4,\"time\":\"1970-01-01T00:00:00.002Z\",\"key\":null,\"text\":\"{\\\"t\\\":\"}"
    );
    let error = run(&data, &format!("{produce} --partitions 3")).unwrap_err();
    assert_eq!(
        error,
        "failed to produce to topic events with 3 partitions: it has 1; leave --partitions out, or \
         `levada topics delete events` first"
    );
}

#[test]
fn partitions_are_exported_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("a.jsonl"));
    let lines: Vec<String> = (0..40).map(|n| format!("{{\"k\":{n}}}")).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    run(&data, &format!("produce events --file {} --key k --partitions 3", file.display())).unwrap();
    let all = run(&data, "export events").unwrap();
    let parts: String =
        (0..3).map(|p| run(&data, &format!("export events --partition {p}")).unwrap()).collect();
    assert_eq!(all, parts);
    let mut sorted: Vec<&str> = all.lines().collect();
    sorted.sort_by_key(|line| lines.iter().position(|known| known == line));
    assert_eq!(sorted, lines);
    assert!(run(&data, "export events --partition 3").is_err());
}

#[test]
fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("a.jsonl"));
    fs::write(&file, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n".repeat(50)).unwrap();
    run(&data, &format!("produce events --file {} --batch 10", file.display())).unwrap();
    let segment = fs::read_dir(data.join("events/0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "log"))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).unwrap();
    assert_eq!(run(&data, "verify events").unwrap_err(), "failed to verify: 1 partition not sound");
}

/// A reader that leaves after some lines.
struct Leaves(usize, Vec<u8>);

impl Write for Leaves {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        if self.1.iter().filter(|byte| **byte == b'\n').count() >= self.0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn following_shows_what_comes() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("a.jsonl"));
    fs::write(&file, "{\"n\":1}\n{\"n\":2}\n").unwrap();
    let produce = format!("produce events --file {} --batch 1", file.display());
    run(&data, &produce).unwrap();
    let follower = {
        let data = data.clone();
        std::thread::spawn(move || {
            let line = Line::try_parse_from(["topics", "tail", "events", "-n", "1", "--follow"]).unwrap();
            let mut out = Leaves(3, Vec::new());
            let result = super::Failure::unless_reader_left(line.topics.execute(&data, &mut out));
            (result.map_err(|error| error.to_string()), out.1)
        })
    };
    // However late the follower starts, it sees three lines.
    let mut rounds = 0;
    while !follower.is_finished() && rounds < 10_000 {
        run(&data, &produce).unwrap();
        rounds += 1;
    }
    let (result, out) = follower.join().unwrap();
    assert_eq!(result, Ok(()));
    assert!(String::from_utf8(out).unwrap().starts_with("{\"n\":2}\n{\"n\":1}\n{\"n\":2}\n"));
}

#[test]
fn sizes_are_said_as_people_do() {
    let said = [0, 1023, 1024, 1536, 1_048_575, 1 << 20, 5 << 30].map(size);
    assert_eq!(said, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "5.0 GiB"]);
}
