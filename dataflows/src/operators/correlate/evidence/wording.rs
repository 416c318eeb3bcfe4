//! What a text says, as weighed features, and how alike two texts are.
//!
//! ```text
//!   "Pool rw-pool-07 exhausted, 412 ms" ──► words      pool  rw-pool-07  exhausted  #  ms
//!                                           pairs      pool·rw-pool-07  …              half as much
//!                                           4-grams    "rw-p" "w-po" …  of long words   a quarter
//! ```
//!
//! A feature is a hash, and weighs the more the fewer texts before had it: `ln(1 + (n + 1) / (m + 1))`, of `m` among `n`
//! texts (the smoothed inverse document frequency). A number that stands alone says how much, not what, so all are one
//! word. Two texts are as alike as the cosine of their features.
//!
//! What texts before had is counted in blocks of a minute, or as long as events may be late, and an event knows the blocks
//! that nothing can change any more when it comes in time, but for the last [`FRESH`]. So what it weighs depends on which events there are, and not on when
//! each came. Counts halve with every [`MANY_TEXTS`] texts, and of more than [`MAX_FEATURES`] the rarest are forgotten.
//!
//! A text costs a hash and a few look-ups a feature, at most [`MAX_WORDS`] words of it; a comparison, a walk along both.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use levada_types::{KeyGroup, StateChanges};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::sentences;

/// The words of a text that count.
const MAX_WORDS: usize = 48;
/// The features of a text that count: words first, then pairs, then 4-grams.
const MAX_TEXT_FEATURES: usize = 128;
/// Features whose counts are remembered, of all blocks that are over, and of one that is not.
const MAX_FEATURES: usize = 1 << 18;
/// The least length of a block, in milliseconds.
const BLOCK_MS: i64 = 60_000;
/// So many texts make all counts half as old. It is by texts, not by time: where few come, what is rare shows only in many hours.
const MANY_TEXTS: u32 = 1 << 16;
/// So many blocks are too fresh to count: what is told of now, again and again, is not common for that.
const FRESH: i64 = 10;
/// By how many of its rarest words a text is looked for.
pub(super) const RARE: usize = 4;
/// The least length of a word, in bytes, that is cut into 4-grams.
const LONG_WORD: usize = 6;
const GRAM: usize = 4;
/// Weights are counted in sixteenths.
const FINE: f64 = 16.0;

/// What a text says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Wording {
    /// Features and their weights, by feature.
    features: Box<[(u32, u16)]>,
    /// The length of the weights as a vector.
    norm: f64,
    /// Its rarest words, the rarest first: by these it is looked for.
    pub(super) sought: Vec<u32>,
    /// Those of them that are rare, and no places; sorted.
    pub(super) rare: Vec<u32>,
    /// The places that it names, but its own; sorted.
    pub(super) places: Vec<u64>,
    /// What a model makes of it, if one was asked.
    pub(super) sentence: Box<[i8]>,
}

impl Wording {
    /// The features that it was made of.
    pub(super) fn features(&self) -> Features {
        self.features.iter().map(|&(feature, _)| (feature, 0)).collect()
    }

    /// The cosine of two texts, from 0 to 1.
    pub(super) fn similarity(&self, other: &Wording) -> f64 {
        if !self.sentence.is_empty() {
            return sentences::similarity(&self.sentence, &other.sentence);
        }
        let (mut a, mut b) = (self.features.iter().peekable(), other.features.iter().peekable());
        let mut dot = 0u64;
        while let (Some(&&(x, ours)), Some(&&(y, theirs))) = (a.peek(), b.peek()) {
            if x == y {
                dot += u64::from(ours) * u64::from(theirs);
            }
            if x <= y {
                a.next();
            }
            if y <= x {
                b.next();
            }
        }
        if dot == 0 { 0.0 } else { dot as f64 / (self.norm * other.norm) }
    }
}

/// The features of a text, each once, and how much each counts beside its rarity: 4 a word, 2 a pair, 1 a 4-gram.
pub(super) type Features = Vec<(u32, u8)>;

/// A text, cut up.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) features: Features,
    /// The feature of each word, and its hash as that of a place in the topology.
    words: Vec<(u32, u64)>,
}

/// Cuts a text up, for comparisons into pairs and 4-grams too; `place` hashes a word as a place is.
pub(super) fn cut(text: &str, compared: bool, place: impl Fn(&str) -> u64) -> Text {
    let words = || text.split_whitespace().map(trim).filter(|word| !word.is_empty()).take(MAX_WORDS);
    let of = |word: &str| (hash(plain(&word.to_lowercase()).as_bytes(), 4), place(word));
    Text { features: features(text, compared), words: words().map(of).collect() }
}

fn trim(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric() && c != '/')
}

/// A word; all numbers are one. What has more than one point is a version or an address.
fn plain(word: &str) -> &str {
    let is_number = word.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b','))
        && word.bytes().filter(|b| *b == b'.').count() < 2;
    if is_number { "#" } else { word }
}

fn hash(bytes: &[u8], kind: u8) -> u32 {
    xxh3_64_with_seed(bytes, u64::from(kind)) as u32
}

