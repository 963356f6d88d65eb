//! Formats of quantised weights, and the layout of their tiles.
//!
//! Sixteen columns, with all of their inputs, make a tile:
//!
//! ```text
//! scales  [blocks][16]   f16
//! offsets [blocks][16]   nothing, or a minimum (f16)
//! quants  [blocks][groups][16][4]
//! ```
//!
//! Quants stand with columns in lanes: four inputs of each of the sixteen columns are 64 bytes, which is one vector of
//! AVX-512, two of AVX2 and four of NEON. Four-bit quants hold two such groups in 64 bytes, the earlier in the low
//! nibbles, so eight successive inputs of a column are the two halves of one 32-bit lane.

/// Columns of a tile.
pub const TILE_COLUMNS: usize = 16;

/// Inputs of a block: they share a scale, and so do the activations they meet.
pub const BLOCK: usize = 32;

/// Bytes of a scale.
pub(crate) const SCALE_BYTES: usize = 2;

/// Quantisation format of a matrix. `q` is the quant, `s` the scale of its block of inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 4 bits: `s * (q - 8)`, `s` in f16. GGUF's Q4_0.
    Q4Scale32,
    /// 4 bits: `s * q + m`, both in f16. GGUF's Q4_1.
    Q4Min32,
    /// 8 bits: `s * (q - 128)`, `s` in f16. GGUF's Q8_0 plus 128.
    Q8Scale32,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Q4Scale32, Self::Q4Min32, Self::Q8Scale32];

    /// Name in graphs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4Scale32 => "q4_scale32",
            Self::Q4Min32 => "q4_min32",
            Self::Q8Scale32 => "q8_scale32",
        }
    }

    /// The format of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Bytes of an offset.
    pub(crate) fn offset_bytes(self) -> usize {
        match self {
            Self::Q4Scale32 | Self::Q8Scale32 => Q4Scale32::OFFSET_BYTES,
            Self::Q4Min32 => Q4Min32::OFFSET_BYTES,
        }
    }

    /// Bytes of a packed matrix.
    pub fn packed_len(self, inputs: usize, outputs: usize) -> usize {
        if inputs == 0 { 0 } else { outputs.div_ceil(TILE_COLUMNS) * self.tile(inputs).bytes }
    }

    /// Layout of a tile with `inputs` inputs.
    pub(crate) fn tile(self, inputs: usize) -> TileShape {
        match self {
            Self::Q4Scale32 => TileShape::of::<Q4Scale32>(inputs),
            Self::Q4Min32 => TileShape::of::<Q4Min32>(inputs),
            Self::Q8Scale32 => TileShape::of::<Q8Scale32>(inputs),
        }
    }
}

/// Offset of a block's quants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offset {
    /// The middle of their range.
    Middle,
    /// Nothing; a minimum is added to the product with the scale.
    Minimum,
}

/// A format at compile time.
pub(crate) trait Layout {
    const BITS: usize;
    const OFFSET: Offset;

    /// Bytes of the quants of a block of a tile.
    const QUANTS: usize = BLOCK * TILE_COLUMNS * Self::BITS / 8;
    /// Bytes of an offset.
    const OFFSET_BYTES: usize = match Self::OFFSET {
        Offset::Middle => 0,
        Offset::Minimum => 2,
    };
}

macro_rules! layouts {
    ($($name:ident: $bits:literal bits, $offset:ident;)*) => {
        $(
            pub(crate) struct $name;

            impl Layout for $name {
                const BITS: usize = $bits;
                const OFFSET: Offset = Offset::$offset;
            }
        )*
    };
}

layouts! {
    Q4Scale32: 4 bits, Middle;
    Q4Min32: 4 bits, Minimum;
    Q8Scale32: 8 bits, Middle;
}

/// Offsets of a tile's parts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileShape {
    pub(crate) blocks: usize,
    pub(crate) offsets: usize,
    pub(crate) quants: usize,
    pub(crate) bytes: usize,
}

impl TileShape {
    fn of<L: Layout>(inputs: usize) -> Self {
        let blocks = inputs.div_ceil(BLOCK);
        let offsets = blocks * TILE_COLUMNS * SCALE_BYTES;
        let quants = (offsets + blocks * TILE_COLUMNS * L::OFFSET_BYTES).next_multiple_of(crate::memory::LINE);
        Self { blocks, offsets, quants, bytes: quants + blocks * L::QUANTS }
    }
}
