//! Credentials for the server of an artifact.

use std::{fs, path::PathBuf};

use slm_artifacts::Credentials;

use slm_console::exit::Failure;

/// Credentials for the server of an artifact.
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
