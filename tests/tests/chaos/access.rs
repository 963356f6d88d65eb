//! Tokens of three tenants, and a certificate for their endpoint.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

/// Tokens of the two tenants that work.
pub(crate) const TENANTS: [&str; 2] = ["alice-0123456789abcdef", "bob-0123456789abcdef"];
/// Token of the third.
pub(crate) const MALLORY: &str = "mallory-0123456789abcdef";

/// What the router is given.
pub(crate) struct Access {
    folder: TempDir,
    pem: String,
}

impl Access {
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let pem = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?.pem();
        let folder = tempfile::tempdir()?;
        let tokens = format!(
            "- name: alice\n  token: {}\n- name: bob\n  token: {}\n- name: mallory\n  token: {MALLORY}\n",
            TENANTS[0], TENANTS[1]
        );
        for (name, text) in [("tls.crt", &pem), ("tls.key", &key.serialize_pem()), ("tokens.yaml", &tokens)] {
            fs::write(folder.path().join(name), text)?;
        }
        Ok(Self { folder, pem })
    }

    pub(crate) fn path_text(&self) -> Result<&str> {
        Path::to_str(self.folder.path()).context("a path that is not UTF-8")
    }

    pub(crate) fn certificate(&self) -> &str {
        &self.pem
    }
}
