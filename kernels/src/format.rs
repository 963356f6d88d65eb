//! Formats of quantised weights, and the layout of their tiles.
//!
//! Sixteen columns, with all of their inputs, make a tile:
//!
//! ```text
//! scales  [groups][16] f16, each followed by [blocks of the group][factors of a block][16] u8 or i8
//! offsets nothing, or minimums: [groups][16] f16, each followed by [blocks of the group][16] u8
//! quants  [blocks] of: [fours][16][4], 4 or 8 bits each; after 4 of 6 bits, the other two
//! ```
//!
//! In formats without factors a group is a block, and its scale that of the block; else a group is eight blocks (GGUF's
//! K types), and the scale of a block, or of each half of it, is the group's times a factor.
//!
//! Quants stand with columns in lanes: four inputs of each of the sixteen columns are 64 bytes, which is one vector of
//! AVX-512, two of AVX2 and four of NEON. Four-bit quants hold two such fours in 64 bytes, the earlier in the low
//! nibbles, so eight successive inputs of a column are the two halves of one 32-bit lane. Of six-bit quants, the upper
//! two bits hold four such fours in 64 bytes, the earliest in the lowest bits.

/// Columns of a tile.
pub const TILE_COLUMNS: usize = 16;

/// Inputs of a block: they share a scale, and so do the activations they meet.
pub const BLOCK: usize = 32;

/// Bytes of a scale.
pub(crate) const SCALE_BYTES: usize = 2;
/// Bytes of the scales, or minimums, of a group of a tile, before their factors.
pub(crate) const GROUP_SCALES: usize = TILE_COLUMNS * SCALE_BYTES;
/// Blocks of a group that has factors.
const GROUP_BLOCKS: usize = 8;

/// Quantisation format of a matrix. `q` is the quant, `s` the scale of its block of inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 4 bits: `s * (q - 8)`, `s` in f16. GGUF's Q4_0.
    Q4Scale32,
    /// 4 bits: `s * q + m`, both in f16. GGUF's Q4_1.
    Q4Min32,
    /// 6 bits: `s * (q - 32)`, `s` in f16. GGUF's Q5_0 plus 16.
    Q6Scale32,
    /// 8 bits: `s * (q - 128)`, `s` in f16. GGUF's Q8_0 plus 128.
    Q8Scale32,
    /// 4 bits: `s * f * q + m * g`, `s` and `m` in f16 for 256 inputs, `f` and `g` in 8 bits for 32. GGUF's Q4_K.
    Q4K,
    /// 6 bits: as [`Format::Q4K`]. GGUF's Q5_K.
    Q5K,
    /// 6 bits: `s * f * (q - 32)`, `s` in f16 for 256 inputs, `f` in signed 8 bits for 16. GGUF's Q6_K.
    Q6K,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] =
        [Self::Q4Scale32, Self::Q4Min32, Self::Q6Scale32, Self::Q8Scale32, Self::Q4K, Self::Q5K, Self::Q6K];

    /// Name in graphs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4Scale32 => "q4_scale32",
            Self::Q4Min32 => "q4_min32",
            Self::Q6Scale32 => "q6_scale32",
            Self::Q8Scale32 => "q8_scale32",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        }
    }

    /// The format of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Bytes of a packed matrix.
    pub fn packed_len(self, inputs: usize, outputs: usize) -> usize {
        if inputs == 0 { 0 } else { outputs.div_ceil(TILE_COLUMNS) * self.tile(inputs).bytes }
    }

    /// Layout of a tile with `inputs` inputs.
    pub(crate) fn tile(self, inputs: usize) -> TileShape {
        let Parts { quants, group, scales, offsets, .. } = self.parts();
        let blocks = inputs.div_ceil(BLOCK);
        let groups = blocks.div_ceil(group);
        let end = groups * scales;
        let quants_begin = (end + groups * offsets).next_multiple_of(crate::memory::LINE);
        TileShape { blocks, offsets: end, quants: quants_begin, bytes: quants_begin + blocks * quants }
    }

    /// The parts of a tile, for code that runs once a matrix.
    pub(crate) fn parts(self) -> Parts {
        match self {
            Self::Q4Scale32 => Parts::of::<Q4Scale32>(),
            Self::Q4Min32 => Parts::of::<Q4Min32>(),
            Self::Q6Scale32 => Parts::of::<Q6Scale32>(),
            Self::Q8Scale32 => Parts::of::<Q8Scale32>(),
            Self::Q4K => Parts::of::<Q4K>(),
            Self::Q5K => Parts::of::<Q5K>(),
            Self::Q6K => Parts::of::<Q6K>(),
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
    /// Factors of a block; with two, one for each half.
    const FACTORS: usize;

    /// Bytes of the quants of a block of a tile.
    const QUANTS: usize = BLOCK * TILE_COLUMNS * Self::BITS / 8;
    /// Blocks that share a scale.
    const GROUP: usize = if Self::FACTORS == 0 { 1 } else { GROUP_BLOCKS };
    /// Bytes of the scales of a group of a tile, with their factors.
    const SCALES: usize = GROUP_SCALES + Self::GROUP * Self::FACTORS * TILE_COLUMNS;
    /// Bytes of the minimums of a group of a tile, with their factors.
    const OFFSETS: usize = match Self::OFFSET {
        Offset::Middle => 0,
        Offset::Minimum if Self::FACTORS == 0 => GROUP_SCALES,
        Offset::Minimum => GROUP_SCALES + Self::GROUP * TILE_COLUMNS,
    };
}

macro_rules! layouts {
    ($($name:ident: $bits:literal bits, $offset:ident, $factors:literal factors;)*) => {
        $(
            pub(crate) struct $name;

            impl Layout for $name {
                const BITS: usize = $bits;
                const OFFSET: Offset = Offset::$offset;
                const FACTORS: usize = $factors;
            }
        )*
    };
}

layouts! {
    Q4Scale32: 4 bits, Middle, 0 factors;
    Q4Min32: 4 bits, Minimum, 0 factors;
    Q6Scale32: 6 bits, Middle, 0 factors;
    Q8Scale32: 8 bits, Middle, 0 factors;
    Q4K: 4 bits, Minimum, 1 factors;
    Q5K: 6 bits, Minimum, 1 factors;
    Q6K: 6 bits, Middle, 2 factors;
}

/// A [`Layout`] at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) bits: usize,
    pub(crate) minimum: bool,
    pub(crate) factors: usize,
    pub(crate) quants: usize,
    pub(crate) group: usize,
    pub(crate) scales: usize,
    pub(crate) offsets: usize,
}

impl Parts {
    const fn of<L: Layout>() -> Self {
        Self {
            bits: L::BITS,
            minimum: matches!(L::OFFSET, Offset::Minimum),
            factors: L::FACTORS,
            quants: L::QUANTS,
            group: L::GROUP,
            scales: L::SCALES,
            offsets: L::OFFSETS,
        }
    }
}

/// Offsets of a tile's parts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileShape {
    pub(crate) blocks: usize,
    pub(crate) offsets: usize,
    pub(crate) quants: usize,
    pub(crate) bytes: usize,
}
