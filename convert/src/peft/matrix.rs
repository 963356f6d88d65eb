//! A matrix of an adapter: in its file, in the file's own type until needed, or in memory.

use std::{fmt, sync::Arc};

use crate::safetensors_file::{SafetensorsFile, TensorLocation};

/// A finite matrix, row-major. Cheap to clone; keeps its file's bytes alive.
#[derive(Clone)]
pub struct Matrix(Source);

#[derive(Clone)]
enum Source {
    File { file: Arc<SafetensorsFile>, place: TensorLocation },
    Memory(Arc<[f32]>),
}

impl Matrix {
    /// The tensor at `place` of `file`.
    ///
    /// # Errors
    /// Index and value of the first non-finite element.
    pub(super) fn new(file: Arc<SafetensorsFile>, place: TensorLocation) -> Result<Self, (usize, f32)> {
        if file.at(&place).are_finite() {
            return Ok(Self(Source::File { file, place }));
        }
        let mut values = Vec::new();
        file.at(&place).append_to(&mut values);
        let index = values.iter().position(|value| !value.is_finite()).unwrap_or_default();
        Err((index, values[index]))
    }

    /// A matrix of these finite values.
    pub(crate) fn in_memory(values: impl IntoIterator<Item = f32>) -> Self {
        Self(Source::Memory(values.into_iter().collect()))
    }

    /// The values as f32.
    pub fn values(&self) -> Vec<f32> {
        let mut room = Vec::new();
        self.values_in(&mut room).to_vec()
    }

    /// The values as f32: converted in `room`, or borrowed where possible.
    pub fn values_in<'a>(&'a self, room: &'a mut Vec<f32>) -> &'a [f32] {
        match &self.0 {
            Source::File { file, place } => file.at(place).values(room),
            Source::Memory(values) => values,
        }
    }
}

impl PartialEq for Matrix {
    fn eq(&self, other: &Self) -> bool {
        self.values() == other.values()
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File { place, .. } => f.debug_struct("Matrix").field("place", place).finish_non_exhaustive(),
            Source::Memory(values) => f.debug_struct("Matrix").field("values", &values.len()).finish_non_exhaustive(),
        }
    }
}
