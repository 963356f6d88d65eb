//! Binding of ports.

use std::{io, net::SocketAddr};

use thiserror::Error;
use tokio::net::TcpListener;

/// A port that cannot be bound.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The port is in use.
    #[error("the {endpoint} address {address} is in use; end what listens there, or choose another address")]
    InUse {
        /// Name of the endpoint, such as HTTP or gRPC.
        endpoint: &'static str,
        /// The configured address.
        address: SocketAddr,
    },
    /// Anything else, such as an address that is not this machine's.
    #[error("cannot listen on the {endpoint} address {address}: {reason}")]
    Other {
        /// Name of the endpoint, such as HTTP or gRPC.
        endpoint: &'static str,
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        reason: io::Error,
    },
}

/// An open port.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub tcp: TcpListener,
    /// Bound address, with the port that the system chose for port 0.
    pub address: SocketAddr,
}

/// Opens a port. `endpoint` names it in errors.
///
/// # Errors
/// [`ListenError`].
pub async fn bind(endpoint: &'static str, address: SocketAddr) -> Result<Listener, ListenError> {
    let other = |reason: io::Error| match reason.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { endpoint, address },
        _ => ListenError::Other { endpoint, address, reason },
    };
    let tcp = TcpListener::bind(address).await.map_err(other)?;
    let address = tcp.local_addr().map_err(other)?;
    Ok(Listener { tcp, address })
}
