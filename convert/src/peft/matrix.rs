//! One matrix of an adapter, in the file's own words until somebody needs it in others.

use std::{fmt, sync::Arc};

use crate::safetensors_file::{Place, SafetensorsFile};

/// A matrix of finite numbers, row-major. Cheap to clone; keeps its file's bytes.
#[derive(Clone)]
pub struct Matrix {
    file: Arc<SafetensorsFile>,
    place: Place,
}

impl Matrix {
    /// The tensor at `place` of `file`.
    ///
    /// # Errors
    /// The first value that is no number, and which it is.
    pub(super) fn new(file: Arc<SafetensorsFile>, place: Place) -> Result<Self, (usize, f32)> {
        let matrix = Self { file, place };
        if matrix.file.at(&matrix.place).are_finite() {
            return Ok(matrix);
        }
        let values = matrix.values();
        let index = values.iter().position(|value| !value.is_finite()).unwrap_or_default();
        Err((index, values[index]))
    }

    /// Its values.
    pub fn values(&self) -> Vec<f32> {
        let mut values = Vec::new();
        self.file.at(&self.place).append_to(&mut values);
        values
    }

    /// Its values: in `room`, or the file's own where they can be used as they are.
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
