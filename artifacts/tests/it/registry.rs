//! The registry `distribution`, as `scripts/setup registry` builds it, and a client that pushes.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use reqwest::{Client, header};
use serde_json::{Value, json};

use crate::common::{built, sha256};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const USER: (&str, &str) = ("alice", "secret");
/// bcrypt of that password.
const HTPASSWD: &str = "alice:$2a$04$yPsUXzzalmNCuXwitVCIFePFf2nf84FN8flrztbVFLO4FwVkjPvEm\n";

/// A registry with a folder of its own, which ends with it.
pub struct Registry {
    pub host: String,
    dir: tempfile::TempDir,
    child: Child,
    client: Client,
    password: bool,
}

impl Registry {
    pub fn start() -> Self {
        Self::launch(false)
    }

    /// One that wants name and password.
    pub fn with_password() -> Self {
        Self::launch(true)
    }

    fn launch(password: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let htpasswd = dir.path().join("htpasswd");
        fs::write(&htpasswd, HTPASSWD).unwrap();
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": dir.path().join("data")}},
            "http": {"addr": "127.0.0.1:0", "secret": "of no use to anyone"},
        });
        if password {
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": htpasswd}});
        }
        // JSON is YAML.
        let path = dir.path().join("config.yml");
        fs::write(&path, config.to_string()).unwrap();
        let mut child = Command::new(built("registry", "registry"))
            .args(["serve".as_ref(), path.as_os_str()])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let host = loop {
            let before = said.len();
            assert!(log.read_line(&mut said).unwrap() > 0, "the registry ended:\n{said}");
            if let Some((_, rest)) = said[before..].split_once("listening on ") {
                break rest.split(['"', ',']).next().unwrap().to_owned();
            }
        };
        // Nobody may wait for a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { host, dir, child, client: Client::new(), password }
    }

    pub fn uri(&self, reference: &str) -> String {
        format!("oci://{}/{reference}", self.host)
    }

    /// Pushes a blob and gives its descriptor.
    pub async fn blob(&self, repository: &str, media_type: &str, content: &[u8], annotations: Value) -> Value {
        let start = format!("http://{}/v2/{repository}/blobs/uploads/", self.host);
        let started = self.authorized(self.client.post(start)).send().await.unwrap().error_for_status().unwrap();
        let location = started.headers()[header::LOCATION].to_str().unwrap();
        let to = started.url().join(location).unwrap();
        let put = self.client.put(to).query(&[("digest", sha256(content))]).body(content.to_vec());
        self.authorized(put).send().await.unwrap().error_for_status().unwrap();
        let (digest, size) = (sha256(content), content.len());
        json!({"mediaType": media_type, "digest": digest, "size": size, "annotations": annotations})
    }

    /// Pushes a manifest of those layers and gives its descriptor.
    pub async fn artifact(&self, repository: &str, tag: &str, layers: Vec<Value>) -> Value {
        let config = self.blob(repository, "application/vnd.oci.empty.v1+json", b"{}", json!({})).await;
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
                              "artifactType": "application/vnd.example.model"});
        self.manifest(repository, tag, MANIFEST, &manifest).await
    }

    pub async fn manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: &Value) -> Value {
        let body = manifest.to_string();
        let to = format!("http://{}/v2/{repository}/manifests/{tag}", self.host);
        let put = self.client.put(to).header(header::CONTENT_TYPE, media_type).body(body.clone());
        self.authorized(put).send().await.unwrap().error_for_status().unwrap();
        json!({"mediaType": media_type, "digest": sha256(body.as_bytes()), "size": body.len()})
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        if self.password { request.basic_auth(USER.0, Some(USER.1)) } else { request }
    }

    /// The file that a blob is kept in, for a registry that is to lie.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.dir.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
