//! Checks of a model: whether it would run, its memory, and the speed that the memory's bandwidth allows.

use std::{path::Path, thread};

use slm_convert::{Checkpoint, bundle::PrecisionChoice, estimate::Estimate, graph::Precision};
use slm_kernels::{attention::PAGE, roofline::read_bandwidth};
use slm_launch::size;
use slm_worker::{
    model::{CONTEXT_LENGTH_DEFAULT_MAX, available_threads},
    runtime::{page_bytes, state_bytes},
};

use super::{Check, machine::memory_left};

/// Bytes that each thread reads to measure the bandwidth: several times a last cache.
const READ_BYTES: usize = 128 << 20;
/// Memory of a worker beside weights and KV cache: ONNX Runtime, activations, tokenizer.
const BESIDE_BYTES: u64 = 200 << 20;

/// Checks of the model at `path`.
pub(super) fn checks(path: &Path) -> Vec<Check> {
    let checkpoint = match Checkpoint::open(path) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return vec![Check::fail("model", error.to_string(), "docs/models.md lists what is served")],
    };
    let precision = PrecisionChoice::Auto.resolve(&checkpoint);
    let estimate = Estimate::of(&checkpoint, precision);
    let mut checks = vec![architecture(&checkpoint, &estimate), tokenizer(&checkpoint), chat_template(&checkpoint)];
    checks.extend(checkpoint.notes().into_iter().map(|note| Check::warn("note", note, "see docs/models.md")));
    checks.extend([precision_of(precision), memory(&checkpoint, precision, &estimate), speed(&estimate)]);
    checks
}

fn architecture(checkpoint: &Checkpoint, estimate: &Estimate) -> Check {
    let model = checkpoint.architecture();
    let types: Vec<_> = estimate.types.iter().map(|(kind, tensors)| format!("{tensors} {kind}")).collect();
    let millions = estimate.parameters as f64 / 1e6;
    let (layers, trained) = (model.layers.len(), model.context_length);
    let types = types.join(", ");
    Check::ok(
        "model",
        format!(
            "{}: {millions:.0} million parameters, {layers} layers, context {trained}; tensors: {types}",
            model.family
        ),
    )
}

fn tokenizer(checkpoint: &Checkpoint) -> Check {
    match checkpoint.tokenizer() {
        Ok(Some(tokenizer)) => Check::ok("tokenizer", format!("{} tokens", tokenizer.get_vocab_size(true))),
        Ok(None) => {
            Check::warn("tokenizer", "none", "requests have to send token ids; put tokenizer.json beside the weights")
        }
        Err(error) => {
            Check::fail("tokenizer", error.to_string(), "replace the file: a worker refuses the model with it")
        }
    }
}

fn chat_template(checkpoint: &Checkpoint) -> Check {
    match checkpoint.chat_template() {
        Ok(Some(_)) => Check::ok("chat template", "there"),
        Ok(None) => Check::warn("chat template", "none", "chat requests are refused; completions work"),
        Err(error) => {
            Check::fail("chat template", error.to_string(), "mend the template: a worker refuses the model with it")
        }
    }
}

fn precision_of(precision: Precision) -> Check {
    match precision {
        Precision::F32 => Check::warn(
            "precision",
            "F32, as the file has floats",
            "`spec.runtime.precision: Int8` or `Int4` is several times faster and smaller",
        ),
        quantised => Check::ok("precision", format!("{quantised}, as the file's own weights")),
    }
}

fn memory(checkpoint: &Checkpoint, precision: Precision, estimate: &Estimate) -> Check {
    let model = checkpoint.architecture();
    let context = model.context_length.min(CONTEXT_LENGTH_DEFAULT_MAX);
    let kv = (page_bytes(model, precision) * context.div_ceil(PAGE)) as u64;
    let states = state_bytes(model) as u64;
    let needed = estimate.weight_bytes + kv + states + BESIDE_BYTES;
    let of_states = if states > 0 { format!(" and {} of states", size(states)) } else { String::new() };
    let found = format!(
        "{} of weights, {} of KV cache{of_states} for each sequence of {context} tokens, about {} beside",
        size(estimate.weight_bytes),
        size(kv),
        size(BESIDE_BYTES)
    );
    match memory_left() {
        Some(left) if left < needed => {
            let remedy = format!("only {} is available: free some, or choose a smaller model or precision", size(left));
            Check::fail("memory needed", found, remedy)
        }
        _ => Check::ok("memory needed", found),
    }
}

/// At best, a step for one sequence takes as long as its weights take to be read.
fn speed(estimate: &Estimate) -> Check {
    let threads = available_threads();
    let bandwidth: f64 = thread::scope(|scope| {
        let reading: Vec<_> = (0..threads).map(|_| scope.spawn(|| read_bandwidth(READ_BYTES, 3))).collect();
        reading.into_iter().filter_map(|thread| thread.join().ok()).sum()
    });
    let read = estimate.weight_bytes.saturating_sub(estimate.unread_bytes).max(1);
    let tokens = bandwidth / read as f64;
    Check::ok(
        "speed",
        format!(
            "at most {tokens:.0} tokens/s for one stream: {} a step at {:.1} GB/s; more streams share the reads",
            size(read),
            bandwidth / 1e9
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_model_is_described() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/parity/data/llama");
        let checks = checks(&path);
        let of = |name: &str| checks.iter().find(|check| check.name == name).expect(name);
        assert!(of("model").found.starts_with("llama: 0 million parameters, 2 layers, context 256; tensors: "));
        assert_eq!((of("tokenizer").verdict, of("precision").verdict), (Verdict::Warn, Verdict::Warn));
        assert!(of("speed").found.contains("tokens/s"), "{checks:?}");
    }

    #[test]
    fn states_of_sequences_are_memory_too() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/parity/data/qwen3_5");
        let checks = checks(&path);
        let memory = checks.iter().find(|check| check.name == "memory needed").expect("memory");
        assert!(memory.found.contains(" of states for each sequence of 256 tokens"), "{memory:?}");
    }

    #[test]
    fn what_is_no_model_fails_with_the_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let checks = checks(folder.path());
        assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Fail), "{checks:?}");
    }
}
