//! What a model makes of texts: a vector each, and how alike two are by it.
//!
//! ```text
//!   an epoch's texts ──those not known──► ids ──► model ──► vector ──► a byte a number
//!                                                                └──► signs: 8 words of 6 bits, by which others find it
//! ```
//!
//! A text gets the same vector whatever it is scored with ([`levada_types::Scorer`]). Its numbers are taken in 127ths of the
//! greatest, so a vector is small, and a product of two is exact.
//!
//! Who may be like whom is looked for by the signs of 48 random sums of a vector (Charikar, "Similarity estimation techniques from
//! rounding algorithms", 2002), six at a time: of texts that are alike 0.9, 98 of 100 have six in common, 0.8: 90, 0.7: 78,
//! and of texts that have nothing in common 12.
//!
//! A text costs the model, once; texts that were scored lately are known ([`MAX_KNOWN`] of them, or those of an epoch if they are
//! more). A comparison costs a product of two vectors.

use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use levada_types::{ScoreError, Scorer, ScorerFactory};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::plan::PlanContext;

/// So many texts are known together with their vectors.
const MAX_KNOWN: usize = 1 << 14;
/// Random sums that are looked at together, and how often.
const BITS: usize = 6;
const BANDS: usize = 8;
/// What the signs of the sums are drawn with.
const SIGNS: u64 = 0x5e17_e9ce;

/// A model of texts.
#[derive(Clone)]
pub(super) struct Model(Arc<dyn ScorerFactory>);

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({})", self.0.version())
    }
}

impl Model {
    /// Opens the manifest that a step names; reports what is wrong with it.
    pub(super) fn plan(path: &str, cx: &mut PlanContext<'_>) -> Option<Model> {
        match (cx.models)(path) {
            Ok(model) if model.texts().is_some() => Some(Model(model)),
            Ok(_) => {
                let message = format!("`{path}` is a model of events, for a `score` step, and not of texts");
                cx.problem(["sentences"], message);
                None
            }
            Err(error) => {
                cx.problem(["sentences"], error.to_string());
                None
            }
        }
    }

    pub(super) fn version(&self) -> &str {
        self.0.version()
    }
}

/// What a text means: its vector, and what it is found by.
#[derive(Clone, Debug)]
pub(super) struct Sentence {
    pub(super) vector: Box<[i8]>,
    pub(super) sought: Vec<u32>,
}

/// The texts that are known.
pub(super) struct Sentences {
    model: Model,
    /// Opened by the first text, so that a job can be planned where no model can run.
    scorer: Option<Box<dyn Scorer>>,
    known: HashMap<Box<str>, Sentence, ahash::RandomState>,
}

impl Sentences {
    pub(super) fn new(model: Model) -> Sentences {
        Sentences { model, scorer: None, known: HashMap::default() }
    }

    /// Scores the texts of an epoch, each that is not known once.
    pub(super) fn read<'t>(&mut self, texts: impl Iterator<Item = &'t str> + Clone) -> Result<(), ScoreError> {
        let mut new: Vec<&str> = texts.clone().filter(|text| !self.known.contains_key(*text)).collect();
        new.sort_unstable();
        new.dedup();
        if self.known.len() + new.len() > MAX_KNOWN && !new.is_empty() {
            self.known.clear();
            new = texts.collect();
            new.sort_unstable();
            new.dedup();
        }
        let Some(tokenizer) = self.model.0.texts().filter(|_| !new.is_empty()) else { return Ok(()) };
        let scorer = match &mut self.scorer {
            Some(scorer) => scorer,
            none => none.insert(self.model.0.open()?),
        };
        let ids: Vec<Vec<i64>> = new.iter().map(|text| tokenizer.ids(text)).collect();
        let vectors = scorer.score(&ids)?;
        if vectors.len() != new.len() {
            return Err(ScoreError::Run(format!("the model gave {} vectors for {} texts", vectors.len(), new.len())));
        }
        for (text, numbers) in new.into_iter().zip(vectors) {
            let vector = rounded(&numbers)?;
            let sought = sought(&vector);
            self.known.insert(text.into(), Sentence { vector, sought });
        }
        Ok(())
    }

    /// What a text of this epoch means.
    pub(super) fn get(&self, text: &str) -> Option<&Sentence> {
        self.known.get(text)
    }
}

