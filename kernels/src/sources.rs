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
    /// Blocks of `block` inputs and `size` bytes each.
    fn new(bytes: &'a [u8], inputs: usize, outputs: usize, block: usize, size: usize) -> Result<Self, SourceError> {
        if !inputs.is_multiple_of(block) {
            return Err(SourceError::Ragged { inputs, block });
        }
        let blocks = inputs / block;
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
        let source = Gguf::new(bytes, inputs, outputs, BLOCK, 18)?;
        Ok(Self::pack(Format::Q4Scale32, inputs, outputs, |column, index| {
            let block = source.block(column, index);
            Block::new(half(block), 0.0, nibbles(&block[2..]))
        }))
    }

    /// A GGUF tensor of type Q4_1, as [`Packed::from_q4_0`].
    ///
    /// # Errors
    /// The bytes do not fit the shape.
    pub fn from_q4_1(bytes: &[u8], inputs: usize, outputs: usize) -> Result<Self, SourceError> {
        let source = Gguf::new(bytes, inputs, outputs, BLOCK, 20)?;
        Ok(Self::pack(Format::Q4Min32, inputs, outputs, |column, index| {
            let block = source.block(column, index);
            Block::new(half(block), half(&block[2..]), nibbles(&block[4..]))
        }))
    }

    /// A GGUF tensor of type Q8_0, as [`Packed::from_q4_0`].
    ///
    /// # Errors
    /// The bytes do not fit the shape.
    pub fn from_q8_0(bytes: &[u8], inputs: usize, outputs: usize) -> Result<Self, SourceError> {
        let source = Gguf::new(bytes, inputs, outputs, BLOCK, 34)?;
        Ok(Self::pack(Format::Q8Scale32, inputs, outputs, |column, index| {
            let block = source.block(column, index);
            let mut quants = [0; BLOCK];
            for (quant, byte) in quants.iter_mut().zip(&block[2..]) {
                *quant = byte ^ 0x80;
            }
            Block::new(half(block), 0.0, quants)
        }))
    }

    /// A GGUF tensor of type Q5_0, as [`Packed::from_q4_0`].
    ///
    /// # Errors
    /// The bytes do not fit the shape.
    pub fn from_q5_0(bytes: &[u8], inputs: usize, outputs: usize) -> Result<Self, SourceError> {
        let source = Gguf::new(bytes, inputs, outputs, BLOCK, 22)?;
        Ok(Self::pack(Format::Q6Scale32, inputs, outputs, |column, index| {
            let block = source.block(column, index);
            let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
            let mut quants = nibbles(&block[6..]);
            for (i, quant) in quants.iter_mut().enumerate() {
                // Stored as a number of five bits less 16; ours is one of six less 32.
                *quant = (*quant | (high >> i & 1) as u8 * 16) + 16;
            }
            Block::new(half(block), 0.0, quants)
        }))
    }

    /// A GGUF tensor of type Q4_K, as [`Packed::from_q4_0`].
    ///
    /// # Errors
    /// The bytes do not fit the shape.
    pub fn from_q4_k(bytes: &[u8], inputs: usize, outputs: usize) -> Result<Self, SourceError> {
        let source = Gguf::new(bytes, inputs, outputs, SUPER_BLOCK, 144)?;
        Ok(Self::pack(Format::Q4K, inputs, outputs, |column, index| {
            let block = source.block(column, index / SUB_BLOCKS);
            let sub = index % SUB_BLOCKS;
            minimum_block(block, sub, sub_nibbles(&block[16..], sub))
        }))
    }

    /// A GGUF tensor of type Q5_K, as [`Packed::from_q4_0`].
    ///
    /// # Errors
    /// The bytes do not fit the shape.
    pub fn from_q5_k(bytes: &[u8], inputs: usize, outputs: usize) -> Result<Self, SourceError> {
        let source = Gguf::new(bytes, inputs, outputs, SUPER_BLOCK, 176)?;
        Ok(Self::pack(Format::Q5K, inputs, outputs, |column, index| {
            let block = source.block(column, index / SUB_BLOCKS);
            let sub = index % SUB_BLOCKS;
            let mut quants = sub_nibbles(&block[48..], sub);
            // The fifth bits of sub-block `sub` are bit `sub` of 32 bytes.
            for (quant, high) in quants.iter_mut().zip(&block[16..48]) {
                *quant |= (high >> sub & 1) << 4;
            }
            minimum_block(block, sub, quants)
        }))
    }

    /// A GGUF tensor of type Q6_K, as [`Packed::from_q4_0`].
    ///
    /// # Errors
    /// The bytes do not fit the shape.
    pub fn from_q6_k(bytes: &[u8], inputs: usize, outputs: usize) -> Result<Self, SourceError> {
        let source = Gguf::new(bytes, inputs, outputs, SUPER_BLOCK, 210)?;
        Ok(Self::pack(Format::Q6K, inputs, outputs, |column, index| {
            let block = source.block(column, index / SUB_BLOCKS);
            let sub = index % SUB_BLOCKS;
            // Of each 128 inputs: 64 bytes of nibbles, the low ones first, and 32 bytes of four pairs of bits each.
            let (side, quarter) = (sub / 4, sub % 4);
            let low = &block[64 * side + 32 * (quarter % 2)..][..BLOCK];
            let high = &block[128 + 32 * side..][..BLOCK];
            let mut quants = [0; BLOCK];
            for (quant, (low, high)) in quants.iter_mut().zip(low.iter().zip(high)) {
                *quant = (low >> (quarter / 2 * 4) & 15) | (high >> (2 * quarter) & 3) << 4;
            }
            let factors = [0, 1].map(|half| block[192 + 2 * sub + half].cast_signed());
            Block { factors, ..Block::new(half(&block[208..]), 0.0, quants) }
        }))
    }
}

/// Inputs of a block of GGUF's K types, and the blocks of 32 in it.
const SUPER_BLOCK: usize = 256;
const SUB_BLOCKS: usize = SUPER_BLOCK / BLOCK;

/// Sub-block `sub` of a block of type Q4_K or Q5_K: `scale: f16, minimum: f16, factors: [u8; 12]`, minimums subtracted.
fn minimum_block(block: &[u8], sub: usize, quants: [u8; BLOCK]) -> Block {
    let (scale, minimum) = six_bits(&block[4..16], sub);
    let factors = [scale.cast_signed(); 2];
    Block { factors, offset_factor: minimum, ..Block::new(half(block), -half(&block[2..]), quants) }
}

/// Factors of scale and minimum of sub-block `sub`, of six bits each. Of the twelve bytes, the first four have the scales
/// of the first four sub-blocks, and the next four their minimums; their upper two bits and the nibbles of the last four
/// are those of the other sub-blocks.
fn six_bits(bytes: &[u8], sub: usize) -> (u8, u8) {
    if sub < 4 {
        return (bytes[sub] & 63, bytes[sub + 4] & 63);
    }
    let (low, scale, minimum) = (bytes[sub + 4], bytes[sub - 4] >> 6, bytes[sub] >> 6);
    (low & 15 | scale << 4, low >> 4 | minimum << 4)
}

/// Nibbles of sub-block `sub`: two sub-blocks share 32 bytes, the earlier in the low nibbles.
fn sub_nibbles(bytes: &[u8], sub: usize) -> [u8; BLOCK] {
    let mut quants = [0; BLOCK];
    for (quant, byte) in quants.iter_mut().zip(&bytes[sub / 2 * BLOCK..]) {
        *quant = byte >> (sub % 2 * 4) & 15;
    }
    quants
}
