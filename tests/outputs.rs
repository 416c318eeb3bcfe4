//! What a run says and does about its output of before, about bad records, and about files that are not as
//! the job file says.

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

const JOB: &str = r#"
[job]
name = "shop"

[source.requests.file]
path = "requests.jsonl"
schema = { host = "string", status = "int", at = "timestamp" }
event_time = { column = "at" }

[source.hosts.file]
path = "hosts.csv"
format = "csv"
schema = { host = "string", team = "string", rank = "int" }

[step.owned.join]
from = "requests"
table = "hosts"
on = { host = "host" }

[sink.owned.log]
from = "owned"
topic = "shop.owned"

[sink.report.file]
from = "owned"
path = "out/owned.csv"
format = "csv"
"#;

struct Shop(TempDir);

impl Shop {
    fn new() -> Shop {
        let shop = Shop(TempDir::new().unwrap());
        shop.write("job.toml", JOB);
        shop.write("hosts.csv", "host,team,rank\na,red,1\nb,blue,2\n");
        let rows =
            (0..10).map(|n| format!("{{\"host\":\"a\",\"status\":{n},\"at\":\"2026-03-02T09:00:0{n}Z\"}}\n"));
        shop.write("requests.jsonl", &rows.collect::<String>());
        shop
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn levada(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
        command.current_dir(self.0.path()).args(line.split_whitespace()).output().unwrap()
    }

    /// The exit status, standard output and standard error.
    fn run(&self, options: &str) -> (i32, String, String) {
        let output = self.levada(&format!("run job.toml --until-drained {options}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn owned(&self) -> usize {
        let output = self.levada("topics export shop.owned");
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().lines().count()
    }
}

#[test]
fn output_of_before_is_refused_once_appended_to_or_deleted() {
    let shop = Shop::new();
    let (code, said, _) = shop.run("");
    assert_eq!((code, shop.owned()), (0, 10));
    assert!(said.contains("levada topics export shop.owned --data .levada | head"), "{said}");
    let rows = said.lines().find(|line| line.contains("join")).unwrap();
    assert!(rows.contains(" 10 → 10 ") && rows.contains("2 of the table"), "{rows}");

    let (code, _, said) = shop.run("");
    assert_eq!(code, 1);
    assert_eq!(said.matches("error:").count(), 1, "{said}");
    for part in [
        "shop.owned (10 records), file out/owned.csv",
        "--fresh",
        "levada topics delete shop.owned --data .levada",
        "mv out/owned.csv ELSEWHERE",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("--append"), "a file is not appended to: {said}");
    let report = shop.0.path().join("out/owned.csv");
    let written = fs::read(&report).unwrap();
    let (code, _, said) = shop.run("--append");
    assert_eq!((code, shop.owned()), (1, 10), "{said}");
    assert!(said.contains("output of before: file out/owned.csv") && !said.contains("--append"), "{said}");
    assert_eq!(fs::read(&report).unwrap(), written);
    fs::remove_file(&report).unwrap();
    let (code, _, said) = shop.run("");
    assert!(code == 1 && said.contains("--append   writes behind it") && !said.contains("mv "), "{said}");
    assert_eq!((shop.run("--append").0, shop.owned()), (0, 20));

    let other = shop.levada("topics create mine");
    assert!(other.status.success());
    fs::write(shop.0.path().join("out/owned.csv"), "old").unwrap();
    let (code, _, said) = shop.run("--fresh");
    assert_eq!((code, shop.owned()), (0, 10), "{said}");
    assert!(said.contains("deleted topic shop.owned (20 records)"), "{said}");
    assert!(said.contains("deleted file out/owned.csv"), "{said}");
    assert_eq!(fs::read_to_string(shop.0.path().join("out/owned.csv")).unwrap().lines().count(), 11);
    let list = String::from_utf8(shop.levada("topics list").stdout).unwrap();
    assert!(list.contains("mine"), "{list}");
}

#[test]
fn what_a_job_reads_is_never_deleted() {
    let shop = Shop::new();
    shop.write("job.toml", &JOB.replace("out/owned.csv", "./requests.jsonl"));
    let check = shop.levada("check job.toml");
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    for options in ["", "--append", "--fresh"] {
        let (code, _, said) = shop.run(options);
        assert_eq!(code, 1);
        assert!(
            said.contains("source `requests` reads what `report` would write, file ./requests.jsonl"),
            "{said}"
        );
    }
    assert!(fs::read_to_string(shop.0.path().join("requests.jsonl")).unwrap().lines().count() == 10);
    let topic = "[source.again.log]\ntopic = \"shop.owned\"\nschema = { host = \"string\" }\n[sink.again.log]\nfrom = \"again\"\ntopic = \"more\"\n";
    shop.write("job.toml", &format!("{JOB}{topic}"));
    let (code, _, said) = shop.run("--fresh");
    assert_eq!(code, 1);
    assert!(said.contains("source `again` reads what `owned` would write, topic shop.owned"), "{said}");
}

#[test]
fn nothing_is_deleted_by_a_job_that_cannot_be_run() {
    let shop = Shop::new();
    assert_eq!((shop.run("").0, shop.owned()), (0, 10));
    let topic = "[source.again.log]\ntopic = \"missing\"\nschema = { host = \"string\" }\n[sink.again.log]\nfrom = \"again\"\ntopic = \"more\"\n";
    shop.write("job.toml", &format!("{JOB}{topic}"));
    let (code, _, said) = shop.run("--fresh");
    assert_eq!((code, shop.owned()), (1, 10));
    assert!(said.contains("`levada topics create missing` makes it"), "{said}");
}

#[test]
fn a_job_of_files_ends_with_them_and_their_names_say_how_they_are_written() {
    let shop = Shop::new();
    shop.write("job.toml", &JOB.replace("format = \"csv\"\n", ""));
    assert_eq!(shop.levada("run job.toml").status.code(), Some(0));
    assert_eq!(shop.owned(), 10);
    let written = fs::read_to_string(shop.0.path().join("out/owned.csv")).unwrap();
    assert_eq!((written.lines().count(), written.contains('{')), (11, false), "{written}");
}

#[test]
fn a_table_that_is_all_bad_is_said_plainly() {
    let shop = Shop::new();
    shop.write("hosts.csv", "host,team,rank\na,red,x\nb,blue,y\n");
    let (code, summary, log) = shop.run("");
    let about = |text: &str| text.lines().filter(|line| line.contains("hosts: 0 of 2")).count();
    assert_eq!((code, about(&log), about(&summary)), (3, 1, 1), "{log}{summary}");
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("hosts: 0 of 2")), "{log}");
    assert!(summary.contains("see topic shop.dead-letters") && summary.contains("field `rank`"), "{summary}");
    assert_eq!(shop.run("--fresh --fail-on-dead-letters").0, 3);
    shop.write("hosts.csv", "host,team,rank\na,red,1\n");
    assert_eq!(shop.run("--fresh --fail-on-dead-letters").0, 0);
}

#[test]
fn files_that_are_not_as_the_job_says_are_found_before_it_runs() {
    let shop = Shop::new();
    let check = |options: &str| {
        let output = shop.levada(&format!("check job.toml {options}"));
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check("").0, 0);
    shop.write("hosts.csv", "host,teem,rank\na,red,1\n");
    let (code, said) = check("");
    assert_eq!(code, 1);
    for part in ["the header of hosts.csv has no column `team`", "job.toml:13:29", "did you mean `teem`?"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, _, at_run) = shop.run("");
    assert_eq!((code, at_run.contains("has no column `team`")), (1, true), "{at_run}");
    shop.write("hosts.csv", "a,red,1\nb,blue,2\n");
    let (code, said) = check("");
    assert_eq!((code, said.matches("error:").count()), (1, 2), "one, and how many there are: {said}");
    assert!(said.contains("the first line of hosts.csv names none of the columns: `a,red,1`"), "{said}");
    fs::rename(shop.0.path().join("hosts.csv"), shop.0.path().join("host.csv")).unwrap();
    let (code, said) = check("");
    assert_eq!(code, 1);
    for part in [
        "there is no file `hosts.csv`",
        "job.toml:11:8",
        "did you mean `host.csv`?",
        "the path is seen from `",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(check("--offline").0, 0);
}

#[test]
fn nothing_is_deleted_before_all_else_that_can_fail_has_not() {
    let shop = Shop::new();
    assert_eq!((shop.run("").0, shop.owned()), (0, 10));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = shop.0.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let metrics = format!("--fresh --metrics {}", taken.local_addr().unwrap());
    shop.write("hosts.txt", "# the processes\nlocalhost\n");
    shop.write("one.txt", "127.0.0.1:7000\n");
    for (options, told) in [
        (metrics.as_str(), "failed to serve metrics"),
        ("--fresh --set sink.report.file.path=out", "what is there is no file"),
        ("--fresh --set sink.report.file.path=socket", "what is there is no file"),
        ("--append --set sink.report.file.path=socket", "there is something that is no file"),
        (
            "--fresh --hosts one.txt",
            "delete what the job wrote:\n  levada topics delete shop.dead-letters shop.owned",
        ),
        ("--fresh --hosts one.txt", "\n  rm out/owned.csv"),
        ("--fresh --set sink.owned.log.partitions=0", "a topic has 1 to 1024 partitions, not 0"),
        ("--fresh --hosts hosts.txt", "line 2 of hosts.txt: `localhost` is no address"),
    ] {
        let (code, _, said) = shop.run(options);
        assert_eq!((code, shop.owned()), (1, 10), "{options}: {said}");
        assert!(said.contains(told), "{options}: {said}");
    }
    assert!(!fs::metadata(&socket).unwrap().is_file(), "no file has taken its place");
    let (code, _, said) = shop.run("--fresh --process 1");
    assert_eq!((code, shop.owned()), (2, 10));
    assert!(said.contains("required") && said.contains("--hosts <FILE>"), "{said}");
}

#[test]
fn late_rows_are_said_plainly() {
    let shop = Shop::new();
    shop.write(
        "events.jsonl",
        "{\"k\":\"a\",\"at\":1000}\n{\"k\":\"a\",\"at\":9000}\n{\"k\":\"b\",\"at\":500}\n",
    );
    shop.write(
        "names.jsonl",
        "{\"k\":\"a\",\"name\":\"A\",\"at\":800}\n{\"k\":\"b\",\"name\":\"B\",\"at\":100}\n",
    );
    let source = |name: &str, more: &str| {
        format!(
            "[source.{name}.file]\npath = \"{name}.jsonl\"\nschema = {{ k = \"string\", {more}at = \"timestamp\" }}\n\
             event_time = {{ column = \"at\" }}\n"
        )
    };
    let steps = "[step.named.join]\nfrom = \"events\"\ntable = \"names\"\non = { k = \"k\" }\ncolumns = { name = \"name\" }\n\
                 [step.w.window]\nfrom = \"events\"\ntumbling = \"1s\"\naggregate = { n = \"count(*)\" }\n\
                 [sink.named.log]\nfrom = \"named\"\ntopic = \"named\"\n[sink.w.log]\nfrom = \"w\"\ntopic = \"w\"\n";
    let events = source("events", "");
    let names = source("names", "name = \"string\", ");
    shop.write("job.toml", &format!("[job]\nname = \"late\"\n{events}{names}{steps}"));
    let (code, summary, log) = shop.run("");
    assert_eq!(code, 0, "{log}");
    for told in [
        "named: 1 of 3 rows came too late, later than `out_of_order` of their source allows; they are in named.late",
        "named: 1 of 2 rows of its table came too late and were not used: order them by time",
        "w: 1 of 3 rows came too late",
    ] {
        assert!(summary.contains(told), "{told}: {summary}{log}");
    }
}

#[test]
fn what_is_no_json_is_not_produced_and_leaves_no_topic() {
    let shop = Shop::new();
    let output = shop.levada("topics produce new --file hosts.csv --partitions 3");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("line 1 of hosts.csv") && said.contains("nothing was produced"), "{said}");
    assert!(!String::from_utf8(shop.levada("topics list").stdout).unwrap().contains("new"));
    let output = shop.levada("topics produce new --file hosts.csv --keep-bad");
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("of them no JSON\n"));
}

