//! Checkpoints in an object store that answers as Amazon S3 does, through the binary.

mod takeover;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::brokers::s3::{BUCKET, S3};
use crate::resume::{JOB, OUTPUTS, held, kill, lines, random, until, written};
use crate::same_bytes::{levada, same, succeed};

const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with topics, a job that keeps its checkpoints in a prefix of the bucket, and its state.
struct Site<'s> {
    s3: &'s S3,
    prefix: String,
    folder: TempDir,
    job: PathBuf,
}

impl<'s> Site<'s> {
    fn new(s3: &'s S3, prefix: &str) -> Site<'s> {
        let folder = TempDir::new().unwrap();
        let job = folder.path().join("job.toml");
        let text = JOB.replace("[job]\n", "[job]\ncheckpoint = \"20ms\"\n");
        std::fs::write(&job, format!("{text}\n{}", s3.settings(prefix))).unwrap();
        Site { s3, prefix: prefix.into(), folder, job }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn produce(&self, lines: &str) {
        produce(&self.data(), lines);
    }

    fn run(&self, options: &[&str]) -> Command {
        let mut command = levada(&["run"], &self.data());
        command.arg(&self.job).arg("--state").arg(self.state()).args(options);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.s3.keys(&mut command);
        command
    }

    /// What an undisturbed run publishes, with its checkpoints elsewhere; and its topics are deleted again.
    fn undisturbed(&self) -> std::collections::BTreeMap<String, String> {
        let mut command = levada(&["run"], &self.data());
        command.arg(&self.job).args(["--until-drained", "--workers", "2"]);
        succeed(command);
        let expected = written(&self.data());
        OUTPUTS.iter().for_each(|topic| drop(succeed(levada(&["topics", "delete", topic], &self.data()))));
        expected
    }

    /// The objects of a kind, the older before the newer.
    fn objects(&self, kind: &str) -> Vec<String> {
        self.s3.list(&format!("{}/{kind}", self.prefix))
    }

    /// A command that looks at the checkpoints by the address alone.
    fn checkpoints(&self, verb: &str, more: &[&str]) -> (bool, String) {
        let url = format!("s3://{BUCKET}/{}", self.prefix);
        let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
        command.args(["checkpoints", verb, &url]).args(more).args([
            "--endpoint",
            &self.s3.endpoint(),
            "--allow-http",
        ]);
        told(self.s3.keys(&mut command))
    }
}

/// Appends readings to their topic, which is made if there is none.
fn produce(data: &Path, lines: &str) {
    if !data.join("readings").exists() {
        succeed(levada(&["topics", "create", "readings", "--partitions", "3"], data));
    }
    let mut command = levada(&["topics", "produce", "readings", "--file", "-"], data);
    command.args(["--key", "machine", "--keep-bad"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn told(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.success(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

fn has(said: &str, text: &str) {
    assert!(said.contains(text), "{text:?} is not in:\n{said}");
}

fn wait_for(so: impl Fn() -> bool, otherwise: &str) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "{otherwise}");
        std::thread::yield_now();
    }
}

/// Ends a job as it is asked to; gives what it said.
fn stop(child: Child) -> String {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// The number that a run has taken.
fn number(object: &str) -> u64 {
    object.rsplit('-').next().unwrap().parse().unwrap()
}

/// How many records a run read, as it says at its end.
fn records(said: &str) -> u64 {
    let line = said.lines().find(|line| line.contains(" records in ")).unwrap_or_else(|| panic!("{said}"));
    line.split_whitespace().next().unwrap().replace(',', "").parse().unwrap()
}

#[test]
fn a_job_that_is_killed_goes_on_from_the_store_to_the_same_bytes() {
    let s3 = S3::start();
    let site = Site::new(&s3, "jobs/killed");
    let (mut seed, all) = (11, 200_000);
    site.produce(&lines(&mut seed, 0, all));
    let expected = site.undisturbed();
    let total = expected["good"].lines().count() as u64;
    let mut struck = 0;
    for round in 0..4 {
        let workers = ["1", "4", "2"][round % 3];
        let mut child = site.run(&["--until-drained", "--workers", workers]).spawn().unwrap();
        until(&mut child, &site.data(), "good", 1 + total * round as u64 / 5 + random(&mut seed, total / 8));
        struck += u32::from(kill(child));
    }
    assert!(struck > 1, "only {struck} of 4 runs were killed before their end");
    assert_eq!(std::fs::read_dir(site.state().join("checkpoints")).map(|found| found.count()).ok(), None);
    let (good, said) = told(&mut site.run(&["--until-drained", "--workers", "4"]));
    assert!(good, "{said}");
    has(&said, &format!("of the checkpoints in s3://{BUCKET}/jobs/killed"));
    let read = records(&said);
    assert!(read < all, "it read {read} records, as if there were no checkpoint");
    same(&expected, &written(&site.data()), "killed");
    // A run that was killed at once has taken no number.
    let last = site.objects("run-").iter().map(|name| number(name)).max().unwrap();
    // At its end there is nothing more to read, and of all runs only what is needed is left.
    let (good, said) = told(&mut site.run(&["--until-drained"]));
    assert!(good && records(&said) == 0, "{said}");
    assert_eq!(site.objects("checkpoint-").len(), 3, "{:?}", site.objects(""));
    let left = [last, last + 1].map(|number| format!("jobs/killed/run-{number}"));
    assert_eq!(site.objects("run-"), left, "{:?}", site.objects(""));
    let (good, said) = site.checkpoints("verify", &[]);
    assert!(good, "{said}");
    assert_eq!(said.matches(" is whole").count(), 3, "{said}");
}

#[test]
fn a_damaged_object_is_noticed_and_the_checkpoint_before_is_taken() {
    let s3 = S3::start();
    let site = Site::new(&s3, "damaged");
    let (mut seed, all) = (5, 60_000);
    site.produce(&lines(&mut seed, 0, all));
    let expected = site.undisturbed();
    assert!(told(&mut site.run(&["--until-drained", "--workers", "2"])).0);
    let (good, said) = site.checkpoints("list", &[]);
    assert!(good, "{said}");
    let names: Vec<&str> = said.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let [.., before, newest] = names[..] else { panic!("{said}") };
    let (good, shown) = site.checkpoints("show", &[newest, "--json"]);
    assert!(good, "{shown}");
    let manifest: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let file = manifest["files"].as_array().unwrap().last().unwrap()["name"].as_str().unwrap();

    s3.damage(&format!("damaged/{newest}"));
    let (good, said) = site.checkpoints("verify", &[]);
    assert!(!good, "{said}");
    has(&said, &format!("{newest} is not whole"));
    let (good, said) = told(&mut site.run(&["--until-drained", "--workers", "1"]));
    assert!(good, "{said}");
    has(&said, &format!("{newest} in the checkpoints in s3://{BUCKET}/damaged is not whole"));
    has(&said, &format!("going on behind {before}"));
    same(&expected, &written(&site.data()), "damaged");
    // All of them are gone: the journal of a job that ends with its history tells it all from the beginning.
    for object in site.objects("checkpoint-") {
        s3.delete(&object);
    }
    let (good, said) = told(&mut site.run(&["--until-drained", "--workers", "2"]));
    assert!(good && records(&said) == all, "{said}");
    same(&expected, &written(&site.data()), "from the beginning");
    assert!(!site.objects("").contains(&format!("damaged/{file}")), "what no checkpoint needs is deleted");
}

#[test]
fn a_store_that_is_away_is_waited_for_while_the_job_goes_on() {
    let s3 = S3::start();
    let site = Site::new(&s3, "away");
    let mut seed = 23;
    site.produce(&lines(&mut seed, 0, 3_000));
    let log = site.folder.path().join("log");
    let mut command = site.run(&["--workers", "2"]);
    let mut child = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let says = |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    until(&mut child, &site.data(), "good", 2_000);
    wait_for(|| !site.objects("checkpoint-").is_empty(), "there is no checkpoint");
    s3.close();
    let before = site.objects("checkpoint-");
    for round in 1..=5 {
        site.produce(&lines(&mut seed, 3_000 * round, 3_000));
        until(&mut child, &site.data(), "good", 2_000 + 2_000 * round);
    }
    // What asks the store tries a few times by itself before it says so.
    wait_for(|| says("trying again in 200ms (failure 1)"), "nobody tries again");
    assert!(child.try_wait().unwrap().is_none(), "{:?}", child.wait_with_output());
    assert_eq!(site.objects("checkpoint-"), before);
    s3.open();
    wait_for(|| site.objects("checkpoint-") != before, "no checkpoint was made when the store was back");
    stop(child);
    assert!(says("they can be reached again"), "{}", std::fs::read_to_string(&log).unwrap());
    assert!(site.checkpoints("verify", &[]).0);
    // It ended with a checkpoint behind everything.
    let again = site.run(&["--workers", "1"]).spawn().unwrap();
    wait_for(|| site.objects("run-").contains(&"away/run-2".into()), "it does not begin");
    assert_eq!(records(&stop(again)), 0);
}

#[test]
fn what_is_wrong_ends_in_a_clear_error_at_once() {
    let s3 = S3::start();
    let site = Site::new(&s3, "wrong");
    site.produce(&lines(&mut 3, 0, 500));
    let refused = |change: &dyn Fn(&mut Command), options: &[&str]| {
        let mut command = site.run(&[&["--until-drained"], options].concat());
        change(&mut command);
        let (good, said) = told(&mut command);
        assert!(!good, "{said}");
        assert_eq!(held(&site.data(), "good"), 0, "{said}");
        said
    };
    let place = format!("s3://{BUCKET}/wrong");
    let another = |name: &'static str, value: &'static str| {
        move |command: &mut Command| {
            command.env(name, value);
        }
    };
    let said = refused(&another("AWS_SECRET_ACCESS_KEY", "another"), &[]);
    has(&said, &format!("failed to list {place}: SignatureDoesNotMatch"));
    let said = refused(&another("AWS_ACCESS_KEY_ID", "nobody"), &[]);
    has(&said, &format!("failed to list {place}: InvalidAccessKeyId"));
    let nothing = |command: &mut Command| {
        command.env_remove("AWS_ACCESS_KEY_ID").env("HOME", "/nowhere").env_remove("AWS_PROFILE");
    };
    has(&refused(&nothing, &[]), "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set");
    let said = refused(&|_| (), &["--set", "job.checkpoints.url=s3://nowhere/wrong"]);
    has(&said, "failed to list s3://nowhere/wrong: NoSuchBucket");
    s3.allow(false);
    has(&refused(&|_| (), &[]), &format!("failed to list {place}: AccessDenied"));
    s3.allow(true);
    let said = refused(&|_| (), &["--set", "job.checkpoints.url=gs://levada/wrong"]);
    has(&said, "write it as `s3://BUCKET/PREFIX`");
    assert!(told(&mut site.run(&["--until-drained"])).0);
    let (good, said) = site.checkpoints("show", &["nothing-like-it"]);
    assert!(!good, "{said}");
    has(&said, &format!("there is no checkpoint `nothing-like-it` among the checkpoints in {place}"));
    // Rights that are taken away while it runs end it, with the object.
    let live = Site::new(&s3, "rights");
    live.produce(&lines(&mut 3, 0, 500));
    let mut child = live.run(&[]).spawn().unwrap();
    until(&mut child, &live.data(), "good", 1);
    wait_for(|| !live.objects("checkpoint-").is_empty(), "there is no checkpoint");
    s3.allow(false);
    live.produce(&lines(&mut 4, 500, 500));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    has(&said, &format!("s3://{BUCKET}/rights"));
    has(&said, "AccessDenied");
}

#[test]
fn a_journal_or_another_job_that_does_not_belong_to_the_checkpoints_is_refused() {
    let s3 = S3::start();
    let site = Site::new(&s3, "shared");
    site.produce(&lines(&mut 3, 0, 2_000));
    assert!(told(&mut site.run(&["--until-drained"])).0);
    let refused = |options: &[&str]| {
        let (good, said) = told(&mut site.run(&[&["--until-drained"], options].concat()));
        assert!(!good, "{said}");
        said
    };
    let before = s3.list("shared/");
    // The folder is lost, and the journal with it.
    let kept = site.folder.path().join("kept");
    std::fs::rename(site.state(), &kept).unwrap();
    OUTPUTS.iter().for_each(|topic| drop(succeed(levada(&["topics", "delete", topic], &site.data()))));
    has(
        &refused(&[]),
        "but the journal with what came after it is missing; --fresh deletes it and begins anew",
    );
    // Another job.
    let renamed = ["--set", "job.name=other"];
    has(&refused(&renamed), "but the journal with what came after it is missing");
    let said = refused(&[&renamed[..], &["--fresh"]].concat());
    has(&said, "are of the job `resumed`; give the job `other` a place of its own");
    assert_eq!(s3.list("shared/"), before, "nothing was deleted or written");
    // Begun anew, the checkpoints are of another journal than the one that is found again.
    let (good, said) = told(&mut site.run(&["--until-drained", "--fresh"]));
    assert!(good, "{said}");
    std::fs::remove_dir_all(site.state()).unwrap();
    std::fs::rename(&kept, site.state()).unwrap();
    let said = refused(&[]);
    has(&said, "the job has begun anew there, with another journal than this one");
}

#[test]
fn a_savepoint_in_the_store_is_kept_and_begun_with() {
    let s3 = S3::start();
    let site = Site::new(&s3, "saved");
    let mut seed = 7;
    site.produce(&lines(&mut seed, 0, 2_000));
    let mut child = site.run(&[]).spawn().unwrap();
    until(&mut child, &site.data(), "good", 1_000);
    let state = site.state().display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
    let (good, said) = told(s3.keys(command.args(["savepoint", &state, "before"])));
    assert!(good, "{said}");
    site.produce(&lines(&mut seed, 2_000, 2_000));
    until(&mut child, &site.data(), "good", 2_500);
    stop(child);
    // By the folder, which has a note of where they are, as by the address.
    let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
    let by_folder = told(s3.keys(command.args(["checkpoints", "list", &state])));
    assert_eq!(by_folder, site.checkpoints("list", &[]));
    has(&by_folder.1, "savepoint-before");
    let shown = site.checkpoints("show", &["before", "--json"]).1;
    let manifest: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let next = |place: &serde_json::Value| place["next"].as_u64().unwrap_or(0);
    let behind: u64 = manifest["partitions"].as_array().unwrap().iter().map(next).sum();
    assert!(behind > 0, "{shown}");

    let kept = site.objects("checkpoint-");
    let mut child = site.run(&["--fresh", "--savepoint", "before"]).spawn().unwrap();
    let is_new = |name: &String| !kept.contains(name);
    wait_for(
        || site.objects("checkpoint-").into_iter().filter(is_new).count() > 1,
        "it makes no checkpoints",
    );
    until(&mut child, &site.data(), "good", 1_000);
    let said = stop(child);
    assert_eq!(records(&said), 4_000 - behind, "{said}");
    assert_eq!(site.objects("savepoint-"), ["saved/savepoint-before"]);
    let (good, said) = site.checkpoints("verify", &[]);
    assert!(good, "{said}");
    let (good, said) = site.checkpoints("delete", &["before"]);
    assert!(good, "{said}");
    assert_eq!(site.objects("savepoint-"), [""; 0]);
}
