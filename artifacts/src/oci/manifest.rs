//! OCI manifests and indexes: the layers of an artifact.

use oci_spec::image::{Arch, Descriptor, DigestAlgorithm, ImageIndex, ImageManifest, Os};

use super::media;
use crate::{FetchError, part::Becomes};

/// Accepted media types.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                                 application/vnd.docker.distribution.manifest.v2+json, \
                                 application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest as received, with a verified digest.
#[derive(Debug)]
pub(super) struct Manifest {
    /// 64 hexadecimal digits.
    pub(super) digest: String,
    pub(super) body: Vec<u8>,
    /// Content type of the answer, for a body that does not state its media type.
    pub(super) content_type: Option<String>,
}

/// A layer to download.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    /// 64 hexadecimal digits.
    pub(super) digest: String,
    pub(super) bytes: u64,
    pub(super) becomes: Becomes,
}

/// Content of a manifest or an index.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ManifestContent {
    /// Layers of the artifact.
    Layers(Vec<Layer>),
    /// Digest of the manifest that an index selects.
    Redirect(String),
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestHead {
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// # Errors
    /// Names the manifest or the layer that cannot be used.
    pub(super) fn read(&self, uri: &str) -> Result<ManifestContent, FetchError> {
        let unsupported = |media_type: &str, message: String| FetchError::UnsupportedMediaType {
            uri: uri.to_owned(),
            file: format!("manifest sha256:{}", self.digest),
            media_type: media_type.to_owned(),
            message,
        };
        let not_json = |error: serde_json::Error| unsupported("unknown", format!("and cannot be read: {error}"));
        let kind: ManifestHead = serde_json::from_slice(&self.body).map_err(not_json)?;
        let stated = kind.media_type.as_deref().or(self.content_type.as_deref()).unwrap_or_default();
        let is_index =
            match stated {
                "application/vnd.oci.image.index.v1+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json" => true,
                "application/vnd.oci.image.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v2+json" => false,
                // Some registries only say that it is JSON.
                "" | "application/json" | "text/plain" => kind.manifests.is_some(),
                other => {
                    return Err(unsupported(
                        other,
                        "which is neither an image manifest nor an index; push it as one".to_owned(),
                    ));
                }
            };
        let unreadable = |error: serde_json::Error| unsupported(stated, format!("but is not of that form: {error}"));
        if is_index {
            let index: ImageIndex = serde_json::from_slice(&self.body).map_err(unreadable)?;
            let chosen = choose(index.manifests(), &Arch::default());
            let digest =
                chosen.ok_or_else(|| unsupported(stated, format!("and nothing for linux/{}", Arch::default())))?;
            return sha256(uri, digest).map(ManifestContent::Redirect);
        }
        let manifest: ImageManifest = serde_json::from_slice(&self.body).map_err(unreadable)?;
        let layers = layers(uri, manifest.layers())?;
        if layers.is_empty() {
            return Err(unsupported(stated, "and no layer with model files".to_owned()));
        }
        Ok(ManifestContent::Layers(layers))
    }
}

fn layers(uri: &str, descriptors: &[Descriptor]) -> Result<Vec<Layer>, FetchError> {
    let mut layers = Vec::new();
    for descriptor in descriptors {
        let (media_type, none) = (descriptor.media_type().to_string(), Default::default());
        let annotations = descriptor.annotations().as_ref().unwrap_or(&none);
        let becomes = media::layer(&media_type, annotations).map_err(|message| FetchError::UnsupportedMediaType {
            uri: uri.to_owned(),
            file: format!("layer {}", descriptor.digest()),
            media_type,
            message,
        })?;
        if let Some(becomes) = becomes {
            layers.push(Layer { digest: sha256(uri, descriptor)?, bytes: descriptor.size(), becomes });
        }
    }
    Ok(layers)
}

