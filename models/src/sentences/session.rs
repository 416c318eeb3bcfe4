//! An open model of texts: ids in, vectors out, always in batches of the same shape, so that a text gets the same bits whatever
//! else is scored with it.

use levada_types::{ScoreError, Scorer};
use ort::environment::Environment;
use ort::session::SessionInputValue;
use ort::value::{TensorElementType, TensorRef, ValueType};

use super::manifest::{Pooling, SentenceManifest};
use crate::session::builder;

/// A scorer of texts, for one thread.
#[derive(Debug)]
pub struct SentenceSession {
    runtime: ort::session::Session,
    manifest: SentenceManifest,
    /// How many pieces there are: an id is below it; and which of them stands where there is none.
    pieces: i64,
    padding: i64,
    ids: Vec<i64>,
    mask: Vec<i64>,
    types: Vec<i64>,
}

impl SentenceSession {
    /// Opens `graph` and holds it against the manifest. The error is the reason.
    pub(crate) fn open(
        environment: &Environment,
        manifest: &SentenceManifest,
        (pieces, padding): (usize, i64),
        graph: &[u8],
    ) -> Result<Self, String> {
        let runtime = builder(environment)
            .and_then(|mut builder| builder.commit_from_memory(graph))
            .map_err(|error| error.to_string())?;
        let room = vec![0; manifest.batch * manifest.tokens];
        let session = Self {
            runtime,
            manifest: manifest.clone(),
            pieces: i64::try_from(pieces).unwrap_or(i64::MAX),
            padding,
            ids: room.clone(),
            mask: room.clone(),
            types: room,
        };
        session.check_shapes()?;
        Ok(session)
    }

    fn check_shapes(&self) -> Result<(), String> {
        let SentenceManifest { inputs, output, batch, tokens, dimensions, pooling, .. } = &self.manifest;
        let named: Vec<&String> = [&inputs.ids, &inputs.mask].into_iter().chain(&inputs.types).collect();
        for name in &named {
            let found = self.runtime.inputs().iter().find(|input| input.name() == name.as_str());
            let found = found.ok_or_else(|| format!("it has no input `{name}`"))?;
            fits(name, found.dtype(), TensorElementType::Int64, &[*batch, *tokens])?;
        }
        if let Some(other) =
            self.runtime.inputs().iter().find(|input| !named.iter().any(|name| *name == input.name()))
        {
            return Err(format!("it has an input `{}` that the manifest does not name", other.name()));
        }
        let found = self.runtime.outputs().iter().find(|found| found.name() == output);
        let found = found.ok_or_else(|| format!("it has no output `{output}`"))?;
        let shape = match pooling {
            Pooling::None => vec![*batch, *dimensions],
            Pooling::Mean | Pooling::First => vec![*batch, *tokens, *dimensions],
        };
        fits(output, found.dtype(), TensorElementType::Float32, &shape)
    }

    /// Scores at most one batch.
    fn score_batch(&mut self, texts: &[Vec<i64>], vectors: &mut Vec<Vec<f32>>) -> Result<(), ort::Error> {
        let SentenceManifest { inputs, output, batch, tokens, dimensions, pooling, .. } = &self.manifest;
        let length = |text: &[i64]| text.iter().take_while(|id| **id != self.padding).count();
        self.ids.fill(self.padding);
        self.mask.fill(0);
        for (slot, text) in texts.iter().enumerate() {
            let place = slot * tokens..(slot + 1) * tokens;
            self.ids[place.clone()].copy_from_slice(text);
            self.mask[place][..length(text)].fill(1);
        }
        let shape = [*batch, *tokens];
        let mut given: Vec<(&str, SessionInputValue<'_>)> = vec![
            (&inputs.ids, TensorRef::from_array_view((shape, self.ids.as_slice()))?.into()),
            (&inputs.mask, TensorRef::from_array_view((shape, self.mask.as_slice()))?.into()),
        ];
        if let Some(types) = &inputs.types {
            given.push((types, TensorRef::from_array_view((shape, self.types.as_slice()))?.into()));
        }
        let answers = self.runtime.run(given)?;
        let answer = answers.get(output).ok_or_else(|| ort::Error::new(format!("no output `{output}`")))?;
        let (_, numbers) = answer.try_extract_tensor::<f32>()?;
        let rows = if *pooling == Pooling::None { 1 } else { *tokens };
        if numbers.len() != batch * rows * dimensions {
            return Err(ort::Error::new(format!("`{output}` has {} numbers", numbers.len())));
        }
        for (text, of_text) in texts.iter().zip(numbers.chunks_exact(rows * dimensions)) {
            vectors.push(match pooling {
                Pooling::None | Pooling::First => of_text[..*dimensions].to_vec(),
                Pooling::Mean => mean(of_text, *dimensions, length(text)),
            });
        }
        Ok(())
    }
}

/// The mean of the first `count` vectors.
fn mean(vectors: &[f32], dimensions: usize, count: usize) -> Vec<f32> {
    let mut sums = vec![0.0; dimensions];
    for vector in vectors.chunks_exact(dimensions).take(count) {
        sums.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().map(|sum| sum / count.max(1) as f32).collect()
}

impl Scorer for SentenceSession {
    fn score(&mut self, sequences: &[Vec<i64>]) -> Result<Vec<Vec<f32>>, ScoreError> {
        let tokens = self.manifest.tokens;
        for text in sequences {
            if text.len() != tokens || text.iter().any(|id| !(0..self.pieces).contains(id)) {
                let message = format!(
                    "a text has {} ids, it must have {tokens}, each below {}",
                    text.len(),
                    self.pieces
                );
                return Err(ScoreError::Run(message));
            }
        }
        let mut vectors = Vec::with_capacity(sequences.len());
        for batch in sequences.chunks(self.manifest.batch) {
            self.score_batch(batch, &mut vectors).map_err(|error| ScoreError::Run(error.to_string()))?;
        }
        Ok(vectors)
    }
}

/// Whether a tensor may have a shape; of a size that the graph leaves open, any.
fn fits(name: &str, found: &ValueType, element: TensorElementType, shape: &[usize]) -> Result<(), String> {
    let same = |(size, wanted): (&i64, &usize)| *size < 0 || usize::try_from(*size) == Ok(*wanted);
    if let ValueType::Tensor { ty, shape: sizes, .. } = found
        && *ty == element
        && sizes.len() == shape.len()
        && sizes.iter().zip(shape).all(same)
    {
        return Ok(());
    }
    Err(format!("`{name}` is {found:?}, the manifest asks for {element:?} {shape:?}"))
}
