//! The YAML beside the types, and in the chart, is what the types make.

use std::{fs, path::Path};

use slm_crds::schema::Kind;

#[test]
fn yaml_is_current() {
    for folder in ["yaml", "../charts/slm-swarm/crds"] {
        for kind in Kind::ALL {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(kind.file_name());
            let written = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(
                written,
                kind.yaml().expect("a CRD is YAML"),
                "{} differs from crds/src: make generate",
                path.display()
            );
        }
    }
}
