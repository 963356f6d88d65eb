//! Watches of Kubernetes objects, shared by the operator and the routers: a store of the latest objects, and a
//! notification of every change. While the API server is unreachable, the stores stay as they are.
//!
//! An object that does not decode hides no other object. It is logged and recorded in [`Undecodable`]. If an earlier
//! version of it did decode, the store keeps that version: a manifest that only a newer release can read stops nothing
//! that is serving.

mod intake;
mod reconnect_backoff;
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
    reconnect_backoff::ReconnectBackoff,
    tell::Tell,
    undecodable::{Invalid, Undecodable},
};

/// The watches of one process. None should end before this is dropped; [`Watches::ended`] reports one that did.
#[derive(Debug, Default)]
pub struct Watches {
    tasks: JoinSet<()>,
    undecodable: Undecodable,
}

impl Watches {
    /// No watches.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a watch of one kind.
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

    /// The objects that do not decode.
    #[must_use]
    pub fn undecodable(&self) -> Undecodable {
        self.undecodable.clone()
    }

    /// Waits until a watch ends, and gives the reason. That is a fault: its store is no longer updated, and its users
    /// must end too. Waits for ever if nothing is watched.
    pub async fn ended(&mut self) -> String {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            Some(Ok(())) => "a watch ended: its receiver was dropped".to_owned(),
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
    let events = watcher::watcher(api, config).backoff(ReconnectBackoff::default());
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let told = match event {
            // The watcher reopens a broken watch; missed changes come with the next listing.
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
