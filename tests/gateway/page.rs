//! The page, as a browser shows it.

use levada_connectors::log::RecordIn;
use serde_json::{Value, json};

use super::browser::Browser;
use super::client::{get, request};
use super::{Served, append};
use crate::job_files::flights_job;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_needs_nothing_from_elsewhere_and_is_sent_once() {
    let served = Served::start(|_| {}).await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/page.js", "text/javascript; charset=utf-8"),
        ("/page/chart.js", "text/javascript; charset=utf-8"),
        ("/page/connection.js", "text/javascript; charset=utf-8"),
        ("/page/explore.js", "text/javascript; charset=utf-8"),
        ("/page/format.js", "text/javascript; charset=utf-8"),
        ("/page/job.js", "text/javascript; charset=utf-8"),
        ("/page/panels.js", "text/javascript; charset=utf-8"),
        ("/page/table.js", "text/javascript; charset=utf-8"),
        ("/page/tip.js", "text/javascript; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let answer = get(served.address, path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{path}");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
        let text = String::from_utf8(answer.body.clone()).expect("UTF-8");
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path}");
        let known = format!("if-none-match: {}\r\n", answer.header("etag"));
        let again = request(served.address, "GET", path, &known).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    assert_eq!(get(served.address, "/page/other.js").await.status, 404);
    served.stop().await;
}

const DECISION: &str = r#"{"decision_id":"d1","at":"2013-01-01T10:17:00Z","subject":"EWR","policy":"ground","action":"advise_ground_delay","priority":10,"parameters":{"expected_delay_min":42},"inputs":"{\"disrupted\":0.75}","reason":"a <b>storm</b> is near"}"#;

fn incident(kind: &str, name: &str) -> String {
    format!(
        r#"{{"incident":"{name}","kind":"{kind}","at":"2013-01-01T10:17:00Z","first_at":"2013-01-01T09:00:00Z","last_at":"2013-01-01T10:17:00Z","events":17,"severity":51.5,"reasons":"same airport","dest_top":"[[\"ORD\",9]]"}}"#
    )
}

