//! One store of passages, whichever it is: its time limit, and what its failures are called.

use std::{collections::HashMap, future::Future, time::Duration};

use slm_crds::retrieve::{Retrieve, RetrieveSource};
use thiserror::Error;
use tokio::time::timeout;

use crate::{Passage, Row, pgvector::Table, qdrant::Collection, secrets::Secrets};

/// Longest time of one request that changes a store.
const CHANGE_MAX: Duration = Duration::from_secs(60);

/// The reason why a store gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Nobody answers.
    #[error("{store} cannot be reached: {why}")]
    Unreachable {
        /// The store, with its address.
        store: String,
        /// The reason.
        why: String,
    },
    /// It takes too long.
    #[error("{store} did not answer within {} ms", .limit.as_millis())]
    Slow {
        /// The store, with its address.
        store: String,
        /// The time that it had.
        limit: Duration,
    },
    /// It answers that it will not.
    #[error("{store} refuses: {why}")]
    Refused {
        /// The store, with its address.
        store: String,
        /// What it says.
        why: String,
    },
    /// It has vectors of another length.
    #[error(
        "{store} has vectors of {found} numbers, and the encoder makes {wanted}: name the encoder that it was made with, or index into another one"
    )]
    Dimension {
        /// The store, with its address.
        store: String,
        /// Numbers of its vectors.
        found: usize,
        /// Numbers of the encoder's.
        wanted: usize,
    },
    /// Its Secret, or its certificates, cannot be used.
    #[error("{store}: {why}")]
    Settings {
        /// The store, with its address.
        store: String,
        /// What is wrong.
        why: String,
    },
}

impl StoreError {
    /// In words that name no address.
    #[must_use]
    pub fn for_callers(&self) -> String {
        match self {
            Self::Unreachable { .. } => "the store of passages cannot be reached".to_owned(),
            Self::Slow { limit, .. } => {
                format!("the store of passages did not answer within {} ms", limit.as_millis())
            }
            Self::Refused { .. } => "the store of passages refuses".to_owned(),
            Self::Dimension { .. } => "the store of passages has vectors of another encoder".to_owned(),
            Self::Settings { .. } => "the store of passages is not set up".to_owned(),
        }
    }

    /// Whether trying again may help.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Slow { .. })
    }
}

/// A store of passages.
#[derive(Debug)]
pub struct Store {
    kind: Kind,
    top: u32,
    min_score: Option<f64>,
    bytes_max: u32,
}

#[derive(Debug)]
enum Kind {
    Table(Box<Table>),
    Collection(Collection),
}

impl Store {
    /// The store of a route. Nothing is asked yet.
    ///
    /// # Errors
    /// Its URL or its certificates cannot be used.
    pub fn new(retrieve: &Retrieve, secrets: Secrets) -> Result<Self, StoreError> {
        let kind = match &retrieve.source {
            RetrieveSource { pgvector: Some(table), .. } => Kind::Table(Box::new(Table::new(table, secrets)?)),
            RetrieveSource { qdrant: Some(collection), .. } => Kind::Collection(Collection::new(collection, secrets)?),
            RetrieveSource { pgvector: None, qdrant: None } => {
                let why = "spec.retrieve.source must have exactly one of pgvector and qdrant".to_owned();
                return Err(StoreError::Settings { store: "the store of passages".to_owned(), why });
            }
        };
        let Retrieve { top, min_score, max_bytes, .. } = *retrieve;
        Ok(Self { kind, top, min_score, bytes_max: max_bytes })
    }

    /// The passages that are most similar to `vector`, the best first, within `limit`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn search(&self, vector: &[f32], limit: Duration) -> Result<Vec<Passage>, StoreError> {
        let found = match &self.kind {
            Kind::Table(table) => self.within(limit, table.search(vector, self.top, self.bytes_max)).await,
            Kind::Collection(collection) => self.within(limit, collection.search(vector, self.top)).await,
        };
        let mut found = found?;
        found.retain(|passage| passage.score.is_finite() && self.min_score.is_none_or(|least| passage.score >= least));
        Ok(found)
    }

    /// Makes the store if it is not there, for vectors of `dimension` numbers.
    ///
    /// # Errors
    /// See [`StoreError`]; it holds vectors of another length.
    pub async fn prepare(&self, dimension: usize) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Table(table) => self.within(CHANGE_MAX, table.prepare(dimension)).await,
            Kind::Collection(collection) => self.within(CHANGE_MAX, collection.prepare(dimension)).await,
        }
    }

    /// Ids of all passages, with their sources.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn list(&self) -> Result<HashMap<String, String>, StoreError> {
        match &self.kind {
            Kind::Table(table) => self.within(CHANGE_MAX, table.list()).await,
            Kind::Collection(collection) => self.within(CHANGE_MAX, collection.list()).await,
        }
    }

    /// Stores passages, in the place of those with the same ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put(&self, rows: &[Row]) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Table(table) => self.within(CHANGE_MAX, table.put(rows)).await,
            Kind::Collection(collection) => self.within(CHANGE_MAX, collection.put(rows)).await,
        }
    }

    /// Removes passages.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove(&self, ids: &[String]) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Table(table) => self.within(CHANGE_MAX, table.remove(ids)).await,
            Kind::Collection(collection) => self.within(CHANGE_MAX, collection.remove(ids)).await,
        }
    }

    /// What it is, with its address.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.kind {
            Kind::Table(table) => &table.name,
            Kind::Collection(collection) => &collection.name,
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let late = |_| StoreError::Slow { store: self.name().to_owned(), limit };
        timeout(limit, asked).await.map_err(late)?
    }
}
