use std::sync::Arc;

use bytes::Bytes;
use levada_types::{Blame, CheckpointStore};
use object_store::memory::InMemory;

use super::bucket::{BucketStore, cut};

fn store(objects: &Arc<InMemory>, prefix: &str) -> BucketStore {
    BucketStore::over(objects.clone(), prefix, format!("s3://bucket/{prefix}")).unwrap()
}

#[test]
fn an_object_is_replaced_or_created_once_and_belongs_to_its_prefix() {
    let objects = Arc::new(InMemory::new());
    let (one, other) = (store(&objects, "jobs/one"), store(&objects, "jobs"));
    assert_eq!(one.list().unwrap(), [""; 0]);
    assert_eq!(one.get("b").unwrap(), None);
    one.put("b", &[Bytes::from_static(b"two"), Bytes::from_static(b" parts")]).unwrap();
    one.put("a", &[]).unwrap();
    one.put("b", &[Bytes::from_static(b"another")]).unwrap();
    assert!(!one.create("b", &[Bytes::from_static(b"late")]).unwrap());
    assert!(one.create("c", &[Bytes::from_static(b"new")]).unwrap());
    assert_eq!(one.list().unwrap(), ["a", "b", "c"]);
    assert_eq!(one.get("b").unwrap().unwrap(), b"another");
    // What is deeper is another's.
    assert_eq!(other.list().unwrap(), [""; 0]);
    one.delete("b").unwrap();
    one.delete("b").unwrap();
    assert_eq!(one.list().unwrap(), ["a", "c"]);
    assert_eq!(store(&objects, "").list().unwrap(), [""; 0]);
    for name in ["", "..", "a/b", "x.tmp"] {
        let error = one.put(name, &[]).unwrap_err();
        assert_eq!(error.blame, Blame::Configuration, "{name}");
    }
}

#[test]
fn what_is_large_goes_in_parts_and_is_the_same() {
    let objects = Arc::new(InMemory::new());
    let store = store(&objects, "large");
    let parts: Vec<Bytes> = (0..41u8).map(|n| Bytes::from(vec![n; (1 << 20) + usize::from(n)])).collect();
    store.put("state", &parts).unwrap();
    assert!(store.get("state").unwrap().unwrap() == parts.concat());
    assert_eq!(store.list().unwrap(), ["state"]);
}

#[test]
fn parts_are_cut_to_one_size_without_copying() {
    let parts = [&b"abcdefg"[..], b"", b"h", b"ijk"].map(Bytes::from_static);
    for size in 1..13 {
        let cut = cut(&parts, size);
        let each: Vec<Bytes> = cut.iter().cloned().map(Bytes::from).collect();
        assert_eq!(each.concat(), b"abcdefghijk", "{size}");
        assert!(each[..each.len() - 1].iter().all(|part| part.len() == size), "{size}");
        assert!(cut.iter().flatten().all(|piece| !piece.is_empty()), "{size}");
    }
    let first = parts[0].as_ptr();
    assert_eq!(cut(&parts, 5)[0].iter().next().unwrap().as_ptr(), first);
}

#[test]
fn a_server_that_is_not_there_is_an_outage_and_names_the_object() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config: super::BucketConfig = serde_json::from_value(serde_json::json!({
        "url": "s3://bucket/job",
        "endpoint": format!("http://{free}"),
        "allow_http": true,
        "credentials": { "env": { "access_key_id": "PATH", "secret_access_key": "PATH" } },
    }))
    .unwrap();
    let store = BucketStore::open(&config).unwrap();
    let error = store.put("state-1", &[Bytes::from_static(b"x")]).unwrap_err();
    assert_eq!(error.blame, Blame::Outage, "{error}");
    let told = error.to_string();
    assert!(
        told.contains("write s3://bucket/job/state-1: ") && told.contains("Connection refused"),
        "{told}"
    );
    assert_eq!(store.list().unwrap_err().blame, Blame::Outage);
}
