//! The attribute `formats` of a packed matrix: format and outputs of each part, such as `q4_k:576,q6_k:192`.

use slm_kernels::Format;

/// The attribute.
pub(super) fn formats_of(parts: &[(Format, usize)]) -> String {
    let parts: Vec<_> = parts.iter().map(|(format, outputs)| format!("{}:{outputs}", format.name())).collect();
    parts.join(",")
}

/// The parts that the attribute names; `None` for one that no converter writes.
#[must_use]
pub fn part_formats(formats: &str) -> Option<Vec<(Format, usize)>> {
    let part = |part: &str| {
        let (format, outputs) = part.split_once(':')?;
        Some((Format::by_name(format)?, outputs.parse().ok()?))
    };
    formats.split(',').map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let parts: Vec<_> = Format::ALL.into_iter().zip([16, 32, 576].into_iter().cycle()).collect();
        assert_eq!(part_formats(&formats_of(&parts)), Some(parts));
        for wrong in ["", "q4_k", "q4_k:", "q4_k:x", "q5:16", "q4_k:16,"] {
            assert_eq!(part_formats(wrong), None, "{wrong}");
        }
    }
}
