//! Tensor types (`ggml_type`): values and bytes of a block, and dequantisation.

use half::{bf16, f16};

use super::{blocks, grids, super_blocks, ternary};

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
    Q2_K,
    Q3_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    IQ1_M,
    TQ1_0,
    TQ2_0,
    MXFP4,
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
            10 => Self::Q2_K,
            11 => Self::Q3_K,
            16 => Self::IQ2_XXS,
            17 => Self::IQ2_XS,
            18 => Self::IQ3_XXS,
            19 => Self::IQ1_S,
            20 => Self::IQ4_NL,
            21 => Self::IQ3_S,
            22 => Self::IQ2_S,
            23 => Self::IQ4_XS,
            29 => Self::IQ1_M,
            34 => Self::TQ1_0,
            35 => Self::TQ2_0,
            39 => Self::MXFP4,
            _ => return None,
        })
    }

    /// Values in a block.
    pub(super) fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::IQ4_NL | Self::MXFP4 => blocks::LEN,
            Self::Q4_K | Self::Q5_K | Self::Q6_K | Self::Q2_K | Self::Q3_K | Self::IQ4_XS => super_blocks::LEN,
            Self::IQ2_XXS | Self::IQ2_XS | Self::IQ2_S | Self::IQ3_XXS | Self::IQ3_S => super_blocks::LEN,
            Self::IQ1_S | Self::IQ1_M | Self::TQ1_0 | Self::TQ2_0 => super_blocks::LEN,
        }
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(self) -> usize {
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
            Self::Q2_K => 84,
            Self::Q3_K => 110,
            Self::IQ2_XXS => 66,
            Self::IQ2_XS => 74,
            Self::IQ3_XXS => 98,
            Self::IQ1_S => 50,
            Self::IQ4_NL => 18,
            Self::IQ3_S => 110,
            Self::IQ2_S => 82,
            Self::IQ4_XS => 136,
            Self::IQ1_M => 56,
            Self::TQ1_0 => 54,
            Self::TQ2_0 => 66,
            Self::MXFP4 => 17,
        }
    }

    /// Bits of a quantised value, without scales, rounded up; `None` for floats.
    pub(crate) fn quantised_bits(self) -> Option<u8> {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => None,
            Self::Q2_K | Self::IQ2_XXS | Self::IQ2_XS | Self::IQ2_S => Some(2),
            Self::IQ1_S | Self::IQ1_M | Self::TQ1_0 | Self::TQ2_0 => Some(2),
            Self::Q3_K | Self::IQ3_XXS | Self::IQ3_S => Some(3),
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K | Self::IQ4_NL | Self::IQ4_XS | Self::MXFP4 => Some(4),
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => Some(5),
            Self::Q6_K => Some(6),
            Self::Q8_0 => Some(8),
        }
    }

    /// Dequantises whole blocks.
    pub(crate) fn dequantise(self, bytes: &[u8]) -> Vec<f32> {
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
            Self::Q2_K => super_blocks::q2_k,
            Self::Q3_K => super_blocks::q3_k,
            Self::IQ2_XXS => grids::iq2_xxs,
            Self::IQ2_XS => grids::iq2_xs,
            Self::IQ3_XXS => grids::iq3_xxs,
            Self::IQ1_S => grids::iq1_s,
            Self::IQ4_NL => blocks::iq4_nl,
            Self::IQ3_S => grids::iq3_s,
            Self::IQ2_S => grids::iq2_s,
            Self::IQ4_XS => super_blocks::iq4_xs,
            Self::IQ1_M => grids::iq1_m,
            Self::TQ1_0 => ternary::tq1_0,
            Self::TQ2_0 => ternary::tq2_0,
            Self::MXFP4 => blocks::mxfp4,
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
        15 => "Q8_K",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        40 => "NVFP4",
        41 => "Q1_0",
        42 => "Q2_0",
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
            fixture!(Q2_K),
            fixture!(Q3_K),
            fixture!(IQ2_XXS),
            fixture!(IQ2_XS),
            fixture!(IQ3_XXS),
            fixture!(IQ1_S),
            fixture!(IQ4_NL),
            fixture!(IQ3_S),
            fixture!(IQ2_S),
            fixture!(IQ4_XS),
            fixture!(IQ1_M),
            fixture!(TQ1_0),
            fixture!(TQ2_0),
            fixture!(MXFP4),
        ];
        for (kind, bytes, values) in fixtures {
            assert_eq!(bytes.len() % kind.block_bytes(), 0, "{kind:?}");
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(kind.dequantise(bytes)), bits(TensorType::F32.dequantise(values)), "{kind:?}");
        }
    }

    #[test]
    fn types_of_no_known_layout_are_described() {
        assert_eq!(TensorType::from_code(9), None);
        assert_eq!(
            [9, 24, 40, 200].map(describe),
            ["9 (Q8_1)", "24 (I8)", "40 (NVFP4)", "200, which is not known"].map(str::to_owned)
        );
    }
}
