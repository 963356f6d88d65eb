//! Weights, laid out once for the kernels and shared by whoever multiplies with them.

use half::f16;

use crate::{
    format::{Format, TILE_COLUMNS, TileShape},
    memory::Bytes,
};

/// A quantised matrix of `outputs` columns with `inputs` weights each, in tiles (see [`Format`]).
///
/// It owns its memory, does not change after it was packed, and is meant to be shared in an `Arc`. Inputs beyond the
/// last and columns beyond the last are filled up with weights of zero.
pub struct Weights {
    format: Format,
    inputs: usize,
    outputs: usize,
    tile: TileShape,
    bytes: Bytes,
}

/// One block of one column: quants in the order of the inputs, one a byte.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    /// The scale. Formats that keep it in f16 round it.
    pub scale: f32,
    /// The minimum (kept in f16) or the zero point (0 to 15), by the format; else not looked at.
    pub offset: f32,
    /// As many as the format's block has count; below 16 for 4 bits.
    pub quants: [u8; 64],
}

impl Weights {
    /// Packs `outputs` columns of `inputs` weights, `block(column, index)` by block. Quants of inputs beyond the last
    /// are not looked at.
    ///
    /// # Panics
    /// A matrix without inputs or outputs.
    pub fn pack(format: Format, inputs: usize, outputs: usize, mut block: impl FnMut(usize, usize) -> Block) -> Self {
        assert!(inputs > 0 && outputs > 0, "a matrix of {inputs} x {outputs}");
        let tile = format.tile(inputs);
        let mut bytes = Bytes::zeroed(outputs.div_ceil(TILE_COLUMNS) * tile.bytes);
        for column in 0..outputs {
            let begin = column / TILE_COLUMNS * tile.bytes;
            let part = &mut bytes.as_mut_slice()[begin..begin + tile.bytes];
            for index in 0..tile.blocks {
                let mut block = block(column, index);
                let known = (inputs - index * format.block()).min(format.block());
                block.quants[known..].fill(0);
                put(format, &tile, part, column % TILE_COLUMNS, index, &block);
            }
        }
        Self { format, inputs, outputs, tile, bytes }
    }

    /// How the weights are quantised.
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

    /// Memory that the weights take, and that a step reads.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn shape(&self) -> TileShape {
        self.tile
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weights({:?}, {} x {})", self.format, self.inputs, self.outputs)
    }
}

/// Writes one block of column `lane` into its tile.
fn put(format: Format, tile: &TileShape, bytes: &mut [u8], lane: usize, index: usize, block: &Block) {
    let cell = index * TILE_COLUMNS + lane;
    match format {
        Format::Q4Zero64 => bytes[4 * cell..][..4].copy_from_slice(&block.scale.to_ne_bytes()),
        _ => bytes[2 * cell..][..2].copy_from_slice(&f16::from_f32_const(block.scale).to_ne_bytes()),
    }
    let offsets = &mut bytes[tile.offsets..];
    match format {
        Format::Q4Zero64 => offsets[cell] = block.offset as u8,
        Format::Q4Min32 | Format::Q4Min64 => {
            offsets[2 * cell..][..2].copy_from_slice(&f16::from_f32_const(block.offset).to_ne_bytes());
        }
        Format::Q4Scale32 | Format::Q8Scale32 => {}
    }
    let quants = &block.quants[..format.block()];
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
