//! Checks of the processor and the memory.

use std::fs;

use slm_kernels::Level;
use slm_launch::size;
use slm_worker::model::available_threads;

use super::Check;

/// Memory below which a check warns. The quickstart takes about half of it: weights, cache and two processes.
const MEMORY_BYTES_MIN: u64 = 1 << 30;

/// The processor's name.
pub(super) fn processor() -> Check {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpu_name(&text).unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    Check::ok("processor", name)
}

fn cpu_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The vector instructions that the kernels use.
pub(super) fn instructions() -> Check {
    let found = format!("kernels: {:?}; the processor has {}", Level::best(), features());
    if Level::best() == Level::Portable {
        return Check::warn(
            "instructions",
            found,
            "it will work, slowly: AVX2 or better makes it several times faster",
        );
    }
    Check::ok("instructions", found)
}

#[cfg(target_arch = "x86_64")]
fn features() -> String {
    use std::arch::is_x86_feature_detected as has;
    let features = [
        ("avx2", has!("avx2")),
        ("fma", has!("fma")),
        ("f16c", has!("f16c")),
        ("avx-vnni", has!("avxvnni")),
        ("avx512f", has!("avx512f")),
        ("avx512-vnni", has!("avx512vnni")),
        ("avx512-bf16", has!("avx512bf16")),
    ];
    let there: Vec<&str> = features.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    if there.is_empty() { "none of the vector extensions we use".to_owned() } else { there.join(", ") }
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> String {
    std::env::consts::ARCH.to_owned()
}

/// The cores that affinity and cgroup leave to this process.
pub(super) fn cores() -> Check {
    let allowed = available_threads();
    let online = fs::read_to_string("/proc/cpuinfo")
        .map(|text| text.lines().filter(|line| line.starts_with("processor")).count())
        .unwrap_or(allowed);
    if allowed < online {
        let found = format!("{allowed} of {online}: affinity or a cgroup keeps the others from this process");
        return Check::ok("cores", found);
    }
    Check::ok("cores", allowed.to_string())
}

/// Bytes of memory that the system and the cgroup leave to this process; `None` where Linux does not say.
pub(super) fn memory_left() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let available = available(&read("/proc/meminfo"))?;
    let limit = read("/sys/fs/cgroup/memory.max").trim().parse::<u64>().ok();
    let used = read("/sys/fs/cgroup/memory.current").trim().parse::<u64>().ok();
    Some(limit.map_or(available, |limit| available.min(limit.saturating_sub(used.unwrap_or(0)))))
}

/// The memory that the system and the cgroup leave to this process.
pub(super) fn memory() -> Check {
    let Some(left) = memory_left() else {
        return Check::warn("memory", "unknown", "could not read /proc/meminfo");
    };
    let found = format!("{} available", size(left));
    if left < MEMORY_BYTES_MIN {
        let remedy = format!("a worker of the quickstart needs up to {}: free some", size(MEMORY_BYTES_MIN));
        return Check::warn("memory", found, remedy);
    }
    Check::ok("memory", found)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_says() {
        assert_eq!(cpu_name("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n").as_deref(), Some("Some CPU @ 3 GHz"));
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available(""), None);
    }
}
