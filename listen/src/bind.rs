//! Ports.

use std::{io, net::SocketAddr};

use thiserror::Error;
use tokio::net::TcpListener;

/// A port that could not be had.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Someone has it.
    #[error("the {endpoint} address {address} is in use; end what listens there, or choose another address")]
    InUse {
        /// What listens, such as HTTP or gRPC.
        endpoint: &'static str,
        /// As configured.
        address: SocketAddr,
    },
    /// Anything else, such as an address that is not this machine's.
    #[error("cannot listen on the {endpoint} address {address}: {reason}")]
    Other {
        /// What listens, such as HTTP or gRPC.
        endpoint: &'static str,
        /// As configured.
        address: SocketAddr,
        /// The system's words.
        reason: io::Error,
    },
}

/// An open port.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub tcp: TcpListener,
    /// Where it is, with the port that the system chose for port 0.
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
