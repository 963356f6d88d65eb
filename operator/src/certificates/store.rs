//! The Secrets that hold the authority and the certificates.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams},
};
use slm_tls::{
    Identity, Material, Pem,
    mint::{self, Facts, MintError, Minted},
};

use super::{
    Error,
    rotation::{CertificateState, LeafState},
};
use crate::names;

/// Name of the authority's Secret, which only operators read.
pub(super) const AUTHORITY: &str = "slm-swarm-ca";
/// Annotation with the time of the last change. Pods see a change later.
const CHANGED: &str = "slmswarm.io/changed";

const ISSUING: [&str; 2] = ["issuing.crt", "issuing.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const FORMER: &str = "former.crt";

/// Name of the Secret with the certificate of `identity`, of the type kubernetes.io/tls.
pub(super) fn name(identity: Identity) -> String {
    names::certificate(identity)
}

/// An authority with its key: it signs, or will sign.
pub(super) struct Authority {
    pub(super) minted: Minted,
    pub(super) facts: Facts,
}

impl Authority {
    /// The authority without its key.
    pub(super) fn retire(self) -> Former {
        Former { certificate: self.minted.certificate, facts: self.facts }
    }
}

/// A former authority: still trusted, but it signs nothing.
pub(super) struct Former {
    certificate: String,
    facts: Facts,
}

/// All authorities.
#[derive(Default)]
pub(super) struct Authorities {
    pub(super) issuing: Option<Authority>,
    pub(super) next: Option<Authority>,
    pub(super) former: Vec<Former>,
}

impl Authorities {
    /// The trust bundle, as PEM.
    pub(super) fn bundle(&self) -> String {
        let signing = [&self.issuing, &self.next].into_iter().flatten().map(|authority| &authority.minted.certificate);
        signing.chain(self.former.iter().map(|former| &former.certificate)).map(String::as_str).collect()
    }
}

/// Contents of one role's Secret.
pub(super) struct LeafStored {
    pub(super) pem: Pem,
    pub(super) version: Option<String>,
    seen: LeafState,
}

/// Certificates of the roles whose Secret exists and can be read.
pub(super) type Leaves = BTreeMap<Identity, LeafStored>;

/// Contents of all Secrets.
pub(super) struct Stored {
    pub(super) authorities: Authorities,
    /// Resource version of the authority's Secret.
    pub(super) version: Option<String>,
    pub(super) leaves: Leaves,
}

impl Stored {
    /// The facts that the rotation is decided by.
    pub(super) fn seen(&self, propagation: std::time::Duration) -> CertificateState {
        let facts = |authority: &Option<Authority>| authority.as_ref().map(|authority| authority.facts.clone());
        CertificateState {
            issuing: facts(&self.authorities.issuing),
            next: facts(&self.authorities.next),
            former: self.authorities.former.iter().map(|former| former.facts.subject.clone()).collect(),
            leaves: self.leaves.iter().map(|(identity, leaf)| (*identity, leaf.seen.clone())).collect(),
            propagation,
        }
    }
}

/// The Secrets of one namespace.
pub(super) struct Store(Api<Secret>);

impl Store {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        Self(Api::namespaced(client, namespace))
    }

    /// Reads the Secrets one by one: listing or watching would need the right to read all Secrets.
    pub(super) async fn read(&self) -> Result<Stored, Error> {
        let mut leaves = Leaves::new();
        for identity in Identity::ALL {
            // An unreadable Secret is replaced.
            if let Some(leaf) = self.get(&name(identity)).await?.and_then(|secret| leaf(identity, &secret)) {
                leaves.insert(identity, leaf);
            }
        }
        let secret = self.get(AUTHORITY).await?;
        let version = secret.as_ref().and_then(Secret::resource_version);
        let authorities = match &secret {
            Some(secret) => authorities(secret),
            // The authority's Secret was deleted. The authorities that signed certificates in use are still trusted.
            None => known(&leaves).map(|former| Authorities { former, ..Authorities::default() }),
        };
        Ok(Stored { authorities: authorities.map_err(|source| Error::Authority { source })?, version, leaves })
    }

    async fn get(&self, name: &str) -> Result<Option<Secret>, Error> {
        self.0.get_opt(name).await.map_err(|source| Error::Api { secret: name.to_owned(), source: Box::new(source) })
    }

    pub(super) async fn write_authorities(
        &self,
        authorities: &Authorities,
        version: Option<&str>,
    ) -> Result<(), Error> {
        let mut data = BTreeMap::new();
        for (names, authority) in [(ISSUING, &authorities.issuing), (NEXT, &authorities.next)] {
            if let Some(authority) = authority {
                data.insert(names[0], authority.minted.certificate.clone().into_bytes());
                data.insert(names[1], authority.minted.key.clone().into_bytes());
            }
        }
        if !authorities.former.is_empty() {
            let former: String = authorities.former.iter().map(|former| former.certificate.as_str()).collect();
            data.insert(FORMER, former.into_bytes());
        }
        self.apply(AUTHORITY, "Opaque", data, BTreeMap::new(), version).await
    }

    pub(super) async fn write_leaf(
        &self,
        identity: Identity,
        pem: Pem,
        now: SystemTime,
        version: Option<&str>,
    ) -> Result<(), Error> {
        let data = BTreeMap::from([("ca.crt", pem.authorities), ("tls.crt", pem.certificate), ("tls.key", pem.key)]);
        let now = Timestamp::try_from(now).unwrap_or_else(|_| Timestamp::now());
        let annotations = BTreeMap::from([(CHANGED.to_owned(), now.to_string())]);
        self.apply(&name(identity), "kubernetes.io/tls", data, annotations, version).await
    }

    /// Fails when the Secret changed since `version` was read: two concurrent writers would undo each other's changes.
    async fn apply(
        &self,
        name: &str,
        type_: &str,
        data: BTreeMap<&str, Vec<u8>>,
        annotations: BTreeMap<String, String>,
        version: Option<&str>,
    ) -> Result<(), Error> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(names::swarm_labels()),
                annotations: Some(annotations),
                resource_version: version.map(str::to_owned),
                ..ObjectMeta::default()
            },
            type_: Some(type_.to_owned()),
            data: Some(data.into_iter().map(|(key, bytes)| (key.to_owned(), ByteString(bytes))).collect()),
            ..Secret::default()
        };
        let parameters = PatchParams::apply(names::MANAGER).force();
        let applied = self.0.patch(name, &parameters, &Patch::Apply(&secret)).await;
        applied.map(|_| ()).map_err(|source| Error::Api { secret: name.to_owned(), source: Box::new(source) })
    }
}