/// The entry for this platform, else the one without a platform.
fn choose<'a>(manifests: &'a [Descriptor], arch: &Arch) -> Option<&'a Descriptor> {
    let here = |manifest: &&Descriptor| {
        let platform = manifest.platform().as_ref();
        platform.is_some_and(|platform| *platform.os() == Os::Linux && platform.architecture() == arch)
    };
    manifests.iter().find(here).or_else(|| manifests.iter().find(|manifest| manifest.platform().is_none()))
}

fn sha256(uri: &str, descriptor: &Descriptor) -> Result<String, FetchError> {
    let digest = descriptor.digest();
    if *digest.algorithm() == DigestAlgorithm::Sha256 {
        return Ok(digest.digest().to_owned());
    }
    Err(FetchError::bad(uri, format!("{digest} is not a sha256 digest, and no other is supported")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const HEX: [&str; 3] = ["aa", "bb", "cc"];

    fn descriptor(which: usize, media_type: &str, more: Value) -> Value {
        let mut all =
            json!({"mediaType": media_type, "size": which, "digest": format!("sha256:{}", HEX[which].repeat(32))});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    }

    fn read(body: &Value) -> Result<ManifestContent, String> {
        let body = body.to_string().into_bytes();
        let manifest = Manifest { digest: "dd".repeat(32), body, content_type: None };
        manifest.read("oci://h/r:t").map_err(|error| format!("{}: {error}", error.reason()))
    }

    fn platform(architecture: &str) -> Value {
        json!({"platform": {"os": "linux", "architecture": architecture}})
    }

    #[test]
    fn an_index_points_to_this_machine_or_to_any() {
        const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
        let here = Arch::default().to_string();
        let index = |manifests: Vec<Value>| json!({"schemaVersion": 2, "manifests": manifests});
        let any = descriptor(1, MANIFEST, json!({}));
        let ours = descriptor(2, MANIFEST, platform(&here));
        let other = descriptor(0, MANIFEST, platform("s390x"));
        let see = |which: usize| Ok(ManifestContent::Redirect(HEX[which].repeat(32)));
        assert_eq!(read(&index(vec![other.clone(), any.clone(), ours.clone()])), see(2));
        assert_eq!(read(&index(vec![other.clone(), any.clone()])), see(1));
        let message = read(&index(vec![other])).unwrap_err();
        assert!(message.contains(&format!("nothing for linux/{here}")), "{message}");
    }

    #[test]
    fn layers_that_are_no_part_of_a_model_are_left_out() {
        let layer =
            |which, kind: &str| descriptor(which, &format!("application/vnd.kitops.modelkit.{kind}.v1.tar"), json!({}));
        let manifest = |layers: Vec<Value>| {
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                   "config": descriptor(0, "application/vnd.kitops.modelkit.config.v1+json", json!({})), "layers": layers})
        };
        let ManifestContent::Layers(layers) = read(&manifest(vec![layer(1, "docs"), layer(2, "model")])).unwrap()
        else {
            panic!()
        };
        assert_eq!(layers.iter().map(|layer| layer.bytes).collect::<Vec<_>>(), [2]);
        let message = read(&manifest(vec![layer(1, "docs")])).unwrap_err();
        assert!(
            message.starts_with("UnsupportedMediaType: ") && message.contains("no layer with model files"),
            "{message}"
        );
        let message = read(&manifest(vec![descriptor(1, "application/x.unknown", json!({}))])).unwrap_err();
        assert!(
            message.contains(&format!("layer sha256:{} has media type application/x.unknown", "bb".repeat(32))),
            "{message}"
        );
        let message = read(&json!({"mediaType": "application/vnd.docker.distribution.manifest.v1+json"})).unwrap_err();
        assert!(message.contains("neither an image manifest nor an index"), "{message}");
        let mut other = layer(2, "model");
        other["digest"] = json!(format!("sha512:{}", "ab".repeat(64)));
        assert!(read(&manifest(vec![other])).unwrap_err().contains("no other is supported"));
    }
}
