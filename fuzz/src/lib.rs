//! What the targets share: a folder to read from, and panics that end a run only where nothing contains them.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::LazyLock,
};

use slm_convert::Checkpoint;
use tempfile::TempDir;

/// A folder in memory where the machine has one: every input is written to it.
pub static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a temporary folder")
});

/// libFuzzer's hook ends the process at every panic, also at one that our code catches and reports as an error. With
/// this hook only a panic that reaches the target ends it.
pub fn contain_panics() {
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
}

/// Writes files into [`FOLDER`], over those of the run before.
pub fn write(files: &[(&str, &[u8])]) -> PathBuf {
    for (name, bytes) in files {
        fs::write(FOLDER.path().join(name), bytes).expect("a file in the temporary folder");
    }
    FOLDER.path().to_owned()
}

/// Reads all that a worker reads of a checkpoint before its graph is built.
pub fn read_all(checkpoint: &Checkpoint) {
    let _ = checkpoint.notes();
    let _ = checkpoint.generation();
    let _ = checkpoint.digest();
    let _ = checkpoint.chat_template();
    if let Ok(Some(tokenizer)) = checkpoint.tokenizer() {
        // A worker contains what the library does with such a tokenizer, as an error of the request.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let encoding = tokenizer.encode("Hello world, 今日は!\n", true)?;
            tokenizer.decode(encoding.get_ids(), false)
        }));
    }
    for name in ["embed_tokens", "norm", "layers.0.self_attn.q_proj", "layers.0.mlp.down_proj", "layers.1.input_layernorm"]
    {
        let _ = checkpoint.tensor(&format!("model.{name}.weight"));
    }
}
