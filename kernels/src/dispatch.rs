//! Dispatch: the compiled kernel for a number of rows, by instruction set and format.
#![allow(unsafe_code)] // Functions of an instruction set are unsafe to call; this file only names them.

use crate::{
    format::{self, Format, Layout},
    isa::{Isa, Pass, pass},
    level::Level,
    portable::Portable,
};

/// A compiled [`pass`].
pub(crate) type Kernel = unsafe fn(&Pass);

/// A kernel and its shape.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    /// Rows it takes.
    pub(crate) rows: usize,
    /// Columns it takes.
    pub(crate) columns: usize,
    pub(crate) kernel: Kernel,
}

impl Choice {
    /// The kernel of `level` for the next of the `rows` rows (at least one) left in a panel.
    pub(crate) fn of(level: Level, format: Format, rows: usize) -> Self {
        match format {
            Format::Q4Scale32 => Self::with::<format::Q4Scale32>(level, rows),
            Format::Q4Min32 => Self::with::<format::Q4Min32>(level, rows),
            Format::Q6Scale32 => Self::with::<format::Q6Scale32>(level, rows),
            Format::Q8Scale32 => Self::with::<format::Q8Scale32>(level, rows),
            Format::Q4K => Self::with::<format::Q4K>(level, rows),
            Format::Q5K => Self::with::<format::Q5K>(level, rows),
            Format::Q6K => Self::with::<format::Q6K>(level, rows),
        }
    }

    fn with<L: Layout>(level: Level, rows: usize) -> Self {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::avx2::<L>(rows),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => x86::avx_vnni::<L>(rows),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => x86::avx512_vnni::<L>(rows),
            #[cfg(target_arch = "aarch64")]
            Level::NeonI8mm => aarch64::neon_i8mm::<L>(rows),
            _ => portable::<L>(rows),
        }
    }

    #[allow(dead_code)] // Portable is the only set on some architectures.
    fn new<I: Isa, const V: usize, const R: usize>(kernel: Kernel) -> Self {
        Self { rows: R, columns: V * I::LANES, kernel }
    }
}

fn portable<L: Layout>(rows: usize) -> Choice {
    unsafe fn run<L: Layout, const R: usize>(p: &Pass) {
        // SAFETY: passed on; needs no instruction set.
        unsafe { pass::<Portable, L, 1, R>(p) }
    }
    match rows {
        1..4 => Choice::new::<Portable, 1, 1>(run::<L, 1>),
        _ => Choice::new::<Portable, 1, 4>(run::<L, 4>),
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use crate::{avx2::Avx2, avx512::Avx512Vnni, vnni::AvxVnni};

    /// Kernels for sixteen registers. With few rows a pass takes both halves of a tile: activations are broadcast half
    /// as often, and memory is read in order. From six rows on, the weights of a block stay in registers while rows
    /// pass by; the more rows, the more often an unpacked weight is used. Sizes in between were slower than two smaller
    /// ones.
    macro_rules! sixteen_registers {
        ($name:ident, $isa:ident, $features:literal) => {
            pub(super) fn $name<L: Layout>(rows: usize) -> Choice {
                #[target_feature(enable = $features)]
                unsafe fn run<L: Layout, const V: usize, const R: usize>(p: &Pass) {
                    // SAFETY: passed on; the caller vouches for the instruction set.
                    unsafe { pass::<$isa, L, V, R>(p) }
                }
                if L::FACTORS == 2 {
                    // Sums of a half stand beside those of the block, so there is room for fewer rows.
                    return match rows {
                        1 => Choice::new::<$isa, 2, 1>(run::<L, 2, 1>),
                        2 => Choice::new::<$isa, 2, 2>(run::<L, 2, 2>),
                        3 => Choice::new::<$isa, 1, 3>(run::<L, 1, 3>),
                        _ => Choice::new::<$isa, 1, 4>(run::<L, 1, 4>),
                    };
                }
                match rows {
                    1 => Choice::new::<$isa, 2, 1>(run::<L, 2, 1>),
                    2 => Choice::new::<$isa, 2, 2>(run::<L, 2, 2>),
                    3 => Choice::new::<$isa, 2, 3>(run::<L, 2, 3>),
                    4 | 7 | 8 => Choice::new::<$isa, 2, 4>(run::<L, 2, 4>),
                    5 | 9 | 10 => Choice::new::<$isa, 2, 5>(run::<L, 2, 5>),
                    6 | 11 => Choice::new::<$isa, 1, 6>(run::<L, 1, 6>),
                    _ => Choice::new::<$isa, 1, 12>(run::<L, 1, 12>),
                }
            }
        };
    }
    sixteen_registers!(avx2, Avx2, "avx2,fma,f16c");
    sixteen_registers!(avx_vnni, AvxVnni, "avx2,fma,f16c,avxvnni");

    /// Kernels for thirty-two registers: twelve vectors, enough chains of `dpbusd` to hide its latency.
    pub(super) fn avx512_vnni<L: Layout>(rows: usize) -> Choice {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        unsafe fn run<L: Layout, const R: usize>(p: &Pass) {
            // SAFETY: passed on; the caller vouches for the instruction set.
            unsafe { pass::<Avx512Vnni, L, 1, R>(p) }
        }
        // Sums of a half stand beside those of the block, so there is room for fewer rows.
        let rows = if L::FACTORS == 2 { rows.min(8) } else { rows };
        match rows {
            1 => Choice::new::<Avx512Vnni, 1, 1>(run::<L, 1>),
            2 => Choice::new::<Avx512Vnni, 1, 2>(run::<L, 2>),
            3 => Choice::new::<Avx512Vnni, 1, 3>(run::<L, 3>),
            4 | 5 => Choice::new::<Avx512Vnni, 1, 4>(run::<L, 4>),
            6 | 7 => Choice::new::<Avx512Vnni, 1, 6>(run::<L, 6>),
            8..12 => Choice::new::<Avx512Vnni, 1, 8>(run::<L, 8>),
            _ => Choice::new::<Avx512Vnni, 1, 12>(run::<L, 12>),
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::*;
    use crate::neon::NeonI8mm;

    /// Kernels for thirty-two registers of four floats; rows in pairs, except for a single one.
    pub(super) fn neon_i8mm<L: Layout>(rows: usize) -> Choice {
        #[target_feature(enable = "neon,dotprod,i8mm")]
        unsafe fn run<L: Layout, const V: usize, const R: usize>(p: &Pass) {
            // SAFETY: passed on; the caller vouches for the instruction set.
            unsafe { pass::<NeonI8mm, L, V, R>(p) }
        }
        match rows {
            1 => Choice::new::<NeonI8mm, 4, 1>(run::<L, 4, 1>),
            2 | 3 => Choice::new::<NeonI8mm, 4, 2>(run::<L, 4, 2>),
            _ => Choice::new::<NeonI8mm, 2, 4>(run::<L, 2, 4>),
        }
    }
}