/// The features of a text, sorted.
fn features(text: &str, compared: bool) -> Features {
    let lower = text.to_lowercase();
    let words = lower.split_whitespace().map(trim).filter(|word| !word.is_empty()).take(MAX_WORDS);
    let words: Vec<&str> = words.map(plain).collect();
    let mut found: Features = words.iter().map(|word| (hash(word.as_bytes(), 4), 4)).collect();
    let parts = if compared { &words[..] } else { &[] };
    for pair in parts.windows(2) {
        let first = hash(pair[0].as_bytes(), 2);
        found.push((xxh3_64_with_seed(pair[1].as_bytes(), u64::from(first) << 8 | 2) as u32, 2));
    }
    for word in parts.iter().filter(|word| word.len() >= LONG_WORD) {
        found.extend(word.as_bytes().windows(GRAM).map(|gram| (hash(gram, 1), 1)));
    }
    found.truncate(MAX_TEXT_FEATURES);
    found.sort_unstable();
    found.dedup_by_key(|(feature, _)| *feature);
    found
}

/// How many texts had which features.
#[derive(Debug)]
pub(super) struct Vocabulary {
    lateness_ms: i64,
    block_ms: i64,
    /// What can change no more: texts, and those that have each feature.
    texts: u32,
    counts: HashMap<u32, u32, ahash::RandomState>,
    /// Blocks that may yet change, or that some event must not know.
    blocks: BTreeMap<i64, Block>,
    /// Parts that the next checkpoint writes, by block; those of what can change no more by `i64::MIN`.
    unsaved: BTreeSet<(i64, u8)>,
    /// Blocks that a checkpoint has and that are no more.
    removed: BTreeSet<i64>,
}

#[derive(Debug, Default)]
struct Block {
    texts: u32,
    counts: HashMap<u32, u32, ahash::RandomState>,
}

/// What can change no more is written in so many parts, by the first bits of a feature.
const PARTS: u8 = 64;
const OVER: i64 = i64::MIN;

fn part(feature: u32) -> u8 {
    (feature >> 26) as u8
}

impl Vocabulary {
    pub(super) fn new(lateness_ms: i64) -> Vocabulary {
        Vocabulary {
            lateness_ms,
            block_ms: lateness_ms.max(BLOCK_MS),
            texts: 0,
            counts: HashMap::default(),
            blocks: BTreeMap::new(),
            unsaved: BTreeSet::new(),
            removed: BTreeSet::new(),
        }
    }

    /// What a text of a time says, weighed by the texts of before; `own` is where it comes from, and `is_place` tells places from
    /// other words. A word is rare if at most a share `rare` of the texts had it.
    pub(super) fn wording(
        &self,
        text: &Text,
        time: i64,
        rare: f64,
        own: Option<u64>,
        is_place: impl Fn(u64) -> bool,
    ) -> Wording {
        let features = &text.features;
        let until = time.saturating_sub(self.lateness_ms).div_euclid(self.block_ms) - FRESH;
        let (texts, _) = self.known(until, |_| 0, 0);
        let weigh = |&(feature, kind): &(u32, u8)| {
            let count = |block: &Block| block.counts.get(&feature).copied().unwrap_or_default();
            let (_, had) = self.known(until, count, self.counts.get(&feature).copied().unwrap_or_default());
            let rarity = libm::log(1.0 + (f64::from(texts) + 1.0) / (f64::from(had) + 1.0));
            (feature, (rarity * FINE * f64::from(kind)) as u16)
        };
        let weighed: Vec<(u32, u16)> = features.iter().map(weigh).collect();
        let square: u64 = weighed.iter().map(|&(_, weight)| u64::from(weight) * u64::from(weight)).sum();
        let mut words: Vec<(u16, u32)> = Vec::new();
        for (&(feature, weight), &(_, kind)) in weighed.iter().zip(features) {
            if kind == 4 {
                words.push((weight, feature));
            }
        }
        words.sort_unstable_by(|a, b| b.cmp(a));
        let sought = words.into_iter().take(RARE).map(|(_, feature)| feature).collect();
        let (mut found, mut places) = (Vec::new(), Vec::new());
        for &(feature, place) in &text.words {
            if Some(place) == own {
                continue;
            }
            if is_place(place) {
                places.push(place);
                continue;
            }
            let count = |block: &Block| block.counts.get(&feature).copied().unwrap_or_default();
            let (_, had) = self.known(until, count, self.counts.get(&feature).copied().unwrap_or_default());
            if f64::from(had) + 1.0 <= rare * (f64::from(texts) + 1.0) {
                found.push(feature);
            }
        }
        found.sort_unstable();
        found.dedup();
        places.sort_unstable();
        places.dedup();
        let norm = (square as f64).sqrt();
        Wording { features: weighed.into(), norm, sought, rare: found, places, sentence: Box::default() }
    }

    /// How many texts there are in the blocks before `until`, and a count; `over` is that of those that can change no more.
    fn known(&self, until: i64, of: impl Fn(&Block) -> u32, over: u32) -> (u32, u32) {
        self.blocks.range(..until).fold((self.texts, over), |(texts, count), (_, block)| {
            let half = u32::from(texts >= MANY_TEXTS);
            ((texts >> half).saturating_add(block.texts), (count >> half).saturating_add(of(block)))
        })
    }

