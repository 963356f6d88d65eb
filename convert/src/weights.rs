//! External weight file of a graph, written sequentially while the graph is built.
//!
//! Weights pass through one tensor at a time, so a conversion takes the memory of the largest tensor, not of the model.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use crate::onnx::{ElementType, Entry, Tensor};

/// Alignment of tensors, for aligned vector loads from the mapped file.
const ALIGNMENT: u64 = 64;
/// Smaller tensors stay in the graph file, where ONNX Runtime can fold and inspect them.
const INLINE_BYTES_MAX: usize = 1024;

/// Appends tensors to a file and records their locations.
#[derive(Debug)]
pub(crate) struct WeightFile {
    name: String,
    file: BufWriter<File>,
    offset: u64,
    pub(crate) tensors: Vec<Tensor>,
}

impl WeightFile {
    /// Creates the file `name` in `dir`.
    pub(crate) fn create(dir: &Path, name: &str) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create(dir.join(name))?);
        Ok(Self { name: name.into(), file, offset: 0, tensors: Vec::new() })
    }

    /// Adds an initializer of the given shape. `bytes` is the little-endian row-major data.
    pub(crate) fn add(&mut self, name: &str, element: ElementType, shape: &[usize], bytes: &[u8]) -> io::Result<()> {
        let dims = shape.iter().map(|&d| d as i64).collect();
        let mut tensor = Tensor { dims, data_type: element as i32, name: name.into(), ..Tensor::default() };
        if bytes.len() <= INLINE_BYTES_MAX {
            tensor.raw_data = bytes.to_vec();
        } else {
            self.align()?;
            let entry = |key: &str, value: String| Entry { key: key.into(), value };
            tensor.external_data = vec![
                entry("location", self.name.clone()),
                entry("offset", self.offset.to_string()),
                entry("length", bytes.len().to_string()),
            ];
            tensor.data_location = 1;
            self.file.write_all(bytes)?;
            self.offset += bytes.len() as u64;
        }
        self.tensors.push(tensor);
        Ok(())
    }

    /// Flushes to disk and returns the initializers with the file's size in bytes.
    pub(crate) fn finish(mut self) -> io::Result<(Vec<Tensor>, u64)> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok((self.tensors, self.offset))
    }

    fn align(&mut self) -> io::Result<()> {
        let gap = self.offset.next_multiple_of(ALIGNMENT) - self.offset;
        self.file.write_all(&[0; ALIGNMENT as usize][..gap as usize])?;
        self.offset += gap;
        Ok(())
    }
}
