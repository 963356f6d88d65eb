//! Credentials from a Secret: of a registry, for the load of an adapter, and whether the token of an external model can
//! be used.
//!
//! Anyone who may write LoraAdapters or ExternalModels names both a host and a Secret. To keep a Secret from being sent to a host of
//! their own, the Secret limits its hosts: a Docker configuration by its entries, which the worker enforces, and a
//! token or a password by the annotation [`HOSTS`].

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Map, Value};
use slm_crds::{
    ExternalModelSpec,
    hosts::{self, HOSTS},
};

/// Key of a Docker configuration.
const DOCKER_CONFIG: &str = ".dockerconfigjson";
const KEYS: [&str; 3] = ["token", "username", "password"];

/// The credentials of a Secret in the worker's format, for the host of `server`, the URL of the source's server: a Docker configuration, or an object with
/// `token`, or with `username` and `password`.
///
/// # Errors
/// Names the Secret and what it lacks.
pub(crate) async fn read(client: Client, namespace: String, name: String, server: String) -> Result<String, String> {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    match secrets.get_opt(&name).await {
        Ok(Some(secret)) => credentials(&name, &secret, &server),
        Ok(None) => Err(format!("Secret {name} does not exist; create it, or remove secretRef")),
        Err(error) => Err(format!("Secret {name}: {error}")),
    }
}

/// Checks that a Secret has a `token` that may be sent to an endpoint. What it is does not matter: the egress reads it itself.
///
/// # Errors
/// Names the Secret and what it lacks.
pub(crate) fn check_token(name: &str, secret: &Secret, spec: &ExternalModelSpec) -> Result<(), String> {
    let token = secret.data.as_ref().and_then(|data| data.get("token"));
    let text = token.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).map(str::trim);
    if text.is_none_or(str::is_empty) {
        return Err(format!("Secret {name}: has no `token`; add it"));
    }
    let listed = secret.annotations().get(HOSTS).map(String::as_str);
    hosts::allowed_outside(listed, &spec.url, spec.proxy.as_deref()).map_err(|why| format!("Secret {name}: {why}"))
}

fn credentials(name: &str, secret: &Secret, uri: &str) -> Result<String, String> {
    let data = secret.data.clone().unwrap_or_default();
    let text = |key: &str| data.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
    if let Some(config) = text(DOCKER_CONFIG) {
        return Ok(config);
    }
    let found: Map<String, Value> =
        KEYS.iter().filter_map(|key| Some(((*key).to_owned(), Value::String(text(key)?.trim().to_owned())))).collect();
    if found.is_empty() {
        return Err(format!("Secret {name}: has neither {DOCKER_CONFIG}, nor token, nor username and password"));
    }
    check_host(name, secret, uri)?;
    Ok(Value::Object(found).to_string())
}

/// Checks that a Secret says that its token or password may be sent to the host of `uri`.
fn check_host(name: &str, secret: &Secret, uri: &str) -> Result<(), String> {
    let listed = secret.annotations().get(HOSTS).map(String::as_str);
    hosts::allowed(listed, uri).map_err(|why| format!("Secret {name}: {why}"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(pairs: &[(&str, &str)], hosts: Option<&str>) -> Secret {
        let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(data.collect()), ..Secret::default() };
        secret.metadata.annotations = hosts.map(|hosts| [(HOSTS.to_owned(), hosts.to_owned())].into());
        secret
    }

    #[test]
    fn what_secrets_say() {
        let read = |pairs: &[(&str, &str)]| credentials("pull", &secret(pairs, Some("r")), "https://r/a.tar");
        assert_eq!(read(&[(".dockerconfigjson", "{\"auths\":{}}")]), Ok("{\"auths\":{}}".to_owned()));
        assert_eq!(read(&[("token", "abc\n")]), Ok("{\"token\":\"abc\"}".to_owned()));
        assert!(read(&[("key", "x")]).is_err_and(|why| why.contains("Secret pull")));
    }

    #[test]
    fn the_token_of_an_external_model() {
        let spec = serde_json::json!({ "url": "https://api.example.com/v1", "model": "gpt" });
        let spec: ExternalModelSpec = serde_json::from_value(spec).expect("a spec");
        let check = |pairs: &[(&str, &str)], hosts| check_token("key", &secret(pairs, hosts), &spec);
        assert_eq!(check(&[("token", "t")], Some("api.example.com")), Ok(()));
        for (pairs, hosts, why) in [
            (&[("password", "t")][..], Some("api.example.com"), "Secret key: has no `token`; add it"),
            (&[("token", " \n")], Some("api.example.com"), "Secret key: has no `token`; add it"),
            (
                &[("token", "t")],
                Some("example.com"),
                "Secret key: its token or password may not be sent to `api.example.com`; allow it with the annotation \
                 slmswarm.io/hosts: api.example.com",
            ),
        ] {
            assert_eq!(check(pairs, hosts), Err(why.to_owned()));
        }
        assert!(check(&[("token", "t")], None).is_err(), "a Secret that says nothing goes nowhere");
    }

    #[test]
    fn a_token_goes_only_where_its_secret_says() {
        let sent = |hosts: Option<&str>, uri: &str| credentials("pull", &secret(&[("token", "t")], hosts), uri).is_ok();
        let hosts = Some("models.example.com, r.example.com:5000");
        for (uri, allowed) in [
            ("https://models.example.com/a.tar", true),
            ("https://MODELS.example.com/a.tar?x=y", true),
            ("oci://r.example.com:5000/a:1", true),
            ("oci://r.example.com/a:1", false),
            ("https://evil.example.net/models.example.com", false),
            ("https://models.example.com@evil.example.net/a", false),
            ("https://models.example.com.evil.example.net/a", false),
            ("pvc://claim/a", false),
        ] {
            assert_eq!(sent(hosts, uri), allowed, "{uri}");
        }
        assert!(!sent(None, "https://models.example.com/a.tar"), "a Secret that says nothing goes nowhere");
        // A Docker configuration limits its own hosts.
        assert!(credentials("pull", &secret(&[(".dockerconfigjson", "{}")], None), "oci://any/a:1").is_ok());
    }
}