    /// Counts a text, or takes it out again.
    pub(super) fn count(&mut self, features: &Features, time: i64, more: bool) {
        let number = time.div_euclid(self.block_ms);
        if self.removed.remove(&number) {
            // A checkpoint may have other parts of a block that was there before.
            self.unsaved.extend((0..PARTS).map(|part| (number, part)));
        }
        let block = self.blocks.entry(number).or_default();
        block.texts = if more { block.texts.saturating_add(1) } else { block.texts.saturating_sub(1) };
        for &(feature, _) in features {
            let room = block.counts.len() < MAX_FEATURES;
            match block.counts.get_mut(&feature) {
                Some(count) if more => *count = count.saturating_add(1),
                Some(count) if *count > 1 => *count -= 1,
                Some(_) => drop(block.counts.remove(&feature)),
                None if more && room => drop(block.counts.insert(feature, 1)),
                None => {}
            }
            self.unsaved.insert((number, part(feature)));
        }
        // How many texts there are stands in part 0.
        self.unsaved.insert((number, 0));
        if block.texts == 0 {
            self.drop_block(number);
        }
    }

    fn drop_block(&mut self, number: i64) -> Option<Block> {
        self.removed.insert(number);
        for part in 0..PARTS {
            self.unsaved.remove(&(number, part));
        }
        self.blocks.remove(&number)
    }

    /// Adds the blocks that every event to come may know to what can change no more.
    pub(super) fn forget(&mut self, now: i64) {
        let until = now.saturating_sub(self.lateness_ms.saturating_mul(2)).div_euclid(self.block_ms) - FRESH;
        while let Some(number) = self.blocks.keys().next().copied().filter(|number| *number < until) {
            let Some(block) = self.drop_block(number) else { continue };
            let (counts, texts, unsaved) = (&mut self.counts, &mut self.texts, &mut self.unsaved);
            if *texts >= MANY_TEXTS {
                *texts >>= 1;
                counts.values_mut().for_each(|count| *count >>= 1);
                counts.retain(|_, count| *count > 0);
                unsaved.extend((0..PARTS).map(|part| (OVER, part)));
            }
            *texts = texts.saturating_add(block.texts);
            for (feature, more) in block.counts {
                let count = counts.entry(feature).or_insert(0);
                *count = count.saturating_add(more);
                unsaved.insert((OVER, part(feature)));
            }
            unsaved.insert((OVER, 0));
            let mut rarest = 1;
            while counts.len() > MAX_FEATURES {
                counts.retain(|_, count| *count > rarest);
                rarest += 1;
                unsaved.extend((0..PARTS).map(|part| (OVER, part)));
            }
        }
    }

    /// Appends what changed, under keys that begin with `prefix`.
    pub(super) fn checkpoint(&mut self, prefix: u8, changes: &mut StateChanges) -> Result<(), postcard::Error> {
        let name = |block: i64, part: u8| [&[prefix][..], &block.to_be_bytes(), &[part]].concat();
        for number in std::mem::take(&mut self.removed) {
            if !self.blocks.contains_key(&number) {
                (0..PARTS).for_each(|part| changes.delete(KeyGroup(0), &name(number, part)));
            }
        }
        // What is written together is gathered in one walk.
        let mut unsaved = std::mem::take(&mut self.unsaved).into_iter().peekable();
        while let Some(&(number, _)) = unsaved.peek() {
            let (texts, counts) = match self.blocks.get(&number) {
                Some(block) => (block.texts, &block.counts),
                None => (self.texts, &self.counts),
            };
            let mut parts: Vec<Vec<(u32, u32)>> = vec![Vec::new(); usize::from(PARTS)];
            counts.iter().for_each(|(&feature, &count)| parts[usize::from(part(feature))].push((feature, count)));
            while let Some((_, part)) = unsaved.next_if(|(next, _)| *next == number) {
                let counts = &mut parts[usize::from(part)];
                counts.sort_unstable();
                let told = if part == 0 { texts } else { 0 };
                changes.put(KeyGroup(0), &name(number, part), &postcard::to_stdvec(&(told, counts))?);
            }
        }
        Ok(())
    }

    /// Takes up a part; `key` is without its prefix.
    pub(super) fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), postcard::Error> {
        let wrong = postcard::Error::DeserializeUnexpectedEnd;
        let (&part, number) = key.split_last().ok_or(wrong)?;
        let number = number.try_into().map(i64::from_be_bytes).map_err(|_| postcard::Error::DeserializeUnexpectedEnd)?;
        let (texts, counts): (u32, Vec<(u32, u32)>) = postcard::from_bytes(value)?;
        if number == OVER {
            self.counts.extend(counts);
            if part == 0 {
                self.texts = texts;
            }
        } else {
            let block = self.blocks.entry(number).or_default();
            block.texts += texts;
            block.counts.extend(counts);
        }
        Ok(())
    }
}
