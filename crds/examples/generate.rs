//! Writes crds/yaml, and the copy in the chart, from the Rust types.

use std::{error::Error, fs, path::Path};

use slm_crds::schema::Kind;

fn main() -> Result<(), Box<dyn Error>> {
    for folder in ["yaml", "../charts/slm-swarm/crds"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        fs::create_dir_all(&folder)?;
        for kind in Kind::ALL {
            fs::write(folder.join(kind.file_name()), kind.yaml()?)?;
        }
    }
    Ok(())
}
