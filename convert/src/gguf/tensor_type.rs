//! Tensor types (`ggml_type`): values and bytes of a block, and dequantisation.

use half::{bf16, f16};

use super::{blocks, super_blocks};

/// A supported tensor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)] // the names by which everyone knows them
pub(crate) enum TensorType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl TensorType {
    pub(super) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// Values in a block.
    pub(super) fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => blocks::LEN,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => super_blocks::LEN,
        }
    }

    /// Bytes of a block.
    pub(super) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bits of a quantised value, without scales; `None` for floats.
    pub(crate) fn quantised_bits(self) -> Option<u8> {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => None,
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K => Some(4),
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => Some(5),
            Self::Q6_K => Some(6),
            Self::Q8_0 => Some(8),
        }
    }

    /// Dequantises whole blocks.
    pub(super) fn dequantise(self, bytes: &[u8]) -> Vec<f32> {
        let unfold: fn(&[u8], &mut Vec<f32>) = match self {
            Self::F32 => |b, out| out.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Self::F16 => |b, out| out.push(f16::from_le_bytes([b[0], b[1]]).to_f32()),
            Self::BF16 => |b, out| out.push(bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            Self::Q4_0 => blocks::q4_0,
            Self::Q4_1 => blocks::q4_1,
            Self::Q5_0 => blocks::q5_0,
            Self::Q5_1 => blocks::q5_1,
            Self::Q8_0 => blocks::q8_0,
            Self::Q4_K => super_blocks::q4_k,
            Self::Q5_K => super_blocks::q5_k,
            Self::Q6_K => super_blocks::q6_k,
        };
        let mut out = Vec::with_capacity(bytes.len() / self.block_bytes() * self.block_len());
        for block in bytes.chunks_exact(self.block_bytes()) {
            unfold(block, &mut out);
        }
        out
    }
}

/// Number and, if known, name of a type.
pub(super) fn describe(code: u32) -> String {
    let name = match code {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("{code}, which is not known"),
    };
    format!("{code} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks with the values that gguf-py computes; made by `tests/fixtures/make_gguf.py`.
    macro_rules! fixture {
        ($kind:ident) => {
            (
                TensorType::$kind,
                include_bytes!(concat!("../../tests/fixtures/blocks/", stringify!($kind), ".bin")).as_slice(),
                include_bytes!(concat!("../../tests/fixtures/blocks/", stringify!($kind), ".f32")).as_slice(),
            )
        };
    }

    #[test]
    fn every_type_unfolds_to_the_very_values_of_gguf_py() {
        let fixtures = [
            fixture!(F16),
            fixture!(BF16),
            fixture!(Q4_0),
            fixture!(Q4_1),
            fixture!(Q5_0),
            fixture!(Q5_1),
            fixture!(Q8_0),
            fixture!(Q4_K),
            fixture!(Q5_K),
            fixture!(Q6_K),
        ];
        for (kind, bytes, values) in fixtures {
            assert_eq!(bytes.len() % kind.block_bytes(), 0, "{kind:?}");
            assert_eq!(kind.dequantise(bytes), TensorType::F32.dequantise(values), "{kind:?}");
        }
    }
}
