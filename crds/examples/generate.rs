//! Writes crds/yaml from the Rust types.

use std::{error::Error, fs, path::Path};

use slm_crds::schema::Kind;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    fs::create_dir_all(&folder)?;
    for kind in Kind::ALL {
        fs::write(folder.join(kind.file_name()), kind.yaml()?)?;
    }
    Ok(())
}
