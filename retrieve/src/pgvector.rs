//! A table of PostgreSQL with the extension pgvector.
//!
//! Few connections, which are kept while they work. A query that is given up takes its connection with it, and the server ends it
//! (`statement_timeout`). After a connection that failed there is a pause in which no other is tried, so that a server that comes back
//! is not met by everybody at once.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use slm_backoff::pause;
use slm_crds::retrieve::{Pgvector, StoreTls};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use tokio_postgres::{
    Client, Config, Error, NoTls,
    config::SslMode,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Passage, Row, roots, secrets::Secrets, store::StoreError};

/// Connections of one route of one router. What comes when all are in use waits.
const CONNECTIONS_MAX: usize = 8;
/// Pause after a connection that failed: first and longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Time that the server spends on one statement at most.
const STATEMENT_MAX: Duration = Duration::from_secs(60);
/// Time for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Numbers of a vector up to which pgvector makes an index.
const INDEXED_MAX: usize = 2000;

pub(crate) struct Table {
    /// What it is, with its address.
    pub(crate) name: String,
    spec: Pgvector,
    config: Config,
    tls: Option<MakeRustlsConnect>,
    secrets: Secrets,
    /// Quoted.
    table: String,
    permits: Semaphore,
    idle: Mutex<Vec<Client>>,
    down: Mutex<Down>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// Connections that failed, one after the other.
#[derive(Default)]
struct Down {
    failed: u32,
    until: Option<Instant>,
}

/// A connection in use.
struct Lease<'t> {
    client: Client,
    _permit: SemaphorePermit<'t>,
}

impl Table {
    pub(crate) fn new(spec: &Pgvector, secrets: Secrets) -> Result<Self, StoreError> {
        let name = format!("the table {} at {}", spec.table, spec.url);
        let settings = |why: String| StoreError::Settings { store: name.clone(), why };
        let mut config: Config = spec.url.parse().map_err(|error| settings(format!("url: {error}")))?;
        config.application_name("slm").connect_timeout(CONNECT_MAX);
        config.options(format!("-c statement_timeout={}", STATEMENT_MAX.as_millis()));
        let tls = match spec.tls {
            StoreTls::Disable => None,
            StoreTls::Require => {
                Some(MakeRustlsConnect::new(roots::client(spec.ca_bundle.as_deref()).map_err(settings)?))
            }
        };
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        Ok(Self {
            table: spec.table.split('.').map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join("."),
            name,
            spec: spec.clone(),
            config,
            tls,
            secrets,
            permits: Semaphore::new(CONNECTIONS_MAX),
            idle: Mutex::default(),
            down: Mutex::default(),
        })
    }

    pub(crate) async fn search(&self, vector: &[f32], top: u32, bytes_max: u32) -> Result<Vec<Passage>, StoreError> {
        let sql = format!(
            "SELECT id, source, left(content, $3), 1 - (embedding <=> $1::text::vector) FROM {} \
             ORDER BY embedding <=> $1::text::vector LIMIT $2",
            self.table
        );
        let (vector, top, characters) = (literal(vector), i64::from(top), i32::try_from(bytes_max).unwrap_or(i32::MAX));
        let rows = self.query(&sql, &[(&vector, Type::TEXT), (&top, Type::INT8), (&characters, Type::INT4)]).await?;
        rows.iter()
            .map(|row| {
                let text = |place: usize| row.try_get::<_, String>(place);
                let (id, source, text) = (text(0)?, text(1)?, text(2)?);
                Ok(Passage { id, source, text, score: row.try_get(3)? })
            })
            .collect::<Result<_, Error>>()
            .map_err(|error| self.failed(&error))
    }

    pub(crate) async fn prepare(&self, dimension: usize) -> Result<(), StoreError> {
        let extension = "SELECT 1 FROM pg_extension WHERE extname = 'vector'";
        if self.query(extension, &[]).await?.is_empty() {
            self.run("CREATE EXTENSION IF NOT EXISTS vector").await?;
        }
        self.run(&format!(
            "CREATE TABLE IF NOT EXISTS {} (id text PRIMARY KEY, source text NOT NULL, content text NOT NULL, \
             embedding vector({dimension}) NOT NULL)",
            self.table
        ))
        .await?;
        let typed = "SELECT atttypmod FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = 'embedding'";
        let rows = self.query(typed, &[(&self.table, Type::TEXT)]).await?;
        let found =
            rows.first().map(|row| row.try_get::<_, i32>(0)).transpose().map_err(|error| self.failed(&error))?;
        let found = found.and_then(|found| usize::try_from(found).ok()).unwrap_or(0);
        if found != dimension {
            return Err(StoreError::Dimension { store: self.name.clone(), found, wanted: dimension });
        }
        let hnsw = !self.query("SELECT 1 FROM pg_am WHERE amname = 'hnsw'", &[]).await?.is_empty();
        if hnsw && dimension <= INDEXED_MAX {
            let index = self.spec.table.replace('.', "_");
            let index: String = index.chars().take(50).collect();
            let table = &self.table;
            self.run(&format!(
                "CREATE INDEX IF NOT EXISTS \"{index}_embedding\" ON {table} USING hnsw (embedding vector_cosine_ops)"
            ))
            .await?;
        }
        Ok(())
    }

