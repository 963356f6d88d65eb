//! Blocks of weights that are quantised already: no value is rounded again.

use half::f16;

use crate::{format::BLOCK, pack::Block};

fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32_const()
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

impl Block {
    /// Bytes of a block of GGUF's type Q4_0.
    pub const Q4_0_BYTES: usize = 18;
    /// Bytes of a block of GGUF's type Q4_1.
    pub const Q4_1_BYTES: usize = 20;
    /// Bytes of a block of GGUF's type Q8_0.
    pub const Q8_0_BYTES: usize = 34;
    /// Bytes of a block of GGUF's type Q5_0.
    pub const Q5_0_BYTES: usize = 22;
    /// Bytes of a block of GGUF's type Q4_K.
    pub const Q4_K_BYTES: usize = 144;
    /// Bytes of a block of GGUF's type Q5_K.
    pub const Q5_K_BYTES: usize = 176;
    /// Bytes of a block of GGUF's type Q6_K.
    pub const Q6_K_BYTES: usize = 210;
    /// Inputs of a block of GGUF's K types: [`Block::K_BLOCKS`] of ours.
    pub const K_INPUTS: usize = 256;
    /// Blocks of ours in a block of GGUF's K types.
    pub const K_BLOCKS: usize = Self::K_INPUTS / BLOCK;

    /// A block of GGUF's type Q4_0, for [`Format::Q4Scale32`](crate::Format::Q4Scale32).
    pub fn from_q4_0(bytes: &[u8; Self::Q4_0_BYTES]) -> Self {
        Self::new(half([bytes[0], bytes[1]]), 0.0, nibbles(&bytes[2..]))
    }

    /// A block of GGUF's type Q4_1, for [`Format::Q4Min32`](crate::Format::Q4Min32).
    pub fn from_q4_1(bytes: &[u8; Self::Q4_1_BYTES]) -> Self {
        let (scale, offset) = (half([bytes[0], bytes[1]]), half([bytes[2], bytes[3]]));
        Self::new(scale, offset, nibbles(&bytes[4..]))
    }

    /// A block of GGUF's type Q8_0, for [`Format::Q8Scale32`](crate::Format::Q8Scale32).
    pub fn from_q8_0(bytes: &[u8; Self::Q8_0_BYTES]) -> Self {
        let mut quants = [0; BLOCK];
        for (quant, byte) in quants.iter_mut().zip(&bytes[2..]) {
            *quant = byte ^ 0x80;
        }
        Self::new(half([bytes[0], bytes[1]]), 0.0, quants)
    }

    /// A block of GGUF's type Q5_0, for [`Format::Q6Scale32`](crate::Format::Q6Scale32).
    pub fn from_q5_0(bytes: &[u8; Self::Q5_0_BYTES]) -> Self {
        let high = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
        let mut quants = nibbles(&bytes[6..]);
        for (i, quant) in quants.iter_mut().enumerate() {
            // Stored as a number of five bits less 16; ours is one of six less 32.
            *quant = (*quant | (((high >> i) & 1) as u8) << 4) + 16;
        }
        Self::new(half([bytes[0], bytes[1]]), 0.0, quants)
    }

    /// Part `sub` of a block of GGUF's type Q4_K, for [`Format::Q4K`](crate::Format::Q4K).
    pub fn from_q4_k(bytes: &[u8; Self::Q4_K_BYTES], sub: usize) -> Self {
        with_minimum(bytes, sub, sub_nibbles(&bytes[16..], sub))
    }

    /// Part `sub` of a block of GGUF's type Q5_K, for [`Format::Q5K`](crate::Format::Q5K).
    pub fn from_q5_k(bytes: &[u8; Self::Q5_K_BYTES], sub: usize) -> Self {
        let mut quants = sub_nibbles(&bytes[48..], sub);
        // The fifth bits of part `sub` are bit `sub` of 32 bytes.
        for (quant, high) in quants.iter_mut().zip(&bytes[16..48]) {
            *quant |= (high >> sub & 1) << 4;
        }
        with_minimum(bytes, sub, quants)
    }

    /// Part `sub` of a block of GGUF's type Q6_K, for [`Format::Q6K`](crate::Format::Q6K).
    pub fn from_q6_k(bytes: &[u8; Self::Q6_K_BYTES], sub: usize) -> Self {
        // Of each 128 inputs: 64 bytes of nibbles, the low ones first, and 32 bytes of four pairs of bits each.
        let (side, quarter) = (sub / (Self::K_BLOCKS / 2), sub % (Self::K_BLOCKS / 2));
        let low = &bytes[64 * side + 32 * (quarter % 2)..][..BLOCK];
        let high = &bytes[128 + 32 * side..][..BLOCK];
        let mut quants = [0; BLOCK];
        for (quant, (low, high)) in quants.iter_mut().zip(low.iter().zip(high)) {
            *quant = (low >> (quarter / 2 * 4) & 15) | (high >> (2 * quarter) & 3) << 4;
        }
        let factors = [0, 1].map(|half| bytes[192 + 2 * sub + half].cast_signed());
        Self { factors, ..Self::new(half([bytes[208], bytes[209]]), 0.0, quants) }
    }
}

/// Part `sub` of a block of type Q4_K or Q5_K: `scale: f16, minimum: f16, factors: [u8; 12]`, minimums subtracted.
fn with_minimum(bytes: &[u8], sub: usize, quants: [u8; BLOCK]) -> Block {
    let (scale, minimum) = six_bits(&bytes[4..16], sub);
    let factors = [scale.cast_signed(); 2];
    let block = Block::new(half([bytes[0], bytes[1]]), -half([bytes[2], bytes[3]]), quants);
    Block { factors, offset_factor: minimum, ..block }
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