#[test]
fn what_no_job_wrote_is_not_deleted_for_a_fresh_run() {
    let shop = Shop::new();
    assert!(shop.levada("topics produce shop.owned --file requests.jsonl").status.success());
    let (code, _, said) = shop.run("");
    assert!(code == 1 && said.contains("no job wrote what is in shop.owned"), "{said}");
    assert!(!said.contains("--fresh") && said.contains("levada topics delete shop.owned"), "{said}");
    let (code, _, said) = shop.run("--fresh");
    assert_eq!((code, shop.owned()), (1, 10), "{said}");
    assert!(said.contains("no job wrote what is in topic shop.owned"), "{said}");
}

#[test]
fn a_join_that_is_surely_not_meant_is_told() {
    let shop = Shop::new();
    // Two rows of one host, and hosts that no request is from.
    shop.write("hosts.csv", "host,team,rank\nx,red,1\ny,blue,2\nx,green,3\n");
    let (code, summary, said) = shop.run("");
    assert_eq!(code, 0, "{said}");
    for told in [
        "3 of the table, 10 matched nothing",
        "owned: none of 10 rows matched a row of `hosts`; look at `on` and `within`",
        "owned: `hosts` has no `event_time`, so only the last row of a key counts: 1 of 3 rows were replaced before",
    ] {
        assert!(summary.contains(told), "{told}: {summary}");
    }
    shop.write("hosts.csv", "host,team,rank\na,red,1\n");
    let (_, summary, _) = shop.run("--fresh");
    assert!(!summary.contains("matched nothing") && !summary.contains("none of"), "{summary}");
}
