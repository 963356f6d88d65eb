//! Watches of Kubernetes objects, as the operator and the routers keep them: a store that is always the last that was
//! heard, and a word when it changed. While the API server is away, the stores stay as they are.
//!
//! One object that does not decode hides nothing else. It is named in the log and kept in [`Undecodable`]; where an
//! earlier version of it did decode, the store keeps that version, so that what serves is not taken away by a manifest
//! that only a newer release can read.

mod intake;
mod patience;
mod tell;
mod undecodable;

use std::fmt::Debug;

use futures::{StreamExt as _, pin_mut};
use kube::{
    Api, Resource,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::intake::Intake;
pub use crate::{
    patience::Patience,
    tell::Tell,
    undecodable::{Invalid, Undecodable},
};

/// The watches of one process. None ends before this is dropped; [`Watches::ended`] tells when one did all the same.
#[derive(Debug, Default)]
pub struct Watches {
    tasks: JoinSet<()>,
    undecodable: Undecodable,
}

impl Watches {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps objects of one kind from now on.
    pub fn watch<K, T>(&mut self, api: Api<DeserializeGuard<K>>, config: watcher::Config, tell: Tell<T>) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        T: Copy + Send + Sync + 'static,
    {
        let (store, writer) = reflector::store();
        let intake = Intake::new(store.clone(), self.undecodable.clone());
        self.tasks.spawn(follow(api, config, writer, intake, tell));
        store
    }

    /// The objects that did not decode.
    #[must_use]
    pub fn undecodable(&self) -> Undecodable {
        self.undecodable.clone()
    }

    /// Waits until a watch has ended, and gives the reason. That is a fault: its store is not kept any more, and whoever
    /// relies on it has to end too. Waits for ever where nothing is watched.
    pub async fn ended(&mut self) -> String {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            Some(Ok(())) => "a watch ended: nobody listened to it any more".to_owned(),
            Some(Err(error)) => format!("a watch failed: {error}"),
        }
    }
}

async fn follow<K, T>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    mut writer: Writer<K>,
    mut intake: Intake<K>,
    tell: Tell<T>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    T: Copy + Send + Sync + 'static,
{
    let events = watcher::watcher(api, config).backoff(Patience::default());
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let told = match event {
            // A broken watch is opened again; what it missed comes with the next listing.
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "watch broke");
                true
            }
            Ok(event) => {
                let (event, names) = intake.take(event);
                if let Some(event) = event {
                    writer.apply_watcher_event(&event);
                }
                tell.of(names).await
            }
        };
        if !told {
            return;
        }
    }
}
