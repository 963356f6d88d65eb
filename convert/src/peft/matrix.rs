//! A matrix of an adapter, kept in the file's own type until needed.

use std::{fmt, sync::Arc};

use crate::safetensors_file::{SafetensorsFile, TensorLocation};

/// A finite matrix, row-major. Cheap to clone; keeps its file's bytes alive.
#[derive(Clone)]
pub struct Matrix {
    file: Arc<SafetensorsFile>,
    place: TensorLocation,
}

impl Matrix {
    /// The tensor at `place` of `file`.
    ///
    /// # Errors
    /// Index and value of the first non-finite element.
    pub(super) fn new(file: Arc<SafetensorsFile>, place: TensorLocation) -> Result<Self, (usize, f32)> {
        let matrix = Self { file, place };
        if matrix.file.at(&matrix.place).are_finite() {
            return Ok(matrix);
        }
        let values = matrix.values();
        let index = values.iter().position(|value| !value.is_finite()).unwrap_or_default();
        Err((index, values[index]))
    }

    /// The values as f32.
    pub fn values(&self) -> Vec<f32> {
        let mut values = Vec::new();
        self.file.at(&self.place).append_to(&mut values);
        values
    }

    /// The values as f32: converted in `room`, or borrowed from the file where possible.
    pub fn values_in<'a>(&'a self, room: &'a mut Vec<f32>) -> &'a [f32] {
        self.file.at(&self.place).values(room)
    }
}

impl PartialEq for Matrix {
    fn eq(&self, other: &Self) -> bool {
        self.values() == other.values()
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matrix").field("place", &self.place).finish_non_exhaustive()
    }
}
