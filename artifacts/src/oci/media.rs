//! Media types of layers, as written by ORAS, KitOps, ModelPack and image builders.

use std::{collections::HashMap, path::Path};

use crate::{
    part::Becomes,
    unpack::{Packing, relative},
};

/// Annotations with a layer's path: of the OCI image specification, and of ModelPack.
const TITLES: [&str; 2] = ["org.opencontainers.image.title", "org.cncf.model.filepath"];
/// ORAS packs folders as gzipped tar whatever their media type, and marks them with this annotation.
const ORAS_UNPACK: &str = "io.deis.oras.content.unpack";

const KITOPS: &str = "application/vnd.kitops.modelkit.";
const MODELPACK: &str = "application/vnd.cncf.model.";

const WHAT_TO_DO: &str = "and no title; push it with ORAS, KitOps or ModelPack, or give the layer the annotation \
                          org.opencontainers.image.title";

/// Handling of a layer; `None` if it is not part of a model. The error completes "has media type X, …".
pub(super) fn layer(media_type: &str, annotations: &HashMap<String, String>) -> Result<Option<Becomes>, String> {
    if let Some((part, form)) = media_type.strip_prefix(KITOPS).and_then(|rest| rest.split_once(".v1.")) {
        return match part {
            "model" | "modelpart" => packed(form).map(Some),
            "dataset" | "code" | "docs" => Ok(None),
            _ => Err(format!("whose part `{part}` is not known; expected model, modelpart, dataset, code or docs")),
        };
    }
    if let Some((part, form)) = media_type.strip_prefix(MODELPACK).and_then(|rest| rest.split_once(".v1.")) {
        return match (part, form) {
            ("doc" | "code" | "dataset", _) => Ok(None),
            ("weight" | "weight.config", "tar" | "tar+gzip" | "tar+zstd") => packed(form).map(Some),
            // `raw`, or a vendor's form such as `gguf`: a file under its own name.
            ("weight" | "weight.config", _) => file(annotations)?.ok_or_else(|| WHAT_TO_DO.to_owned()).map(Some),
            _ => Err(format!("whose part `{part}` is not known; expected weight, weight.config, doc, code or dataset")),
        };
    }
    if matches!(media_type, "application/vnd.oci.empty.v1+json" | "application/vnd.docker.ai.license") {
        return Ok(None);
    }
    if annotations.get(ORAS_UNPACK).is_some_and(|value| value == "true") {
        return Ok(Some(Becomes::Files(Packing::TarGzip)));
    }
    if let Some(file) = file(annotations)? {
        return Ok(Some(file));
    }
    match media_type {
        "application/vnd.oci.image.layer.v1.tar" => Ok(Some(Becomes::Files(Packing::Tar))),
        "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            Ok(Some(Becomes::Files(Packing::TarGzip)))
        }
        _ => Err(WHAT_TO_DO.to_owned()),
    }
}

fn packed(form: &str) -> Result<Becomes, String> {
    match form {
        "tar" => Ok(Becomes::Files(Packing::Tar)),
        "tar+gzip" => Ok(Becomes::Files(Packing::TarGzip)),
        _ => Err("which is not supported; publish it as tar or tar+gzip".to_owned()),
    }
}

fn file(annotations: &HashMap<String, String>) -> Result<Option<Becomes>, String> {
    let Some(title) = TITLES.iter().find_map(|key| annotations.get(*key)) else { return Ok(None) };
    let path = relative(Path::new(title)).map_err(|message| format!("with the title {message}"))?;
    if path.as_os_str().is_empty() {
        return Err("with a title that names no file".to_owned());
    }
    Ok(Some(Becomes::File(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(media_type: &str, annotations: &[(&str, &str)]) -> String {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        match layer(media_type, &annotations) {
            Ok(None) => "skip".to_owned(),
            Ok(Some(Becomes::File(path))) => format!("file {}", path.display()),
            Ok(Some(Becomes::Files(packing))) => format!("{packing:?}"),
            Err(message) => format!("error {message}"),
        }
    }

    #[test]
    fn layers_as_they_are_written() {
        let title = &[("org.opencontainers.image.title", "a/x.gguf")][..];
        let path = &[("org.cncf.model.filepath", "config.json")][..];
        let folder = &[("org.opencontainers.image.title", "adapter"), ("io.deis.oras.content.unpack", "true")][..];
        for (media_type, annotations, expected) in [
            ("application/vnd.kitops.modelkit.model.v1.tar+gzip", &[][..], "TarGzip"),
            ("application/vnd.kitops.modelkit.model.v1.tar", &[], "Tar"),
            ("application/vnd.kitops.modelkit.modelpart.v1.tar+gzip", &[], "TarGzip"),
            ("application/vnd.kitops.modelkit.dataset.v1.tar+gzip", &[], "skip"),
            ("application/vnd.kitops.modelkit.docs.v1.tar", &[], "skip"),
            ("application/vnd.kitops.modelkit.code.v1.tar", &[], "skip"),
            ("application/vnd.cncf.model.weight.v1.raw", path, "file config.json"),
            ("application/vnd.cncf.model.weight.v1.gguf", path, "file config.json"),
            ("application/vnd.cncf.model.weight.v1.tar", path, "Tar"),
            ("application/vnd.cncf.model.weight.config.v1.tar+gzip", &[], "TarGzip"),
            ("application/vnd.cncf.model.weight.config.v1.raw", title, "file a/x.gguf"),
            ("application/vnd.cncf.model.doc.v1.raw", path, "skip"),
            ("application/vnd.cncf.model.code.v1.tar+zstd", &[], "skip"),
            ("application/vnd.cncf.model.dataset.v1.tar", &[], "skip"),
            // ORAS gives files the media type of an image layer by default.
            ("application/vnd.oci.image.layer.v1.tar", title, "file a/x.gguf"),
            ("application/vnd.oci.image.layer.v1.tar+gzip", folder, "TarGzip"),
            ("application/x.my-adapter", folder, "TarGzip"),
            ("application/x.my-weights", title, "file a/x.gguf"),
            ("application/vnd.docker.ai.gguf.v3", path, "file config.json"),
            ("application/vnd.docker.ai.license", path, "skip"),
            ("application/vnd.oci.empty.v1+json", &[], "skip"),
            ("application/vnd.oci.image.layer.v1.tar", &[], "Tar"),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", &[], "TarGzip"),
        ] {
            assert_eq!(shown(media_type, annotations), expected, "{media_type}");
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let up = &[("org.opencontainers.image.title", "../x")][..];
        for (media_type, annotations, part) in [
            ("application/x.unknown", &[][..], "and no title; push it with ORAS"),
            ("application/vnd.cncf.model.weight.v1.raw", &[], "and no title"),
            ("application/vnd.cncf.model.weight.v1.tar+zstd", &[], "publish it as tar or tar+gzip"),
            ("application/vnd.kitops.modelkit.model.v1.tar+zstd", &[], "publish it as tar or tar+gzip"),
            ("application/vnd.kitops.modelkit.thing.v1.tar", &[], "part `thing` is not known"),
            ("application/vnd.cncf.model.thing.v1.raw", &[], "part `thing` is not known"),
            ("application/x.unknown", up, "../x: leaves the folder"),
        ] {
            let shown = shown(media_type, annotations);
            assert!(shown.starts_with("error ") && shown.contains(part), "{media_type}: {shown}");
        }
    }
}
