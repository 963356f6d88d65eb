//! Mutual TLS between the processes of a swarm: identities, certificates, and their rotation while connections live.
//! Also TLS of the public endpoint ([`public`]), where only the certificate is rotated.
//!
//! Every process holds a certificate of the swarm's own authority and trusts nothing else, neither a public authority
//! nor a DNS name. Workers are reached by IP, so a certificate names a role ([`Identity`]), not a host. The material of
//! a process ([`Material`]) is behind one pointer ([`Tls`]), which every handshake reads anew: replacing it restarts no
//! listener and breaks no connection. Sessions are never resumed, because a resumed session would skip the check
//! against the current authorities.
//!
//! Inside a swarm only TLS 1.3, by rustls with ring. Not in this crate: Kubernetes, and the times of renewal, which the
//! operator decides.
//!
//! - [`identity`]: roles; [`mint`]: issuing certificates; [`material`]: certificates in use;
//! - `verify`: the callbacks of a handshake; [`mounted`]: a watched mounted Secret, [`folder`]: that of a process;
//! - [`server`] and [`client`]: the two sides of a connection within the swarm; [`public`] and [`outward`]: those of
//!   the public endpoint;
//! - [`cause`]: why a connection failed.

pub mod cause;
pub mod client;
pub mod folder;
pub mod identity;
pub mod material;
pub mod mint;
pub mod mounted;
pub mod outward;
pub mod public;
pub mod server;

mod verify;

use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig, client::Resumption, server::NoServerSessionStorage, version::TLS13};

pub use folder::{FolderError, follow};
pub use identity::Identity;
pub use material::{Material, MaterialError, Pem};

use crate::{mounted::Following, verify::LiveMaterial};

/// ALPN protocol of both sides: gRPC is HTTP/2.
const ALPN: &[u8] = b"h2";

/// Own certificate and trusted authorities of a process, replaceable at any time. Clones share them.
#[derive(Clone, Debug)]
pub struct Tls {
    live: Arc<LiveMaterial>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// Watch of the folder, ended with the last clone.
    following: Option<Arc<Following>>,
}

impl Tls {
    /// A configuration that starts with `material`.
    ///
    /// # Errors
    /// ring does not support TLS 1.3: the build is broken.
    pub fn new(material: Material) -> Result<Self, MaterialError> {
        let live = Arc::new(LiveMaterial::new(material));
        let provider = material::provider();
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(MaterialError::Provider)?
            .with_client_cert_verifier(Arc::clone(&live) as _)
            .with_cert_resolver(Arc::clone(&live) as _);
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(MaterialError::Provider)?
            .dangerous() // The verifier is webpki's, over the authorities of now.
            .with_custom_certificate_verifier(Arc::clone(&live) as _)
            .with_client_cert_resolver(Arc::clone(&live) as _);
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Self { live, server: Arc::new(server), client: Arc::new(client), following: None })
    }

    /// Uses `material` for handshakes from now on; open connections stay.
    pub fn replace(&self, material: Material) {
        self.live.replace(material);
    }

    /// Keeps `following` alive for as long as this or a clone exists.
    fn following(mut self, following: Following) -> Self {
        self.following = Some(Arc::new(following));
        self
    }
}
