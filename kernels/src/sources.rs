//! Exact packing of weights that are quantised already: no value is rounded again.

use half::f16;

use crate::{
    format::{BLOCK, Format},
    pack::{Block, Packed},
    source_error::SourceError,
};

fn expect(what: &'static str, got: usize, want: usize) -> Result<(), SourceError> {
    if got == want { Ok(()) } else { Err(SourceError::Size { what, got, want }) }
}

/// The bytes of a GGUF tensor, one matrix column (GGUF row) after the other, checked against its shape.
struct Gguf<'a> {
    bytes: &'a [u8],
    blocks: usize,
    size: usize,
}

impl<'a> Gguf<'a> {
    fn new(bytes: &'a [u8], inputs: usize, outputs: usize, size: usize) -> Result<Self, SourceError> {
        if !inputs.is_multiple_of(BLOCK) {
            return Err(SourceError::Ragged { inputs, block: BLOCK });
        }
        let blocks = inputs / BLOCK;
        expect("bytes", bytes.len(), outputs * blocks * size)?;
        Ok(Self { bytes, blocks, size })
    }

    fn block(&self, column: usize, index: usize) -> &'a [u8] {
        &self.bytes[(column * self.blocks + index) * self.size..][..self.size]
    }
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32_const()
}

/// GGUF keeps inputs 0 to 15 of a block in the low nibbles of its 16 bytes, 16 to 31 in the high ones.
fn nibbles(bytes: &[u8]) -> [u8; BLOCK] {
    let mut quants = [0; BLOCK];
    for (i, byte) in bytes.iter().enumerate() {
        quants[i] = byte & 15;
        quants[i + 16] = byte >> 4;
    }
    quants
}

impl Packed {
    /// A GGUF tensor of type Q4_0, `outputs` rows of `inputs` weights as they stand in the file.
    ///
    /// # Errors
    /// The bytes do not fit the shape.
    pub fn from_q4_0(bytes: &[u8], inputs: usize, outputs: usize) -> Result<Self, SourceError> {
        let source = Gguf::new(bytes, inputs, outputs, 18)?;
        Ok(Self::pack(Format::Q4Scale32, inputs, outputs, |column, index| {
            let block = source.block(column, index);
            Block { scale: half(block), offset: 0.0, quants: nibbles(&block[2..]) }
        }))
    }

    /// A GGUF tensor of type Q4_1, as [`Packed::from_q4_0`].
    ///
    /// # Errors
    /// The bytes do not fit the shape.
    pub fn from_q4_1(bytes: &[u8], inputs: usize, outputs: usize) -> Result<Self, SourceError> {
        let source = Gguf::new(bytes, inputs, outputs, 20)?;
        Ok(Self::pack(Format::Q4Min32, inputs, outputs, |column, index| {
            let block = source.block(column, index);
            Block { scale: half(block), offset: half(&block[2..]), quants: nibbles(&block[4..]) }
        }))
    }

    /// A GGUF tensor of type Q8_0, as [`Packed::from_q4_0`].
    ///
    /// # Errors
    /// The bytes do not fit the shape.
    pub fn from_q8_0(bytes: &[u8], inputs: usize, outputs: usize) -> Result<Self, SourceError> {
        let source = Gguf::new(bytes, inputs, outputs, 34)?;
        Ok(Self::pack(Format::Q8Scale32, inputs, outputs, |column, index| {
            let block = source.block(column, index);
            let mut quants = [0; BLOCK];
            for (quant, byte) in quants.iter_mut().zip(&block[2..]) {
                *quant = byte ^ 0x80;
            }
            Block { scale: half(block), offset: 0.0, quants }
        }))
    }
}
