//! Mutual TLS between the processes of one swarm: who they are, how they prove it, and how the proof is replaced while
//! connections live. And the TLS of its public endpoint ([`public`]), which has none of that but the replacement.
//!
//! Every process holds a certificate of the swarm's own authority and trusts nothing else: no public authority, no name
//! of DNS. Workers are reached by IP, so a certificate names a role ([`Identity`]), not a host. What a process holds
//! ([`Material`]) is behind one pointer ([`Tls`]) that every handshake reads anew: replacing it restarts no listener and
//! breaks no connection. Sessions are never resumed, because a resumed one would skip the check against the
//! authorities of now.
//!
//! Inside a swarm TLS 1.3 only, rustls with ring. Not here: Kubernetes, and when certificates are due; the operator knows that.
//!
//! - [`identity`]: roles; [`mint`]: certificates; [`material`]: certificates as they are used;
//! - `verify`: what a handshake asks for; [`mounted`]: a mounted Secret, followed, [`folder`]: that of a process;
//! - [`server`] and [`client`]: the two ends of a connection; [`public`] and [`outward`]: those of the
//!   endpoint for everybody else;
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

use crate::{mounted::Following, verify::CurrentMaterial};

/// What both ends negotiate: gRPC is HTTP/2.
const ALPN: &[u8] = b"h2";

/// What a process proves itself with and what it trusts, replaceable at any time. Clones share it.
#[derive(Clone, Debug)]
pub struct Tls {
    live: Arc<CurrentMaterial>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// Ends with the last clone.
    following: Option<Arc<Following>>,
}

impl Tls {
    /// Begins with `material`.
    ///
    /// # Errors
    /// When ring does not know TLS 1.3: the build is broken.
    pub fn new(material: Material) -> Result<Self, MaterialError> {
        let live = Arc::new(CurrentMaterial::new(material));
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

    /// Handshakes from now on use `material`; connections that are open stay as they are.
    pub fn replace(&self, material: Material) {
        self.live.replace(material);
    }

    /// Keeps `following` going as long as anybody holds this.
    fn following(mut self, following: Following) -> Self {
        self.following = Some(Arc::new(following));
        self
    }
}