/// An authority from its certificate and key.
pub(super) fn read_authority(minted: Minted) -> Result<Authority, MintError> {
    let facts = first(minted.certificate.as_bytes())?;
    Ok(Authority { minted, facts })
}

fn first(pem: &[u8]) -> Result<Facts, MintError> {
    mint::facts(pem)?.into_iter().next().ok_or_else(|| MintError::Read("no certificate in it".to_owned()))
}

fn authorities(secret: &Secret) -> Result<Authorities, MintError> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
    };
    let authority = |[certificate, key]: [&str; 2]| {
        let minted = text(certificate).and_then(|certificate| Some(Minted { certificate, key: text(key)? }));
        minted.map(read_authority).transpose()
    };
    let former = text(FORMER).map_or_else(|| Ok(Vec::new()), |text| split(text.as_bytes()))?;
    Ok(Authorities { issuing: authority(ISSUING)?, next: authority(NEXT)?, former })
}

/// Every authority that some role trusts.
fn known(leaves: &Leaves) -> Result<Vec<Former>, MintError> {
    let mut known = BTreeMap::new();
    for leaf in leaves.values() {
        for former in split(&leaf.pem.authorities)? {
            known.insert(former.facts.subject.clone(), former);
        }
    }
    Ok(known.into_values().collect())
}

/// The certificates of a bundle, one by one.
fn split(bundle: &[u8]) -> Result<Vec<Former>, MintError> {
    let certificates = mint::split(bundle)?;
    certificates
        .into_iter()
        .map(|certificate| Ok(Former { facts: first(certificate.as_bytes())?, certificate }))
        .collect()
}

fn leaf(identity: Identity, secret: &Secret) -> Option<LeafStored> {
    let part = |key: &str| secret.data.as_ref()?.get(key).map(|bytes| bytes.0.clone());
    let pem = Pem { authorities: part("ca.crt")?, certificate: part("tls.crt")?, key: part("tls.key")? };
    Material::read(&pem, identity).ok()?;
    let changed: Timestamp = secret.annotations().get(CHANGED)?.parse().ok()?;
    let trusts: BTreeSet<_> = mint::facts(&pem.authorities).ok()?.into_iter().map(|facts| facts.subject).collect();
    let seen = LeafState { facts: first(&pem.certificate).ok()?, trusts, changed: changed.into() };
    Some(LeafStored { pem, version: secret.resource_version(), seen })
}
