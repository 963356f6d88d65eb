//! Arguments of the artifact cache and of its sources.

use std::{ffi::OsString, path::PathBuf};

use crate::units::bytes;

/// Folder at which PersistentVolumeClaims are mounted in a worker's pod, each under its name.
pub const PVC_ROOT: &str = "/var/lib/slm-swarm/pvc";

/// Server of `hf:` sources.
pub const HUB_ENDPOINT: &str = "https://huggingface.co";

/// The cache folder of converted models and downloads.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct CacheArgs {
    /// Folder of converted models and of what set-up fetched [default: slm-swarm in $XDG_CACHE_HOME or ~/.cache].
    #[arg(long, value_name = "DIR", env = "SLM_CACHE_DIR")]
    pub cache: Option<PathBuf>,
}

/// The artifact cache, and access to the servers of artifacts.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct StoreArgs {
    /// The cache folder.
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Size of the folders `artifacts` and `converted` in the cache together, such as 20GiB; what was used longest ago makes
    /// room [default: no bound].
    #[arg(long, value_name = "SIZE", env = "SLM_ARTIFACTS_MAX", value_parser = bytes)]
    pub artifacts_max: Option<u64>,
    /// Folder at which PersistentVolumeClaims are mounted, each under its name.
    #[arg(long, value_name = "DIR", env = "SLM_PVC_ROOT", default_value = PVC_ROOT)]
    pub pvc_root: PathBuf,
    /// HOST or HOST:PORT that may be reached without TLS; may be given several times.
    #[arg(long, value_name = "HOST", env = "SLM_INSECURE_HOSTS", value_delimiter = ',')]
    pub insecure_host: Vec<String>,
    /// PEM certificates to trust besides those of the system.
    #[arg(long, value_name = "FILE", env = "SLM_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Server of hf: sources: huggingface.co, or a mirror of it. A token for it is read from HF_TOKEN.
    #[arg(long, value_name = "URL", env = "HF_ENDPOINT", default_value = HUB_ENDPOINT)]
    pub hub_endpoint: String,
    /// Server of s3: sources, such as `https://minio.example.com:9000` [default: Amazon S3]. Keys are read from AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY, or from what Amazon gives its machines and pods; the region from AWS_REGION.
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL")]
    pub s3_endpoint: Option<String>,
}

impl Default for StoreArgs {
    fn default() -> Self {
        Self {
            cache: CacheArgs::default(),
            artifacts_max: None,
            pvc_root: PVC_ROOT.into(),
            insecure_host: Vec::new(),
            ca_file: None,
            hub_endpoint: HUB_ENDPOINT.to_owned(),
            s3_endpoint: None,
        }
    }
}

impl StoreArgs {
    /// Adds what differs from the defaults, so that the environment of the process decides the rest.
    pub(crate) fn write(&self, flag: &mut impl FnMut(&str, OsString)) {
        if let Some(cache) = &self.cache.cache {
            flag("cache", cache.clone().into());
        }
        if let Some(bytes) = self.artifacts_max {
            flag("artifacts-max", bytes.to_string().into());
        }
        if *self.pvc_root != *PVC_ROOT {
            flag("pvc-root", self.pvc_root.clone().into());
        }
        for host in &self.insecure_host {
            flag("insecure-host", host.into());
        }
        if let Some(file) = &self.ca_file {
            flag("ca-file", file.clone().into());
        }
        if self.hub_endpoint != HUB_ENDPOINT {
            flag("hub-endpoint", self.hub_endpoint.clone().into());
        }
        if let Some(url) = &self.s3_endpoint {
            flag("s3-endpoint", url.into());
        }
    }
}
