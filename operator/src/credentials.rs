//! What a Secret says to a registry.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde_json::{Map, Value};

/// The key that holds a Docker configuration.
const DOCKER_CONFIG: &str = ".dockerconfigjson";
const KEYS: [&str; 3] = ["token", "username", "password"];

/// The contents of a Secret as a worker takes them: a Docker configuration, or an object with `token`, or with
/// `username` and `password`.
///
/// # Errors
/// Names the Secret and what it lacks.
pub(crate) async fn read(client: Client, namespace: String, name: String) -> Result<String, String> {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    match secrets.get_opt(&name).await {
        Ok(Some(secret)) => credentials(&name, &secret),
        Ok(None) => Err(format!("Secret {name}: not there; make it, or take secretRef away")),
        Err(error) => Err(format!("Secret {name}: {error}")),
    }
}

fn credentials(name: &str, secret: &Secret) -> Result<String, String> {
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
    Ok(Value::Object(found).to_string())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn what_secrets_say() {
        let read = |pairs: &[(&str, &str)]| {
            let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
            credentials("pull", &Secret { data: Some(data.collect()), ..Secret::default() })
        };
        assert_eq!(read(&[(".dockerconfigjson", "{\"auths\":{}}")]), Ok("{\"auths\":{}}".to_owned()));
        assert_eq!(read(&[("token", "abc\n")]), Ok("{\"token\":\"abc\"}".to_owned()));
        assert!(read(&[("key", "x")]).is_err_and(|why| why.contains("Secret pull")));
    }
}
