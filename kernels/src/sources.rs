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

    /// A block of GGUF's type Q4_0, for [`Format::Q4Scale32`](crate::Format::Q4Scale32).
    pub fn from_q4_0(bytes: &[u8; Self::Q4_0_BYTES]) -> Self {
        Self { scale: half([bytes[0], bytes[1]]), offset: 0.0, quants: nibbles(&bytes[2..]) }
    }

    /// A block of GGUF's type Q4_1, for [`Format::Q4Min32`](crate::Format::Q4Min32).
    pub fn from_q4_1(bytes: &[u8; Self::Q4_1_BYTES]) -> Self {
        let (scale, offset) = (half([bytes[0], bytes[1]]), half([bytes[2], bytes[3]]));
        Self { scale, offset, quants: nibbles(&bytes[4..]) }
    }

    /// A block of GGUF's type Q8_0, for [`Format::Q8Scale32`](crate::Format::Q8Scale32).
    pub fn from_q8_0(bytes: &[u8; Self::Q8_0_BYTES]) -> Self {
        let mut quants = [0; BLOCK];
        for (quant, byte) in quants.iter_mut().zip(&bytes[2..]) {
            *quant = byte ^ 0x80;
        }
        Self { scale: half([bytes[0], bytes[1]]), offset: 0.0, quants }
    }
}
