//! Converts events of a watch into events for its store, and sets aside objects that do not decode.

use std::{collections::BTreeSet, sync::Arc};

use kube::{
    Resource, ResourceExt as _,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};

use crate::undecodable::{Invalid, Undecodable};

/// Converter between the watch and the store of one kind.
pub(crate) struct Intake<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    undecodable: Undecodable,
    kind: String,
    /// Names known when the current listing began.
    before: BTreeSet<String>,
    /// Names seen in the current listing.
    listed: BTreeSet<String>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Intake<K> {
    pub(crate) fn new(store: Store<K>, undecodable: Undecodable) -> Self {
        let kind = K::kind(&()).into_owned();
        Self { store, undecodable, kind, before: BTreeSet::new(), listed: BTreeSet::new() }
    }

    /// The event for the store, if any, and the names of the objects that changed.
    pub(crate) fn take(&mut self, event: Event<DeserializeGuard<K>>) -> (Option<Event<K>>, Vec<String>) {
        match event {
            Event::Init => {
                self.before = self.store.state().iter().map(|object| object.name_any()).collect();
                self.before.extend(self.undecodable.names(&self.kind));
                self.listed.clear();
                (Some(Event::Init), Vec::new())
            }
            Event::InitApply(DeserializeGuard(object)) => {
                let (name, object) = self.kept(object);
                self.listed.insert(name);
                (object.map(Event::InitApply), Vec::new())
            }
            Event::InitDone => {
                for gone in self.before.difference(&self.listed) {
                    self.undecodable.remove(&self.kind, gone);
                }
                // Objects deleted while the watch was broken have changed too.
                let names = self.before.union(&self.listed).cloned().collect();
                (Some(Event::InitDone), names)
            }
            Event::Apply(DeserializeGuard(object)) => {
                let (name, kept) = self.kept(object);
                let event = match kept {
                    Some(object) => Some(Event::Apply(object)),
                    // An earlier object of that name with another uid is gone.
                    None => self.find(&name).map(|former| Event::Delete((*former).clone())),
                };
                (event, vec![name])
            }
            Event::Delete(object) => {
                let name = object.name_any();
                self.undecodable.remove(&self.kind, &name);
                let object = object.0.ok().or_else(|| Some((*self.find(&name)?).clone()));
                (object.map(Event::Delete), vec![name])
            }
        }
    }

    /// The object for the store: the object itself, or its last version that decoded.
    fn kept(&self, object: Result<K, InvalidObject>) -> (String, Option<K>) {
        match object {
            Ok(object) => {
                let name = object.name_any();
                if self.undecodable.remove(&self.kind, &name) {
                    tracing::info!(kind = self.kind, name, "the object decodes again");
                }
                (name, Some(object))
            }
            Err(invalid) => self.former(invalid),
        }
    }

    fn former(&self, InvalidObject { error, metadata }: InvalidObject) -> (String, Option<K>) {
        let name = metadata.name.clone().unwrap_or_default();
        let former = self.find(&name).filter(|former| former.meta().uid == metadata.uid).map(|former| {
            let mut former = (*former).clone();
            // The deletion timestamp can be read even if the object does not decode.
            former.meta_mut().deletion_timestamp = metadata.deletion_timestamp.clone();
            former
        });
        let former_in_use = former.is_some();
        let invalid = Invalid { kind: self.kind.clone(), metadata, error, former_in_use };
        if self.undecodable.insert(&name, invalid.clone()) {
            let kept = if former_in_use { "its last version that decoded stays in use" } else { "it is ignored" };
            tracing::error!(
                kind = self.kind,
                name,
                resource_version = invalid.metadata.resource_version,
                error = invalid.error,
                "an object does not decode: {kept}; mend it, or upgrade this program"
            );
        }
        (name, former)
    }

    fn find(&self, name: &str) -> Option<Arc<K>> {
        // A watch covers one namespace, or a kind without namespaces.
        self.store.get(&ObjectRef::new(name)).or_else(|| self.store.find(|object| object.name_any() == name))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::reflector::{self, store::Writer};
    use serde_json::{Value, json};

    use super::*;

    struct Watched {
        store: Store<ConfigMap>,
        writer: Writer<ConfigMap>,
        intake: Intake<ConfigMap>,
        undecodable: Undecodable,
    }

    fn watched() -> Watched {
        let (store, writer) = reflector::store();
        let undecodable = Undecodable::default();
        Watched { intake: Intake::new(store.clone(), undecodable.clone()), store, writer, undecodable }
    }

    /// A ConfigMap whose `data` is text decodes; one whose `data` is a number does not.
    fn object(name: &str, uid: &str, data: Value) -> DeserializeGuard<ConfigMap> {
        let object = json!({ "metadata": { "name": name, "namespace": "n", "uid": uid }, "data": data });
        serde_json::from_value(object).expect("an object of any form")
    }

    fn good(name: &str, value: &str) -> DeserializeGuard<ConfigMap> {
        object(name, name, json!({ "key": value }))
    }

    fn bad(name: &str) -> DeserializeGuard<ConfigMap> {
        object(name, name, json!(1))
    }

    impl Watched {
        fn take(&mut self, event: Event<DeserializeGuard<ConfigMap>>) -> Vec<String> {
            let (event, names) = self.intake.take(event);
            if let Some(event) = event {
                self.writer.apply_watcher_event(&event);
            }
            names
        }

        fn list(&mut self, objects: Vec<DeserializeGuard<ConfigMap>>) -> Vec<String> {
            self.take(Event::Init);
            for object in objects {
                self.take(Event::InitApply(object));
            }
            self.take(Event::InitDone)
        }

        fn held(&self) -> Vec<(String, String)> {
            let mut held: Vec<_> = self
                .store
                .state()
                .iter()
                .map(|map| (map.name_any(), map.data.clone().unwrap_or_default()["key"].clone()))
                .collect();
            held.sort();
            held
        }

        fn bad(&self) -> Vec<String> {
            self.undecodable.names("ConfigMap")
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn one_object_that_does_not_decode_hides_no_other() {
        let mut watched = watched();
        assert_eq!(watched.list(vec![good("a", "1"), bad("b"), good("c", "1")]), ["a", "b", "c"]);
        assert_eq!(watched.held(), pairs(&[("a", "1"), ("c", "1")]));
        assert_eq!(watched.bad(), ["b"]);
        assert!(!watched.undecodable.all()[0].former_in_use);
        watched.take(Event::Apply(good("b", "2")));
        assert_eq!((watched.held().len(), watched.bad().len()), (3, 0), "mended");
    }

    #[test]
    fn the_last_version_that_decoded_stays() {
        let mut watched = watched();
        watched.list(vec![good("a", "1")]);
        assert_eq!(watched.take(Event::Apply(bad("a"))), ["a"]);
        assert_eq!(watched.held(), pairs(&[("a", "1")]));
        watched.list(vec![bad("a"), good("b", "1")]);
        assert_eq!(watched.held(), pairs(&[("a", "1"), ("b", "1")]), "also over a new listing");
        assert!(watched.undecodable.all()[0].former_in_use);
        watched.take(Event::Delete(bad("a")));
        assert_eq!((watched.held(), watched.bad().len()), (pairs(&[("b", "1")]), 0));
    }

    #[test]
    fn another_object_of_the_same_name_is_not_a_version_of_it() {
        let mut watched = watched();
        watched.list(vec![good("a", "1")]);
        watched.take(Event::Apply(object("a", "another", json!(1))));
        assert!(watched.held().is_empty());
        watched.list(vec![good("a", "1")]);
        watched.list(vec![object("a", "another", json!(1))]);
        assert!(watched.held().is_empty());
    }

    #[test]
    fn what_went_unseen_is_told() {
        let mut watched = watched();
        watched.list(vec![good("a", "1"), bad("b")]);
        assert_eq!(watched.list(vec![good("c", "1")]), ["a", "b", "c"]);
        assert!(watched.bad().is_empty());
    }

    #[test]
    fn a_fault_is_news_once() {
        let undecodable = Undecodable::default();
        let invalid = |generation: i64, version: &str| Invalid {
            kind: "SlmModel".to_owned(),
            metadata: serde_json::from_value(
                json!({ "name": "a", "uid": "u", "generation": generation, "resourceVersion": version }),
            )
            .expect("metadata"),
            error: "unknown variant".to_owned(),
            former_in_use: false,
        };
        assert!(undecodable.insert("a", invalid(1, "1")));
        assert!(!undecodable.insert("a", invalid(1, "2")), "only the status changed");
        assert!(undecodable.insert("a", invalid(2, "3")));
    }
}
