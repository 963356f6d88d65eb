//! The swarm's certificates, as somebody has them who may read its Secrets.

use anyhow::{Context as _, Result};
use serde_json::Value;
use slm_tls::{Identity, Material, Pem, Tls, client};
use tonic::transport::{Channel, Endpoint};

use super::{kubectl, kubectl_json};

/// The current Secret of a role.
pub fn secret(identity: Identity) -> Result<Pem> {
    let name = format!("slm-swarm-{identity}-tls");
    let data = kubectl_json(&["get", "secret", &name])?["data"].take();
    // kubectl decodes what `jsonpath` cannot.
    let part = |key: &str| {
        let Value::String(_) = &data[key] else { anyhow::bail!("{name} has no {key}") };
        let template = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
        Ok(kubectl(&["get", "secret", &name, "-o", &template]).with_context(|| key.to_owned())?.into_bytes())
    };
    Ok(Pem { authorities: part("ca.crt")?, certificate: part("tls.crt")?, key: part("tls.key")? })
}

/// A connection of its own to the worker at `ip`, by who has `pem`. It opens with the first call.
pub fn worker_channel(ip: &str, pem: &Pem, identity: Identity) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("https://{ip}:9090"))?;
    Ok(client::channel(&endpoint, Identity::Worker, Some(&Tls::new(Material::read(pem, identity)?)?))?)
}
