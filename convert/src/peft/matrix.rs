//! One matrix of an adapter, in the file's own words until somebody needs it in others.

use std::{fmt, sync::Arc};

use half::{f16, slice::HalfFloatSliceExt};

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
        self.widen(&mut values);
        values
    }

    /// Appends its values.
    pub(crate) fn widen(&self, values: &mut Vec<f32>) {
        self.file.at(&self.place).widen(values);
    }

    /// Appends its values in 16 bits: as they are, if the file has them so.
    ///
    /// # Errors
    /// The first value that 16 bits do not hold.
    pub(crate) fn narrow(&self, values: &mut Vec<f16>) -> Result<(), f32> {
        match self.file.at(&self.place).halves() {
            Some(halves) => values.extend(halves),
            None => narrow(&self.values(), values)?,
        }
        Ok(())
    }
}

/// Appends `wide` in 16 bits.
///
/// # Errors
/// The first value that 16 bits do not hold.
pub(crate) fn narrow(wide: &[f32], narrow: &mut Vec<f16>) -> Result<(), f32> {
    // All are looked at together, many an instruction; which one it is matters only if there is one.
    let beyond = |value: &f32| value.abs() > f16::MAX.to_f32_const();
    if wide.iter().fold(false, |any, value| any | beyond(value))
        && let Some(value) = wide.iter().copied().find(beyond)
    {
        return Err(value);
    }
    let begin = narrow.len();
    narrow.resize(begin + wide.len(), f16::ZERO);
    narrow[begin..].convert_from_f32_slice(wide);
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_16_bits_do_not_hold_is_found() {
        let (mut values, mut halves) = (vec![65504.0, -65504.0, 0.1], Vec::new());
        assert_eq!(narrow(&values, &mut halves), Ok(()));
        assert_eq!(halves, [f16::MAX, f16::MIN, f16::from_f32(0.1)]);
        values.push(-65505.0);
        assert_eq!(narrow(&values, &mut halves), Err(-65505.0));
    }
}
