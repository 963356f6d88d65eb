//! Packed weights, in the layout of the kernels.

use half::f16;

use crate::{
    format::{BLOCK, Format, TILE_COLUMNS, TileShape},
    memory::Bytes,
    numbers::{largest, nearest},
    source_error::SourceError,
};

// Scales and offsets are read where they stand.
const _: () = assert!(cfg!(target_endian = "little"));

/// A packed matrix that owns its memory. Multiply with [`Packed::weights`].
pub struct Packed {
    format: Format,
    inputs: usize,
    outputs: usize,
    bytes: Bytes,
}

/// A quantised matrix of `outputs` columns with `inputs` weights each, in tiles (see [`Format`]).
///
/// A view of bytes, for instance in a mapped file that several processes share. They are the same on every
/// little-endian machine; memory aligned to 64 bytes is read fastest.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    format: Format,
    inputs: usize,
    outputs: usize,
    tile: TileShape,
    bytes: &'a [u8],
}

/// One block of one column: quants in the order of the inputs, one in each byte.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    /// The scale, kept in f16.
    pub scale: f32,
    /// The minimum, kept in f16; ignored by formats without one.
    pub offset: f32,
    /// Below 16 for 4 bits.
    pub quants: [u8; BLOCK],
}

impl Block {
    /// At most [`BLOCK`] weights, each times `factor`, in 8 bits for [`Format::Q8Scale32`]: the one of largest magnitude
    /// becomes 127 or -127.
    #[inline(always)]
    pub fn in_8_bits(weights: &[f32], factor: f32) -> Self {
        let largest = (largest(weights) * factor).abs();
        // As it will be stored: levels are chosen for what the kernels will multiply with.
        let scale = f16::from_f32_const(largest / 127.0).to_f32_const();
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let mut quants = [128; BLOCK];
        for (quant, weight) in quants.iter_mut().zip(weights) {
            *quant = (nearest(weight * factor * inverse).clamp(-127, 127) + 128) as u8;
        }
        Self { scale, offset: 0.0, quants }
    }
}

/// Source of a matrix's blocks.
pub(crate) trait Source {
    /// Block `index` of `column`.
    fn block(&mut self, column: usize, index: usize) -> Block;
}

impl<F: FnMut(usize, usize) -> Block> Source for F {
    #[inline(always)]
    fn block(&mut self, column: usize, index: usize) -> Block {
        self(column, index)
    }
}

impl Packed {
    /// Packs `outputs` columns of `inputs` weights, block by block from `block(column, index)`. Quants beyond the last
    /// input are ignored; they, and padding columns of the last tile, become zero weights.
    ///
    /// # Panics
    /// A matrix without inputs or outputs.
    pub fn pack(format: Format, inputs: usize, outputs: usize, block: impl FnMut(usize, usize) -> Block) -> Self {
        assert!(inputs > 0 && outputs > 0, "a matrix of {inputs} x {outputs}");
        let mut bytes = Bytes::zeroed(format.packed_len(inputs, outputs));
        pack_into(bytes.as_mut_slice(), format, inputs, outputs, block);
        Self { format, inputs, outputs, bytes }
    }

    /// A view to multiply with.
    pub fn weights(&self) -> Weights<'_> {
        Weights::view(self.format, self.inputs, self.outputs, self.bytes())
    }

    /// Bytes for [`Weights::new`], in this or another process.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes.as_slice()[..self.format.packed_len(self.inputs, self.outputs)]
    }
}

impl<'a> Weights<'a> {
    /// The matrix in `bytes`, which are [`Packed::bytes`] of this format and shape.
    ///
    /// # Errors
    /// The bytes do not fit the shape.
    pub fn new(format: Format, inputs: usize, outputs: usize, bytes: &'a [u8]) -> Result<Self, SourceError> {
        let want = format.packed_len(inputs, outputs);
        if bytes.len() != want || want == 0 {
            return Err(SourceError::Size { what: "packed bytes", got: bytes.len(), want });
        }
        Ok(Self::view(format, inputs, outputs, bytes))
    }

    /// As [`Weights::new`], for bytes of the right size.
    pub(crate) fn view(format: Format, inputs: usize, outputs: usize, bytes: &'a [u8]) -> Self {
        assert!(bytes.len() == format.packed_len(inputs, outputs), "{} bytes for {inputs} x {outputs}", bytes.len());
        Self { format, inputs, outputs, tile: format.tile(inputs), bytes }
    }

