//! Arguments of everything that fetches artifacts.

use std::{fs, path::PathBuf};

use slm_artifacts::{Credentials, FetchError, Store, StoreConfig};

use crate::{args::CacheArgs, exit::Failure};

/// Where artifacts are kept, and how their servers are reached.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreArgs {
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Size of the folder `artifacts` in the cache, such as 20GiB; what was used longest ago makes room [default: no
    /// bound].
    #[arg(long, value_name = "SIZE", env = "SLM_ARTIFACTS_MAX", value_parser = bytes)]
    artifacts_max: Option<u64>,
    /// Folder at which PersistentVolumeClaims are mounted, each under its name.
    #[arg(long, value_name = "DIR", env = "SLM_PVC_ROOT", default_value = slm_artifacts::PVC_ROOT)]
    pvc_root: PathBuf,
    /// HOST or HOST:PORT that may be reached without TLS; may be given several times.
    #[arg(long, value_name = "HOST", env = "SLM_INSECURE_HOSTS", value_delimiter = ',')]
    insecure_host: Vec<String>,
    /// PEM certificates to trust besides those of the system.
    #[arg(long, value_name = "FILE", env = "SLM_CA_FILE")]
    ca_file: Option<PathBuf>,
}

/// Who asks.
#[derive(Clone, Debug, clap::Args)]
pub struct CredentialArgs {
    /// Credentials by host: the config.json of docker and podman, or .dockerconfigjson of a Kubernetes secret.
    #[arg(long, value_name = "FILE", env = "SLM_DOCKER_CONFIG", conflicts_with_all = ["username", "token_file"])]
    docker_config: Option<PathBuf>,
    /// A name, with --password-file.
    #[arg(long, value_name = "NAME", requires = "password_file", conflicts_with = "token_file")]
    username: Option<String>,
    /// File with the password of --username.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// File with a bearer token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl StoreArgs {
    /// How the store is to be opened.
    pub fn config(&self) -> Result<StoreConfig, Failure> {
        Ok(StoreConfig {
            bytes_max: self.artifacts_max,
            pvc_root: self.pvc_root.clone(),
            insecure_hosts: self.insecure_host.clone(),
            ca_file: self.ca_file.clone(),
            ..StoreConfig::new(self.cache.root()?.join("artifacts"))
        })
    }

    /// Opens the store.
    pub fn open(&self) -> Result<Store, Failure> {
        Store::open(self.config()?).map_err(failure)
    }
}

impl CredentialArgs {
    /// Reads them. Secrets come from files: arguments can be seen by everyone on the machine.
    pub fn read(&self) -> Result<Option<Credentials>, Failure> {
        let read = |path: &PathBuf| {
            fs::read_to_string(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
        };
        // Files made by hand end with a line break, which no secret does.
        let line = |path: &PathBuf| read(path).map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
        if let Some(path) = &self.docker_config {
            let config = Credentials::from_docker_config(&read(path)?);
            return config.map(Some).map_err(|error| Failure::usage(format!("{}: {error}", path.display())));
        }
        if let Some(path) = &self.token_file {
            return Ok(Some(Credentials::Bearer(line(path)?)));
        }
        match (&self.username, &self.password_file) {
            (Some(username), Some(path)) => {
                Ok(Some(Credentials::Basic { username: username.clone(), password: line(path)? }))
            }
            _ => Ok(None),
        }
    }
}

/// What makes no sense is wrong usage.
pub fn failure(error: FetchError) -> Failure {
    let message = format!("{}: {error}", error.reason());
    match error {
        FetchError::BadReference { .. } => Failure::Usage(message),
        _ => Failure::Failed(message),
    }
}

/// Bytes, or a number with KiB, MiB, GiB or TiB.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let expected = "expected a number of bytes, or one with KiB, MiB, GiB or TiB, such as 20GiB";
    let amount: u64 = digits.trim_end().parse().map_err(|_| expected.to_owned())?;
    let shift = match &text[digits.len()..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(expected.to_owned()),
    };
    amount.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("100"), Ok(100));
        assert_eq!(bytes("20GiB"), Ok(20 << 30));
        for wrong in ["", "0", "GiB", "20GB", "-1", "99999999999TiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