    pub(crate) async fn list(&self) -> Result<HashMap<String, String>, StoreError> {
        let rows = self.query(&format!("SELECT id, source FROM {}", self.table), &[]).await?;
        let pairs = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        pairs.collect::<Result<_, Error>>().map_err(|error| self.failed(&error))
    }

    pub(crate) async fn put(&self, rows: &[Row]) -> Result<(), StoreError> {
        let column = |of: fn(&Row) -> &String| rows.iter().map(of).collect::<Vec<_>>();
        let (ids, sources, texts) = (column(|row| &row.id), column(|row| &row.source), column(|row| &row.text));
        let vectors: Vec<String> = rows.iter().map(|row| literal(&row.vector)).collect();
        let sql = format!(
            "INSERT INTO {} (id, source, content, embedding) \
             SELECT a, b, c, d::vector FROM unnest($1, $2, $3, $4) AS r(a, b, c, d) ON CONFLICT (id) DO UPDATE \
             SET source = excluded.source, content = excluded.content, embedding = excluded.embedding",
            self.table
        );
        let columns: [&(dyn ToSql + Sync); 4] = [&ids, &sources, &texts, &vectors];
        self.query(&sql, &columns.map(|column| (column, Type::TEXT_ARRAY))).await.map(drop)
    }

    pub(crate) async fn remove(&self, ids: &[String]) -> Result<(), StoreError> {
        let sql = format!("DELETE FROM {} WHERE id = ANY($1)", self.table);
        self.query(&sql, &[(&ids, Type::TEXT_ARRAY)]).await.map(drop)
    }

    async fn run(&self, sql: &str) -> Result<(), StoreError> {
        self.query(sql, &[]).await.map(drop)
    }

    async fn query(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let lease = self.lease().await?;
        let answer = lease.client.query_typed(sql, parameters).await;
        if !lease.client.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lease.client);
        }
        answer.map_err(|error| self.failed(&error))
    }

    /// A connection that works, as far as is known: an idle one, or a new one.
    async fn lease(&self) -> Result<Lease<'_>, StoreError> {
        let closed = |_| self.unreachable("the store is no longer used".to_owned());
        let permit = self.permits.acquire().await.map_err(closed)?;
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|client| !client.is_closed());
            idle.pop()
        };
        let client = match idle {
            Some(client) => client,
            None => self.connect().await?,
        };
        Ok(Lease { client, _permit: permit })
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let until = self.down.lock().unwrap_or_else(PoisonError::into_inner).until;
        if until.is_some_and(|until| Instant::now() < until) {
            return Err(self.unreachable("it could not be a moment ago".to_owned()));
        }
        let config = self.authenticated().await?;
        let connected = match &self.tls {
            None => config.connect(NoTls).await.map(|(client, connection)| (client, tokio::spawn(connection))),
            Some(tls) => {
                config.connect(tls.clone()).await.map(|(client, connection)| (client, tokio::spawn(connection)))
            }
        };
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        match connected {
            // The task ends with the client.
            Ok((client, _)) => {
                *down = Down::default();
                Ok(client)
            }
            Err(error) => {
                down.until = Some(Instant::now() + pause(down.failed, PAUSE.0, PAUSE.1));
                down.failed = down.failed.saturating_add(1);
                Err(self.failed(&error))
            }
        }
    }

    async fn authenticated(&self) -> Result<Config, StoreError> {
        let mut config = self.config.clone();
        let Some(secret) = &self.spec.secret_ref else { return Ok(config) };
        let settings = |why: String| StoreError::Settings { store: self.name.clone(), why };
        // As for models outside, a server without TLS is one that the Secret names so.
        let url = match (self.tls.is_some(), slm_crds::hosts::host(&self.spec.url)) {
            (false, Some(host)) => format!("http://{host}"),
            _ => self.spec.url.clone(),
        };
        let entries = self.secrets.entries(&secret.name, &url).await.map_err(settings)?;
        let password = entries.get("password");
        config.password(password.ok_or_else(|| settings(format!("Secret {}: `password` is missing", secret.name)))?);
        if let Some(user) = entries.get("username").filter(|_| self.config.get_user().is_none()) {
            config.user(user);
        }
        Ok(config)
    }

    fn unreachable(&self, why: String) -> StoreError {
        StoreError::Unreachable { store: self.name.clone(), why }
    }

    /// What an error means: the server's own words, or none.
    fn failed(&self, error: &Error) -> StoreError {
        match error.as_db_error() {
            // Shutting down, starting, or out of connections: classes 57P and 53 of its codes.
            Some(said) if !said.code().code().starts_with("57P") && !said.code().code().starts_with("53") => {
                StoreError::Refused { store: self.name.clone(), why: said.message().to_owned() }
            }
            Some(said) => self.unreachable(said.message().to_owned()),
            None => {
                let mut why = error.to_string();
                if let Some(cause) = std::error::Error::source(error) {
                    let _ = write!(why, ": {cause}");
                }
                self.unreachable(why)
            }
        }
    }
}

/// A vector as pgvector reads it.
fn literal(vector: &[f32]) -> String {
    let mut text = String::with_capacity(vector.len() * 12 + 2);
    text.push('[');
    for (place, number) in vector.iter().enumerate() {
        // A String takes everything.
        let _ = write!(text, "{}{number}", if place == 0 { "" } else { "," });
    }
    text.push(']');
    text
}