    /// Format of the weights.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Inputs of the matrix.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs (columns) of the matrix.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The weights of one column, dequantised: rounded once, to f32.
    ///
    /// # Panics
    /// There is no such column, or `out` has not [`inputs`](Self::inputs) floats.
    pub fn column(&self, column: usize, out: &mut [f32]) {
        assert!(column < self.outputs && out.len() == self.inputs, "column {column} of {self:?}");
        let tile = &self.bytes[column / TILE_COLUMNS * self.tile.bytes..][..self.tile.bytes];
        for (index, out) in out.chunks_mut(BLOCK).enumerate() {
            let block = get(self.format, &self.tile, tile, column % TILE_COLUMNS, index);
            let (factor, addend) = match self.format {
                Format::Q4Min32 => (block.scale, block.offset),
                Format::Q4Scale32 => (block.scale, -8.0 * block.scale),
                Format::Q8Scale32 => (block.scale, -128.0 * block.scale),
            };
            for (out, &quant) in out.iter_mut().zip(&block.quants) {
                *out = f32::from(quant).mul_add(factor, addend);
            }
        }
    }

    /// Bytes for [`Weights::new`].
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether every block's scale and minimum is finite, as in a matrix packed here; but bytes may come from anywhere.
    pub fn are_finite(&self) -> bool {
        // The exponent of a NaN or an infinity has all its bits.
        let finite = |half: &[u8; 2]| u16::from_le_bytes(*half) & 0x7c00 != 0x7c00;
        let all = |cells: &[u8]| cells.as_chunks::<2>().0.iter().all(finite);
        let cells = 2 * TILE_COLUMNS * self.tile.blocks;
        self.bytes.chunks_exact(self.tile.bytes).all(|tile| {
            let offsets = if self.format == Format::Q4Min32 { &tile[self.tile.offsets..][..cells] } else { &[] };
            all(&tile[..cells]) && all(offsets)
        })
    }

    pub(crate) fn shape(&self) -> TileShape {
        self.tile
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.weights().fmt(f)
    }
}

impl std::fmt::Debug for Weights<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weights({:?}, {} x {})", self.format, self.inputs, self.outputs)
    }
}

/// [`Packed::pack`] into bytes of zero, compiled for whatever instruction set its caller is compiled for.
#[inline(always)]
pub(crate) fn pack_into(bytes: &mut [u8], format: Format, inputs: usize, outputs: usize, mut source: impl Source) {
    let tile = format.tile(inputs);
    for column in 0..outputs {
        let part = &mut bytes[column / TILE_COLUMNS * tile.bytes..][..tile.bytes];
        for index in 0..tile.blocks {
            let mut block = source.block(column, index);
            let known = (inputs - index * BLOCK).min(BLOCK);
            block.quants[known..].fill(0);
            put(format, &tile, part, column % TILE_COLUMNS, index, &block);
        }
    }
}

/// Writes one block of column `lane` into its tile.
#[inline(always)]
fn put(format: Format, tile: &TileShape, bytes: &mut [u8], lane: usize, index: usize, block: &Block) {
    let cell = index * TILE_COLUMNS + lane;
    bytes[2 * cell..][..2].copy_from_slice(&f16::from_f32_const(block.scale).to_le_bytes());
    if format == Format::Q4Min32 {
        let offsets = &mut bytes[tile.offsets..];
        offsets[2 * cell..][..2].copy_from_slice(&f16::from_f32_const(block.offset).to_le_bytes());
    }
    let quants = &block.quants;
    let bits = if format == Format::Q8Scale32 { 8 } else { 4 };
    let size = quants.len() * TILE_COLUMNS * bits / 8;
    let out = &mut bytes[tile.quants + index * size..][..size];
    if bits == 8 {
        for (group, four) in quants.chunks_exact(4).enumerate() {
            out[64 * group + 4 * lane..][..4].copy_from_slice(four);
        }
    } else {
        for (group, eight) in quants.chunks_exact(8).enumerate() {
            let out = &mut out[64 * group + 4 * lane..][..4];
            for (i, byte) in out.iter_mut().enumerate() {
                *byte = (eight[i] & 15) | (eight[i + 4] << 4);
            }
        }
    }
}

/// Reads one block of column `lane` out of its tile.
fn get(format: Format, tile: &TileShape, bytes: &[u8], lane: usize, index: usize) -> Block {
    let cell = index * TILE_COLUMNS + lane;
    let half = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32_const();
    let scale = half(&bytes[2 * cell..]);
    let offset = if format == Format::Q4Min32 { half(&bytes[tile.offsets + 2 * cell..]) } else { 0.0 };
    let mut quants = [0; BLOCK];
    let out = &mut quants;
    let bits = if format == Format::Q8Scale32 { 8 } else { 4 };
    let size = out.len() * TILE_COLUMNS * bits / 8;
    let stored = &bytes[tile.quants + index * size..][..size];
    if bits == 8 {
        for (group, four) in out.chunks_exact_mut(4).enumerate() {
            four.copy_from_slice(&stored[64 * group + 4 * lane..][..4]);
        }
    } else {
        for (group, eight) in out.chunks_exact_mut(8).enumerate() {
            for (i, byte) in stored[64 * group + 4 * lane..][..4].iter().enumerate() {
                eight[i] = byte & 15;
                eight[i + 4] = byte >> 4;
            }
        }
    }
    Block { scale, offset, quants }
}
