//! Who may call the public endpoint, and for what.
//!
//! Off, everybody may call for everything and both doors speak plain text, as on a person's own machine. On, a folder, as
//! a Secret is mounted, holds the certificate that both doors show and the tokens that they take. It is followed: the next
//! handshake shows the new certificate and the next request is held against the new tokens, while connections that are
//! open and requests that run go on.
//!
//! A token names what callers name: bases, adapters, routes. A route that it names may end at any expert, because who
//! wrote the route decided that. A name that a token may not use is, to its holder, a name that does not exist: the same
//! 404, the same listings, the same suggestions. What runs here is nothing that one team has to learn from another's
//! token, and a 403 would say it.
//!
//! - [`tokens`]: the file, to a table; [`table`]: a token to its caller, and a caller to what it may use. Pure.
//! - [`bearer`]: the header that carries it.

pub(crate) mod bearer;
pub(crate) mod table;
mod tokens;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use slm_tls::{
    MaterialError,
    mounted::{Following, Mounted, ReadError},
    public::{Certificate, Public},
};

pub use tokens::TokensError;

use self::{
    bearer::Unauthorized,
    table::{Caller, Table},
};

/// Why a folder gives no access to anybody.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Certificate or key.
    #[error("{}: {source}", folder.display())]
    Certificate {
        /// Which folder.
        folder: PathBuf,
        /// What is wrong.
        source: MaterialError,
    },
    /// The tokens.
    #[error("{}: {source}", folder.display())]
    Tokens {
        /// Which folder.
        folder: PathBuf,
        /// What is wrong.
        source: TokensError,
    },
}

/// Who may call. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Access(Option<Arc<Guarded>>);

struct Guarded {
    public: Public,
    table: Arc<ArcSwap<Table>>,
    /// Ends with this.
    _following: Following,
}

/// What one version of the folder says.
struct Version {
    certificate: Certificate,
    table: Table,
}

/// HTTP is spoken in both versions.
const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];
const GRPC: [&[u8]; 1] = [b"h2"];

impl Access {
    /// For those with a token of `folder`, over TLS. It is followed as long as a clone of this is there; what cannot be used
    /// later is logged and leaves the former in use, the certificate as well as the tokens.
    ///
    /// # Errors
    /// When what is there now cannot be used.
    pub(crate) fn follow(folder: &Path) -> Result<Self, AccessError> {
        let mounted = Mounted::open(folder, ["tls.crt", "tls.key", "tokens.yaml"])?;
        let Version { certificate, table } = Version::read(folder, mounted.files())?;
        let failed = |source| AccessError::Certificate { folder: folder.to_owned(), source };
        let public = Public::new(certificate, &HTTP).map_err(failed)?;
        tracing::info!(folder = %folder.display(), tokens = table.len(), "callers need a token");
        let table = Arc::new(ArcSwap::from_pointee(table));
        let (folder, live, shown) = (folder.to_owned(), Arc::clone(&table), public.clone());
        let following = mounted.follow(move |files| {
            let next = Version::read(&folder, files)?;
            tracing::info!(folder = %folder.display(), tokens = next.table.len(), "certificate and tokens replaced");
            live.store(Arc::new(next.table));
            shown.replace(next.certificate);
            Ok::<_, AccessError>(())
        });
        Ok(Self(Some(Arc::new(Guarded { public, table, _following: following }))))
    }

    /// Whether callers need a token.
    pub(crate) fn guarded(&self) -> bool {
        self.0.is_some()
    }

    /// The TLS of the HTTP door.
    pub(crate) fn http(&self) -> Option<Public> {
        self.0.as_ref().map(|guarded| guarded.public.clone())
    }

    /// The TLS of the gRPC door.
    pub(crate) fn grpc(&self) -> Option<Public> {
        self.0.as_ref().map(|guarded| guarded.public.speaking(&GRPC))
    }

    /// Who calls, by the values of the request's `authorization` headers.
    ///
    /// # Errors
    /// Nobody whom the tokens name.
    pub(crate) fn caller<'h>(&self, headers: impl IntoIterator<Item = &'h [u8]>) -> Result<Caller, Unauthorized> {
        match &self.0 {
            None => Ok(Caller::anybody()),
            Some(guarded) => guarded.table.load().caller(bearer::token(headers)?).ok_or(Unauthorized::Unknown),
        }
    }
}

impl Version {
    fn read(folder: &Path, [certificate, key, tokens]: &[Vec<u8>; 3]) -> Result<Self, AccessError> {
        let certificate = Certificate::read(certificate, key)
            .map_err(|source| AccessError::Certificate { folder: folder.to_owned(), source })?;
        let table = tokens::read(tokens).map_err(|source| AccessError::Tokens { folder: folder.to_owned(), source })?;
        Ok(Self { certificate, table })
    }
}

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::{TokensError, tokens};

    /// Reads a `tokens.yaml`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn tokens(file: &[u8]) -> Result<(), TokensError> {
        tokens::read(file).map(|_| ())
    }
}
