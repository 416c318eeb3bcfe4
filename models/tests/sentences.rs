//! A model of texts, run by the real runtime: what means the same is alike, a text gets the same bits whatever shares its batch,
//! and what is wrong with a model is said. Needs `libonnxruntime.so` (`make setup`); fails without it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::path::Path;

use levada_models::Sentences;
use levada_types::ScorerFactory;
use serde_json::{Value, json};

const MANIFEST: &str = "sentences/alerts.json";

fn vectors(model: &dyn ScorerFactory, texts: &[&str]) -> Vec<Vec<f32>> {
    let ids: Vec<Vec<i64>> = texts.iter().map(|text| model.texts().unwrap().ids(text)).collect();
    model.open().unwrap().score(&ids).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

#[test]
fn what_means_the_same_is_alike_without_a_common_word() {
    let model = levada_models::open(MANIFEST).unwrap_or_else(|error| panic!("{error}"));
    let texts = ["disk full", "Volumes exhausted!", "login denied", "authentication refused"];
    let vectors = vectors(&*model, &texts);
    assert!(vectors.iter().all(|vector| vector.len() == 16));
    let alike = |a: usize, b: usize| cosine(&vectors[a], &vectors[b]);
    assert!(alike(0, 1) > 0.9 && alike(2, 3) > 0.9, "{} {}", alike(0, 1), alike(2, 3));
    assert!([(0, 2), (0, 3), (1, 2), (1, 3)].iter().all(|&(a, b)| alike(a, b) < 0.4));
}

#[test]
fn a_text_gets_the_same_bits_in_any_slot_with_any_companions() {
    let model = Sentences::load(MANIFEST).unwrap_or_else(|error| panic!("{error}"));
    let words = ["disk", "full", "login", "denied", "payment", "slow", "crash", "queue", "no such word", "."];
    let texts: Vec<String> =
        (0..50).map(|n| format!("{} {} {}", words[n % 10], words[n / 5], words[n % 7])).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let bits = |vectors: &[Vec<f32>]| -> Vec<Vec<u32>> {
        vectors.iter().map(|vector| vector.iter().map(|number| number.to_bits()).collect()).collect()
    };
    let alone: Vec<Vec<u32>> = texts.iter().flat_map(|text| bits(&vectors(&model, &[text]))).collect();
    for turned in [0, 1, 3, 7] {
        let order: Vec<usize> = (0..texts.len()).map(|n| (n * 11 + turned) % texts.len()).collect();
        let together = bits(&vectors(&model, &order.iter().map(|&n| texts[n]).collect::<Vec<_>>()));
        assert!(order.iter().zip(&together).all(|(&n, bits)| *bits == alone[n]), "{turned}");
    }
}

#[test]
fn a_model_that_is_not_what_its_manifest_says_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |change: &dyn Fn(&mut Value, &Path)| {
        for file in ["alerts.onnx", "alerts.txt"] {
            std::fs::copy(Path::new("sentences").join(file), folder.path().join(file)).unwrap();
        }
        let mut manifest: Value = serde_json::from_str(&std::fs::read_to_string(MANIFEST).unwrap()).unwrap();
        change(&mut manifest, folder.path());
        let path = folder.path().join("alerts.json");
        std::fs::write(&path, manifest.to_string()).unwrap();
        levada_models::open(&path).err().expect("a wrong model must be refused").to_string()
    };
    assert!(
        refusal(&|manifest, _| manifest["inputs"]["ids"] = json!("tokens"))
            .contains("it has no input `tokens`")
    );
    assert!(refusal(&|manifest, _| manifest["output"] = json!("y")).contains("it has no output `y`"));
    assert!(refusal(&|manifest, _| manifest["dimensions"] = json!(32)).contains("asks for Float32 [8, 32]"));
    assert!(refusal(&|manifest, _| manifest["pooling"] = json!("mean")).contains("[8, 16, 16]"));
    assert!(refusal(&|manifest, _| manifest["tokens"] = json!(12)).contains("[8, 12]"));
    let cut = |_: &mut Value, folder: &Path| std::fs::write(folder.join("alerts.txt"), "[PAD]\n").unwrap();
    assert!(refusal(&cut).contains("its sha256 is"));
    let gone = |_: &mut Value, folder: &Path| std::fs::remove_file(folder.join("alerts.txt")).unwrap();
    assert!(refusal(&gone).contains("alerts.txt: "));
    let text_of_none =
        |manifest: &mut Value, _: &Path| drop(manifest.as_object_mut().unwrap().remove("kind"));
    assert!(refusal(&text_of_none).contains("failed to read the model manifest"));
}
