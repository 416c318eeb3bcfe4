//! One open graph: sequences in, scores out, always in batches of the same shape.
//!
//! Floating-point sums depend on how a kernel cuts its work, and a kernel cuts by the shape of the
//! batch. So the graph has one fixed shape, one thread runs it, and what is missing in a batch is
//! padded with empty sequences: the same sequence gets the same bits in any slot, with any
//! companions, in any session on this machine. (Another processor may choose other kernels.)

use levada_types::{ScoreError, Scorer};
use ort::environment::Environment;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{TensorElementType, TensorRef, ValueType};

use crate::manifest::Manifest;
use crate::tokens::{PADDING, Tokenizer};

/// A scorer, for one thread. Holds its own runtime session and one batch of ids.
#[derive(Debug)]
pub struct Session {
    runtime: ort::session::Session,
    input: String,
    outputs: Vec<String>,
    /// Names and sizes of the fields: a token's id is below its field's size.
    fields: Vec<(String, i64)>,
    batch: usize,
    window: usize,
    ids: Vec<i64>,
}

impl Session {
    /// Opens `graph` and holds it against the manifest. The error is the reason.
    pub(crate) fn open(environment: &Environment, manifest: &Manifest, graph: &[u8]) -> Result<Self, String> {
        let runtime = builder(environment)
            .and_then(|mut builder| builder.commit_from_memory(graph))
            .map_err(|error| error.to_string())?;
        let names = manifest.fields.iter().map(|field| field.name.clone());
        let session = Self {
            input: manifest.input.clone(),
            outputs: manifest.outputs.iter().map(|output| output.name.clone()).collect(),
            fields: names.zip(Tokenizer::new(&manifest.fields).sizes()).collect(),
            batch: manifest.batch,
            window: manifest.window,
            ids: vec![PADDING; manifest.batch * manifest.window * manifest.fields.len()],
            runtime,
        };
        session.check_shapes()?;
        Ok(session)
    }

    fn check_shapes(&self) -> Result<(), String> {
        let [input] = self.runtime.inputs() else {
            return Err(format!("it has {} inputs, it must have one", self.runtime.inputs().len()));
        };
        if input.name() != self.input {
            return Err(format!("its input is `{}`, the manifest says `{}`", input.name(), self.input));
        }
        same_shape(input.name(), input.dtype(), TensorElementType::Int64, &self.shape())?;
        for name in &self.outputs {
            let Some(output) = self.runtime.outputs().iter().find(|output| output.name() == name) else {
                return Err(format!("it has no output `{name}`"));
            };
            same_shape(name, output.dtype(), TensorElementType::Float32, &[self.batch])?;
        }
        Ok(())
    }

    fn shape(&self) -> [usize; 3] {
        [self.batch, self.window, self.fields.len()]
    }

    /// Wrong lengths and ids that the model does not have are the caller's mistake: said here, with
    /// the place, because the runtime would say it without.
    fn check_ids(&self, sequence: &[i64]) -> Result<(), ScoreError> {
        let length = self.window * self.fields.len();
        if sequence.len() != length {
            return Err(ScoreError::Run(format!(
                "a sequence has {} ids, it must have {length}",
                sequence.len()
            )));
        }
        for event in sequence.chunks_exact(self.fields.len()) {
            for (id, (name, size)) in event.iter().zip(&self.fields) {
                if !(0..*size).contains(id) {
                    return Err(ScoreError::Run(format!(
                        "the id {id} of the field `{name}` is not below {size}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Scores at most one batch.
    fn score_batch(&mut self, sequences: &[Vec<i64>], scores: &mut Vec<Vec<f32>>) -> Result<(), ort::Error> {
        let length = self.window * self.fields.len();
        let (used, unused) = self.ids.split_at_mut(sequences.len() * length);
        for (slot, sequence) in used.chunks_exact_mut(length).zip(sequences) {
            slot.copy_from_slice(sequence);
        }
        unused.fill(PADDING);
        let shape = self.shape();
        let tokens = TensorRef::from_array_view((shape, self.ids.as_slice()))?;
        let answers = self.runtime.run(ort::inputs![self.input.as_str() => tokens])?;
        let mut columns = Vec::with_capacity(self.outputs.len());
        for name in &self.outputs {
            let answer = answers.get(name).ok_or_else(|| ort::Error::new(format!("no output `{name}`")))?;
            columns.push(answer.try_extract_tensor::<f32>()?.1);
        }
        scores.extend((0..sequences.len()).map(|slot| columns.iter().map(|column| column[slot]).collect()));
        Ok(())
    }
}

impl Scorer for Session {
    fn score(&mut self, sequences: &[Vec<i64>]) -> Result<Vec<Vec<f32>>, ScoreError> {
        for sequence in sequences {
            self.check_ids(sequence)?;
        }
        let mut scores = Vec::with_capacity(sequences.len());
        for batch in sequences.chunks(self.batch) {
            self.score_batch(batch, &mut scores).map_err(|error| ScoreError::Run(error.to_string()))?;
        }
        Ok(scores)
    }
}

/// One thread, one order of work, deterministic kernels.
pub(crate) fn builder(environment: &Environment) -> Result<SessionBuilder, ort::Error> {
    Ok(ort::session::Session::builder(environment)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_deterministic_compute(true)?
        .with_optimization_level(GraphOptimizationLevel::Level3)?)
}

fn same_shape(
    name: &str,
    found: &ValueType,
    element: TensorElementType,
    shape: &[usize],
) -> Result<(), String> {
    if let ValueType::Tensor { ty, shape: sizes, .. } = found
        && *ty == element
        && sizes.iter().copied().eq(shape.iter().map(|size| i64::try_from(*size).unwrap_or(-1)))
    {
        return Ok(());
    }
    Err(format!("`{name}` is {found:?}, the manifest asks for {element:?} {shape:?}"))
}