/// The flights job's settings of the page, with the job's name.
fn flights_page() -> Value {
    let loaded = flights_job().map_err(|report| report.to_string()).expect("it is right");
    loaded.spec.page.expect("settings").to_json("flights", None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flights_page_shows_what_is_appended_and_what_came_while_it_was_paused() {
    let served = Served::start(|config| config.jobs[0].page = Some(flights_page())).await;
    let (_, decisions) = served.topic("decisions", 1);
    let (_, incidents) = served.topic("incidents", 1);
    for (kind, name) in [("opened", "i1"), ("opened", "i2"), ("closed", "i2")] {
        append(&incidents, 0, &incident(kind, name));
    }
    let address = format!("http://{}/", served.address);
    let looked = tokio::task::spawn_blocking(move || {
        let mut browser = Browser::open(&address);
        browser.wait_for("document.getElementById('state').className === 'state live' && document.title === 'New York departures · levada'");
        append(&decisions, 0, DECISION);
        let (list, open) = ("[data-topic=decisions] li", "[data-topic=incidents] ol:not(.ended) > li");
        let page = browser
            .wait_for(&format!("document.querySelector('{list}') && document.querySelector('{open}')"));
        for shown in [
            "advise ground delay",
            "expected delay min 42",
            "a &lt;b&gt;storm&lt;/b&gt; is near",
            ">0.75<",
            "Tue, 01 Jan 2013, 10:17 UTC",
            "17 events",
            "ORD 9",
            "<h1 id=\"title\">New York departures</h1>",
            "last: advise ground delay EWR",
            "worst: severity 51.5, 17 events",
        ] {
            assert!(page.contains(shown), "{shown:?} is not on the page:\n{page}");
        }
        browser.wait_for(&format!("document.querySelectorAll('{open}').length === 1 && document.querySelectorAll('.ended > li').length === 1"));
        browser.wait_for("(document.getElementById('pause').click(), true)");
        for name in ["d2", "d3"] {
            append(&decisions, 0, &DECISION.replace("d1", name));
        }
        browser.wait_for(&format!("document.getElementById('state').textContent.includes('paused, 2 waiting') && document.querySelectorAll('{list}').length === 1"));
        browser.wait_for("(document.getElementById('pause').click(), true)");
        let page = browser.wait_for(&format!("document.querySelectorAll('{list}').length === 3"));
        let (newest, oldest) = (page.find(">d3<").expect("d3"), page.find(">d1<").expect("d1"));
        assert!(newest < oldest, "newest first");
    });
    looked.await.expect("all shown");
    served.stop().await;
}

/// Partitions come one behind the other: what counts is each row's own time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_figure_of_the_last_hour_takes_every_partition_s_last_hour() {
    let page = json!({ "title": "Two", "description": null, "panels": [{
        "kind": "figure", "title": "Sold", "topic": "sold", "column": "price", "measure": "sum", "within": 3_600_000,
    }]});
    let served = Served::start(|config| config.jobs[0].page = Some(page)).await;
    let (_, writers) = served.topic("sold", 2);
    // Of each partition's three hours only the last counts: ten rows of the one price and ten of the other.
    for (partition, price) in [(0, 1), (1, 100)] {
        let value = format!(r#"{{"price":{price}}}"#);
        for minutes in (0..180).step_by(6) {
            let timestamp_ms = 1_357_035_420_000 + minutes * 60_000;
            let record = RecordIn { timestamp_ms, value: value.as_bytes(), ..RecordIn::default() };
            writers.partition(partition).expect("a partition").append(&[record]).expect("an append");
        }
    }
    let address = format!("http://{}/", served.address);
    let looked = tokio::task::spawn_blocking(move || {
        Browser::open(&address).wait_for("document.querySelector('.figure')?.textContent === '1,010'");
    });
    looked.await.expect("shown");
    served.stop().await;
}

/// A chart has room for eight; whoever looks is told that there are more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chart_says_how_many_it_does_not_show() {
    let page = json!({ "title": "Hosts", "description": null, "panels": [{
        "kind": "chart", "title": "Load", "topic": "load", "y": ["load"], "by": "host", "rows": 100, "width": 1, "height": 1,
    }]});
    let served = Served::start(|config| config.jobs[0].page = Some(page)).await;
    let (_, writers) = served.topic("load", 1);
    let put = move |host: i64| {
        let value = format!(r#"{{"host":"h{host}","load":1}}"#);
        append(&writers, 0, &value);
    };
    (0..8).for_each(&put);
    let address = format!("http://{}/", served.address);
    let looked = tokio::task::spawn_blocking(move || {
        let mut browser = Browser::open(&address);
        let label = "document.querySelector('canvas.chart').getAttribute('aria-label')";
        browser.wait_for(&format!("{label}.includes('h7 ') && document.querySelector('.unseen').hidden"));
        (7..11).for_each(put);
        browser.wait_for("document.querySelector('.unseen').textContent === '8 of 11 shown'");
        browser.wait_for(&format!("{label}.includes(' 8 of 11 shown.')"));
    });
    looked.await.expect("shown");
    served.stop().await;
}

/// Without settings: any topic, its rows as they come, a chart, a filter, and all of a record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_settings_the_page_shows_the_rows_of_any_topic() {
    let served = Served::start(|config| config.jobs.clear()).await;
    // A name that the page cannot know.
    let name = format!("t{}.x", served.address.port());
    let (_, empty) = served.topic("a.empty", 1);
    drop(empty);
    let (_, writers) = served.topic(&name, 2);
    let row = |n: u32| {
        format!(
            r#"{{"host":"h{}","note":"<i>{n}</i>","latency_ms":{}.25,"seen":"2026-03-02T09:00:{:02}Z","top":"[[\"pay\",{n}]]"}}"#,
            n % 3,
            1000 + n,
            n
        )
    };
    for n in 0..20 {
        append(&writers, n % 2, &row(n));
    }
    append(&writers, 0, "no JSON");
    let address = format!("http://{}/", served.address);
    let looked = tokio::task::spawn_blocking(move || {
        let mut browser = Browser::open(&address);
        let rows = "document.querySelectorAll('table.rows tbody tr').length";
        let page = browser.wait_for(&format!("{rows} === 21 && document.title.startsWith('{name}')"));
        for shown in [
            "2026-03-02 09:00:19",
            "&lt;i&gt;19&lt;/i&gt;",
            "pay 19",
            "no JSON",
            "<th scope=\"col\" class=\"num\">latency ms</th>",
        ] {
            assert!(page.contains(shown), "{shown:?} is not on the page:\n{page}");
        }
        // The topic that holds nothing is listed, and so is the count of the other.
        browser.wait_for("document.querySelectorAll('ul.topics li').length === 2");
        browser.wait_for("document.querySelector('ul.topics a[aria-current] .count').textContent === '21'");
        // What is drawn is what there is to draw: a number, for each of the few hosts.
        browser.wait_for("[...document.querySelectorAll('.charted select')].map((s) => s.value).join() === 'latency_ms,host,'");
        browser.wait_for(
            "document.querySelector('canvas.chart').getAttribute('aria-label').includes('h2 latency_ms')",
        );
        append(&writers, 1, &row(33));
        browser.wait_for(&format!(
            "{rows} === 22 && document.querySelector('table.rows tbody').textContent.includes('09:00:33')"
        ));
        browser.wait_for("(document.querySelector('input[type=search]').value = 'PAY 1', document.querySelector('input[type=search]').dispatchEvent(new Event('input')), true)");
        browser.wait_for(&format!("{rows} === 0"));
        browser.wait_for("(document.querySelector('input[type=search]').value = '09:00:33', document.querySelector('input[type=search]').dispatchEvent(new Event('input')), true)");
        browser.wait_for(&format!("{rows} === 1"));
        browser.wait_for("(document.querySelector('button.open').click(), true)");
        let page = browser.wait_for("document.querySelector('tr.whole dl')");
        assert!(page.contains("<dt>partition</dt><dd>1</dd>"), "{page}");
    });
    looked.await.expect("all shown");
    served.stop().await;
}
