//! Access to the public endpoint: authentication by token, authorization by name.
//!
//! Off, everybody may call everything and both endpoints speak plain text, as on a person's own machine. On, a folder such as
//! a mounted Secret holds the endpoints' certificate and the list of tokens. The folder is watched: the next handshake shows
//! the new certificate and the next request is checked against the new tokens, while open connections and running requests
//! go on.
//!
//! A token lists the names that it may use: models, adapters, routes. A route that it lists may lead to any expert: the author of
//! the route decided that. A name that a token may not use does not exist for its holder: the same 404, the same listings, the
//! same suggestions. A 403 would tell one team what another team runs.
//!
//! - [`tokens`]: the file, to a table; [`table`]: a token to its caller, and a caller to the names it may use. Pure.
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

/// A folder of certificate and tokens that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A certificate or key that cannot be used.
    #[error("{}: {source}", folder.display())]
    Certificate {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        source: MaterialError,
    },
    /// A list of tokens that cannot be used.
    #[error("{}: {source}", folder.display())]
    Tokens {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        source: TokensError,
    },
}

/// The access policy. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Access(Option<Arc<Guarded>>);

struct Guarded {
    public: Public,
    table: Arc<ArcSwap<Table>>,
    /// The watch of the folder; ends with this.
    _following: Following,
}

/// One version of the folder.
struct FolderContents {
    certificate: Certificate,
    table: Table,
}

/// ALPN of the HTTP endpoint: both versions.
const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];
const GRPC: [&[u8]; 1] = [b"h2"];

impl Access {
    /// The policy of `folder`: TLS, and a token for every caller. The folder is watched for as long as a clone lives. A later
    /// version that cannot be used is logged, and the former certificate and tokens stay in use.
    ///
    /// # Errors
    /// Files that cannot be used.
    pub(crate) fn follow(folder: &Path) -> Result<Self, AccessError> {
        let mounted = Mounted::open(folder, ["tls.crt", "tls.key", "tokens.yaml"])?;
        let FolderContents { certificate, table } = FolderContents::read(folder, mounted.files())?;
        let failed = |source| AccessError::Certificate { folder: folder.to_owned(), source };
        let public = Public::new(certificate, &HTTP).map_err(failed)?;
        tracing::info!(folder = %folder.display(), tokens = table.len(), "callers need a token");
        let table = Arc::new(ArcSwap::from_pointee(table));
        let (folder, live, shown) = (folder.to_owned(), Arc::clone(&table), public.clone());
        let following = mounted.follow(move |files| {
            let next = FolderContents::read(&folder, files)?;
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

    /// TLS of the HTTP endpoint.
    pub(crate) fn http(&self) -> Option<Public> {
        self.0.as_ref().map(|guarded| guarded.public.clone())
    }

    /// TLS of the gRPC endpoint.
    pub(crate) fn grpc(&self) -> Option<Public> {
        self.0.as_ref().map(|guarded| guarded.public.speaking(&GRPC))
    }

    /// The caller, by the values of the request's `authorization` headers.
    ///
    /// # Errors
    /// A token that is missing or unknown.
    pub(crate) fn caller<'h>(&self, headers: impl IntoIterator<Item = &'h [u8]>) -> Result<Caller, Unauthorized> {
        match &self.0 {
            None => Ok(Caller::anybody()),
            Some(guarded) => guarded.table.load().caller(bearer::token(headers)?).ok_or(Unauthorized::Unknown),
        }
    }
}

impl FolderContents {
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