/// A vector in 127ths of its greatest number.
fn rounded(numbers: &[f32]) -> Result<Box<[i8]>, ScoreError> {
    if let Some(odd) = numbers.iter().find(|number| !number.is_finite()) {
        return Err(ScoreError::Run(format!("the model gave {odd} as a part of a text's vector")));
    }
    let greatest = numbers.iter().fold(0.0f32, |greatest, number| greatest.max(number.abs()));
    let scale = if greatest > 0.0 { 127.0 / greatest } else { 0.0 };
    Ok(numbers.iter().map(|number| (number * scale).round() as i8).collect())
}

/// The cosine of two vectors; 0 if it is less.
pub(super) fn similarity(a: &[i8], b: &[i8]) -> f64 {
    let product = |a: &[i8], b: &[i8]| -> i64 { a.iter().zip(b).map(|(&x, &y)| i64::from(x) * i64::from(y)).sum() };
    match product(a, b) {
        ..=0 => 0.0,
        alike => (alike as f64 / ((product(a, a) as f64) * (product(b, b) as f64)).sqrt()).min(1.0),
    }
}

/// What a vector is found by: the signs of sums of its numbers, each taken as it is or turned round.
fn sought(vector: &[i8]) -> Vec<u32> {
    let mut sums = [0i64; BITS * BANDS];
    for (place, &number) in (0u32..).zip(vector) {
        let signs = xxh3_64_with_seed(&place.to_le_bytes(), SIGNS);
        for (bit, sum) in sums.iter_mut().enumerate() {
            *sum += i64::from(number) * if signs >> bit & 1 == 1 { 1 } else { -1 };
        }
    }
    let band = |(number, sums): (u64, &[i64])| {
        let bits = sums.iter().fold(0u8, |bits, sum| bits << 1 | u8::from(*sum > 0));
        xxh3_64_with_seed(&[bits], SIGNS ^ number) as u32
    };
    (1..).zip(sums.chunks(BITS)).map(band).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_compared_by_their_direction() {
        let of = |numbers: &[f32]| rounded(numbers).unwrap();
        assert_eq!(*of(&[0.5, -1.0, 0.25]), [64, -127, 32]);
        assert_eq!(similarity(&of(&[0.1, 0.2]), &of(&[3.0, 6.0])), 1.0);
        assert_eq!(similarity(&of(&[1.0, 0.0]), &of(&[0.0, 1.0])), 0.0);
        assert_eq!(similarity(&of(&[1.0, 0.0]), &of(&[-1.0, 0.0])), 0.0);
        assert_eq!(similarity(&of(&[0.0, 0.0]), &of(&[1.0, 0.0])), 0.0);
        assert!((similarity(&of(&[3.0, 4.0]), &of(&[4.0, 3.0])) - 0.96).abs() < 0.01);
        assert!(rounded(&[f32::NAN]).is_err() && rounded(&[f32::INFINITY, 1.0]).is_err());
    }

    #[test]
    fn like_vectors_are_found_as_often_as_is_said() {
        // Pairs of a given cosine in 64 dimensions.
        let mut state = 1u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = |bits: u64| (bits & 0xffff) as f32 / 65_536.0;
            (0..4).map(|part| uniform(state >> (part * 16))).sum::<f32>() - 2.0
        };
        let mut vector = || -> Vec<f32> { (0..64).map(|_| draw()).collect() };
        for (alike, least, most) in [(0.9, 0.95, 1.0), (0.8, 0.85, 0.95), (0.7, 0.7, 0.85), (0.0, 0.06, 0.18)] {
            let found = (0..2000).filter(|_| {
                let (a, b) = (vector(), vector());
                let mixed: Vec<f32> = a.iter().zip(&b).map(|(x, y)| x * alike + y * (1.0 - alike * alike).sqrt()).collect();
                let [a, b] = [a, mixed].map(|vector| sought(&rounded(&vector).unwrap()));
                a.iter().zip(&b).any(|(a, b)| a == b)
            });
            let share = found.count() as f64 / 2000.0;
            assert!((least..=most).contains(&share), "{alike}: {share}");
        }
    }
}
