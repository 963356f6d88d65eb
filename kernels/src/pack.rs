//! Packed weights, in the layout of the kernels.

use half::f16;

use crate::{
    format::{BLOCK, Format, GROUP_SCALES, Parts, TILE_COLUMNS, TileShape},
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
    /// The scale, kept in f16; of a group of eight blocks in formats with factors.
    pub scale: f32,
    /// Factor of the scale, for each half of the block; ignored by formats without factors. Unsigned bytes, the first for
    /// both halves, in formats with a minimum.
    pub factors: [i8; 2],
    /// The minimum, kept in f16; ignored by formats without one.
    pub offset: f32,
    /// Factor of the minimum; ignored by formats without factors.
    pub offset_factor: u8,
    /// Below 16 for 4 bits, and below 64 for 6.
    pub quants: [u8; BLOCK],
}

impl Block {
    /// A block of a format without factors.
    #[inline(always)]
    pub fn new(scale: f32, offset: f32, quants: [u8; BLOCK]) -> Self {
        Self { scale, factors: [1; 2], offset, offset_factor: 1, quants }
    }

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
        Self::new(scale, 0.0, quants)
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
            let halves = out.chunks_mut(BLOCK / 2).zip(block.quants.chunks(BLOCK / 2));
            for ((out, quants), (factor, addend)) in halves.zip(block.values(self.format)) {
                for (out, &quant) in out.iter_mut().zip(quants) {
                    *out = f32::from(quant).mul_add(factor, addend);
                }
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
        let all = |groups: &[u8], bytes: usize| {
            bytes == 0
                || groups.chunks_exact(bytes).all(|group| group[..GROUP_SCALES].as_chunks::<2>().0.iter().all(finite))
        };
        let Parts { group, scales, offsets, .. } = self.format.parts();
        let groups = self.tile.blocks.div_ceil(group);
        self.bytes.chunks_exact(self.tile.bytes).all(|tile| {
            let (first, rest) = tile.split_at(self.tile.offsets);
            all(&first[..groups * scales], scales) && all(&rest[..groups * offsets], offsets)
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

impl Block {
    /// Factor and addend of the quants of each half: a weight is `quant * factor + addend`, rounded once.
    fn values(&self, format: Format) -> [(f32, f32); 2] {
        let Parts { bits, minimum, factors, .. } = format.parts();
        self.factors.map(|factor| {
            // Products of an f16 and 8 bits are exact.
            let scale = match (factors, minimum) {
                (0, _) => self.scale,
                (_, true) => self.scale * f32::from(self.factors[0].cast_unsigned()),
                (_, false) => self.scale * f32::from(factor),
            };
            let addend = match (minimum, factors) {
                (true, 0) => self.offset,
                (true, _) => self.offset * f32::from(self.offset_factor),
                (false, _) => -((1 << (bits - 1)) as f32) * scale,
            };
            (scale, addend)
        })
    }
}

/// Offsets in a tile of what belongs to block `index` of column `lane`.
struct Cell {
    scale: usize,
    /// Factors of the scale, for each half.
    factors: [usize; 2],
    offset: usize,
    offset_factor: usize,
    quants: usize,
}

impl Cell {
    #[inline(always)]
    fn of(parts: &Parts, tile: &TileShape, lane: usize, index: usize) -> Self {
        let (group, within) = (index / parts.group, index % parts.group);
        let (scales, offsets) = (group * parts.scales, tile.offsets + group * parts.offsets);
        let factor = |half: usize| scales + GROUP_SCALES + (within * parts.factors + half) * TILE_COLUMNS + lane;
        Self {
            scale: scales + 2 * lane,
            factors: [factor(0), factor(parts.factors / 2)],
            offset: offsets + 2 * lane,
            offset_factor: offsets + GROUP_SCALES + within * TILE_COLUMNS + lane,
            quants: tile.quants + index * parts.quants,
        }
    }
}

/// Writes one block of column `lane` into its tile.
#[inline(always)]
fn put(format: Format, tile: &TileShape, bytes: &mut [u8], lane: usize, index: usize, block: &Block) {
    let parts = format.parts();
    let cell = Cell::of(&parts, tile, lane, index);
    bytes[cell.scale..][..2].copy_from_slice(&f16::from_f32_const(block.scale).to_le_bytes());
    if parts.factors > 0 {
        cell.factors
            .iter()
            .zip(block.factors)
            .take(parts.factors)
            .for_each(|(at, factor)| bytes[*at] = factor.cast_unsigned());
    }
    if parts.minimum {
        bytes[cell.offset..][..2].copy_from_slice(&f16::from_f32_const(block.offset).to_le_bytes());
        if parts.factors > 0 {
            bytes[cell.offset_factor] = block.offset_factor;
        }
    }
    let quants = &block.quants;
    let out = &mut bytes[cell.quants..][..parts.quants];
    if parts.bits == 8 {
        for (group, four) in quants.chunks_exact(4).enumerate() {
            out[64 * group + 4 * lane..][..4].copy_from_slice(four);
        }
        return;
    }
    let (low, high) = out.split_at_mut(BLOCK * TILE_COLUMNS / 2);
    for (group, eight) in quants.chunks_exact(8).enumerate() {
        let out = &mut low[64 * group + 4 * lane..][..4];
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = (eight[i] & 15) | (eight[i + 4] << 4);
        }
    }
    if parts.bits == 6 {
        for (group, sixteen) in quants.chunks_exact(16).enumerate() {
            let out = &mut high[64 * group + 4 * lane..][..4];
            for (i, byte) in out.iter_mut().enumerate() {
                let pair = |four: usize| (sixteen[4 * four + i] >> 4 & 3) << (2 * four);
                *byte = pair(0) | pair(1) | pair(2) | pair(3);
            }
        }
    }
}

/// Reads one block of column `lane` out of its tile.
fn get(format: Format, tile: &TileShape, bytes: &[u8], lane: usize, index: usize) -> Block {
    let parts = format.parts();
    let cell = Cell::of(&parts, tile, lane, index);
    let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32_const();
    let mut block = Block::new(half(cell.scale), 0.0, [0; BLOCK]);
    if parts.factors > 0 {
        block.factors = cell.factors.map(|at| bytes[at].cast_signed());
    }
    if parts.minimum {
        block.offset = half(cell.offset);
        if parts.factors > 0 {
            block.offset_factor = bytes[cell.offset_factor];
        }
    }
    let stored = &bytes[cell.quants..][..parts.quants];
    if parts.bits == 8 {
        for (group, four) in block.quants.chunks_exact_mut(4).enumerate() {
            four.copy_from_slice(&stored[64 * group + 4 * lane..][..4]);
        }
        return block;
    }
    let (low, high) = stored.split_at(BLOCK * TILE_COLUMNS / 2);
    for (group, eight) in block.quants.chunks_exact_mut(8).enumerate() {
        for (i, byte) in low[64 * group + 4 * lane..][..4].iter().enumerate() {
            eight[i] = byte & 15;
            eight[i + 4] = byte >> 4;
        }
    }
    if parts.bits == 6 {
        for (group, sixteen) in block.quants.chunks_exact_mut(16).enumerate() {
            for (i, byte) in high[64 * group + 4 * lane..][..4].iter().enumerate() {
                (0..4).for_each(|four| sixteen[4 * four + i] |= (byte >> (2 * four) & 3) << 4);
            }
        }
    }
    block
}
