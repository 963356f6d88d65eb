//! Instruction sets of the CPU.

/// Instruction sets that kernels are compiled for. All give the same bits, except where a function says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Any CPU.
    Portable,
    /// x86-64 with AVX2, FMA and F16C (since 2013).
    Avx2,
    /// x86-64 with AVX-VNNI beside AVX2: Alder Lake, Sierra Forest, Zen 5 and later.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, VL and VNNI: Cascade Lake, Zen 4 and later.
    Avx512Vnni,
    /// AArch64 with I8MM and dot products: Neoverse V1 and N2, Apple M2 and later.
    NeonI8mm,
}

impl Level {
    /// Every level, the best last.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::AvxVnni, Self::Avx512Vnni, Self::NeonI8mm];

    /// Whether this CPU can run the level.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = || has!("avx2") && has!("fma") && has!("f16c");
        match self {
            Self::Portable => true,
            Self::Avx2 => avx2(),
            Self::AvxVnni => avx2() && has!("avxvnni"),
            Self::Avx512Vnni => avx2() && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni"),
            Self::NeonI8mm => false,
        }
    }

    /// Whether this CPU can run the level.
    #[cfg(target_arch = "aarch64")]
    pub fn is_available(self) -> bool {
        use std::arch::is_aarch64_feature_detected as has;
        match self {
            Self::Portable => true,
            Self::NeonI8mm => has!("neon") && has!("dotprod") && has!("i8mm"),
            _ => false,
        }
    }

    /// Whether this CPU can run the level.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn is_available(self) -> bool {
        self == Self::Portable
    }

    /// All levels this CPU can run, the best last.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// The best level this CPU can run.
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }
}
