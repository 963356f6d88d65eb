//! The folders of the cache that arguments name.

use std::path::PathBuf;

use slm_artifacts::{Credentials, Store, StoreConfig};
use slm_convert::bundle::cache_dir;
use slm_launch::{CacheArgs, StoreArgs};

use crate::exit::Failure;

/// The folder of a cache.
///
/// # Errors
/// Neither the argument nor the environment names a folder.
pub fn cache_root(cache: &CacheArgs) -> Result<PathBuf, Failure> {
    let none = || Failure::usage("no cache folder: set HOME, or name one with --cache");
    cache.cache.clone().or_else(cache_dir).ok_or_else(none)
}

/// Configuration of the artifact store.
///
/// # Errors
/// No cache folder.
pub fn config(args: &StoreArgs) -> Result<StoreConfig, Failure> {
    let cache = cache_root(&args.cache)?;
    Ok(StoreConfig {
        converted: Some(cache.join("converted")),
        bytes_max: args.artifacts_max,
        pvc_root: args.pvc_root.clone(),
        insecure_hosts: args.insecure_host.clone(),
        ca_file: args.ca_file.clone(),
        hub_endpoint: args.hub_endpoint.clone(),
        hub_credentials: hub_token().map(Credentials::Bearer),
        s3_endpoint: args.s3_endpoint.clone(),
        ..StoreConfig::new(cache.join("artifacts"))
    })
}

/// The token for the Hub, where the tools of Hugging Face look for it, too.
fn hub_token() -> Option<String> {
    std::env::var("HF_TOKEN").ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// Opens the store.
///
/// # Errors
/// No cache folder, or one that cannot be used.
pub fn open(args: &StoreArgs) -> Result<Store, Failure> {
    Ok(Store::open(config(args)?)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn launch_knows_the_defaults_of_the_store() {
        assert_eq!(slm_artifacts::PVC_ROOT, slm_launch::PVC_ROOT);
        assert_eq!(slm_artifacts::HUB_ENDPOINT, slm_launch::HUB_ENDPOINT);
    }
}
