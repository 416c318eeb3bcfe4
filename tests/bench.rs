//! The measurements measure what they say; how fast anything is, is no test's business.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_small_window_run_reports_all_that_was_asked() {
    let output = Command::new(env!("CARGO_BIN_EXE_levada"))
        .args(["bench", "window", "--events", "20000", "--keys", "30", "--workers", "2", "--repeat", "2"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Two seconds of event time from half a second after a full minute on.
    assert_eq!(report["windows"], 30);
    for part in ["decode", "decode_all", "one_worker", "workers_all"] {
        let measured = &report[part];
        assert_eq!(measured["each_cpu_s"].as_array().map(Vec::len), Some(2), "{part}");
        assert!(measured["peak_memory_mib"].as_f64() > Some(1.0), "{part}");
    }
    for ratios in [&report, &report["best"]] {
        assert!(ratios["cpu_ratio"].as_f64() > Some(0.0) && ratios["wall_ratio"].as_f64() > Some(0.0));
    }
    // Two repetitions: of each list the lesser number.
    let least = |part: &str| {
        let each = report[part]["each_cpu_s"].as_array().unwrap().iter().filter_map(Value::as_f64);
        each.fold(f64::INFINITY, f64::min)
    };
    let expected = least("one_worker") / least("decode");
    let told = report["best"]["cpu_ratio"].as_f64().unwrap();
    // What is listed is rounded to four digits.
    assert!((told / expected - 1.0).abs() < 2e-3, "{told} instead of {expected}");
}
