//! A list of the shops that have sold most, out of what each has sold so far: a top over a group.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::same_bytes::{levada, succeed};

const JOB: &str = r#"
[job]
name = "ranking"

[source.orders.file]
path = "ORDERS"
schema = { shop = "string", amount = "float", at = "timestamp" }
event_time = { column = "at" }

[step.sales.group]
from = "orders"
key = ["shop"]
aggregate = { total = "sum(amount)" }

[step.best.top]
from = "sales"
order_by = ["total desc"]
rows = 2
rank = "place"

[sink.best.log]
from = "best"
topic = "best"
key = ["place"]
changes = "upsert"

[sink.all.log]
from = "best"
topic = "all"
"#;

#[test]
fn what_is_taken_back_below_moves_the_list_above() {
    let folder = TempDir::new().unwrap();
    let (job, orders, data) =
        (folder.path().join("job.toml"), folder.path().join("orders.jsonl"), folder.path().join("data"));
    let order = |(second, shop, amount): (u32, &str, i64)| {
        format!("{{\"shop\":\"{shop}\",\"amount\":{amount},\"at\":\"2024-01-01T00:00:0{second}Z\"}}\n")
    };
    let all = [(0, "a", 10), (1, "b", 5), (2, "c", 7), (3, "b", 4), (4, "a", -8)].map(order).concat();
    std::fs::write(&orders, all).unwrap();
    std::fs::write(&job, JOB.replace("ORDERS", orders.to_str().unwrap())).unwrap();
    let list = |topic: &str| -> Vec<Value> {
        let text = succeed(levada(&["topics", "export", topic], &data));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let line = |change: &str, place: i64, shop: &str, total: f64| json!({ "change": change, "place": place, "shop": shop, "total": total });
    for workers in ["1", "2", "4"] {
        succeed(levada(&["run", job.to_str().unwrap(), "--fresh", "--workers", workers], &data));
        assert_eq!(
            list("best"),
            [
                line("insert", 1, "a", 10.0),
                line("insert", 2, "b", 5.0),
                line("update", 2, "c", 7.0),
                line("update", 2, "b", 9.0),
                line("update", 1, "b", 9.0),
                line("update", 2, "c", 7.0),
            ]
        );
        assert_eq!(list("all")[2..4], [line("retract", 2, "b", 5.0), line("update", 2, "c", 7.0)]);
    }
}
