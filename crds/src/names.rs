//! Names: models, adapters and routes share one namespace of names. Manifests and clusters report the same conflicts
//! and dangling references, with the same messages.
//!
//! [`holders`] alone decides which of several objects owns a name. The operator's controllers, its loads of adapters,
//! the routers and the manifest reader all use it, each over the objects that it knows.

use std::collections::HashMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use thiserror::Error;

use crate::{
    nearest::{did_you_mean, nearest},
    route::TargetKind,
    schema::Kind,
};

/// An object's claim to its name. Claims are ordered: the least claim to a name wins.
///
/// `A` is the age: [`Birth`] in a cluster, the position in the folder for a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim<A> {
    /// Age of the object; an older one compares as less.
    pub age: A,
    /// Kind of the object, which decides between objects of the same age.
    pub kind: Kind,
}

/// Age of an object in a cluster. Timestamps have whole seconds, so the uid decides within a second. An object without
/// a timestamp counts as the youngest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Birth {
    created: (bool, Option<Timestamp>),
    uid: String,
}

impl Claim<Birth> {
    /// Claim of the object of `kind` with this metadata. An object that is being deleted has none.
    #[must_use]
    pub fn of(kind: Kind, metadata: &ObjectMeta) -> Option<Self> {
        if metadata.deletion_timestamp.is_some() {
            return None;
        }
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
        let uid = metadata.uid.clone().unwrap_or_default();
        Some(Self { age: Birth { created: (created.is_none(), created), uid }, kind })
    }
}

/// Owner of each name: the oldest object that claims it.
pub fn holders<A: Ord>(claims: impl IntoIterator<Item = (String, Claim<A>)>) -> HashMap<String, Claim<A>> {
    let mut holders: HashMap<String, Claim<A>> = HashMap::new();
    for (name, claim) in claims {
        match holders.get_mut(&name) {
            Some(holder) if claim < *holder => *holder = claim,
            Some(_) => {}
            None => {
                holders.insert(name, claim);
            }
        }
    }
    holders
}

/// Names that references may point to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Of base models.
    pub models: Vec<String>,
    /// Of adapters.
    pub adapters: Vec<String>,
    /// Of models outside of the swarm.
    pub externals: Vec<String>,
}

/// A dangling reference.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no {kind} is named `{name}`{suggestion}")]
pub struct Dangling {
    /// Kind of the reference.
    kind: TargetKind,
    /// Name of the reference.
    name: String,
    /// "Did you mean", or the end of the sentence.
    suggestion: String,
}

/// A name that another object owns.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the name `{name}` is taken by the {other}; models, adapters, external models and routes share one space of names"
)]
pub struct NameTaken {
    /// The claimed name.
    pub name: String,
    /// Kind of the owner, and its location, if known.
    pub other: String,
}

impl Known {
    fn of(&self, kind: TargetKind) -> &[String] {
        match kind {
            TargetKind::SlmModel => &self.models,
            TargetKind::LoraAdapter => &self.adapters,
            TargetKind::ExternalModel => &self.externals,
        }
    }

    /// The fault of a reference to `kind` `name`, if it is dangling.
    #[must_use]
    pub fn dangling(&self, kind: TargetKind, name: &str) -> Option<Dangling> {
        if self.of(kind).iter().any(|known| known == name) {
            return None;
        }
        let kinds = [TargetKind::SlmModel, TargetKind::LoraAdapter, TargetKind::ExternalModel];
        let other = kinds.into_iter().find(|other| self.of(*other).iter().any(|known| known == name));
        let suggestion = match other {
            Some(other) => format!("; it is a{} {other}", if other == TargetKind::ExternalModel { "n" } else { "" }),
            None => did_you_mean(&nearest(name, self.of(kind).iter().map(String::as_str))),
        };
        Some(Dangling { kind, name: name.to_owned(), suggestion })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn claim(kind: Kind, created: Option<i64>, uid: &str) -> Claim<Birth> {
        let created = created.map(|second| Time(Timestamp::from_second(second).expect("a time")));
        let metadata = ObjectMeta { creation_timestamp: created, uid: Some(uid.to_owned()), ..ObjectMeta::default() };
        Claim::of(kind, &metadata).expect("a claim")
    }

    /// Every order in which three objects can be created, and every order in which they can be listed.
    #[test]
    fn the_oldest_of_three_kinds_has_the_name() {
        const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for created in ORDERS {
            let claims: Vec<_> = created
                .iter()
                .enumerate()
                .map(|(age, kind)| claim(Kind::LOCAL[*kind], Some(age as i64), &format!("u{kind}")))
                .collect();
            for listed in ORDERS {
                let held = holders(listed.map(|index| ("name".to_owned(), claims[index].clone())));
                assert_eq!(held["name"].kind, Kind::LOCAL[created[0]], "created {created:?}, listed {listed:?}");
            }
        }
    }

    #[test]
    fn what_decides_between_objects_of_one_age() {
        let holder = |claims: [Claim<Birth>; 2]| holders(claims.map(|claim| ("name".to_owned(), claim)))["name"].kind;
        let (model, route) = (Kind::SlmModel, Kind::SwarmRoute);
        assert_eq!(holder([claim(model, Some(1), "b"), claim(route, Some(1), "a")]), route, "the uid");
        assert_eq!(holder([claim(route, Some(1), "a"), claim(model, Some(1), "a")]), model, "the kind");
        assert_eq!(holder([claim(model, None, "a"), claim(route, Some(9), "b")]), route, "no timestamp is youngest");
    }

    #[test]
    fn an_object_that_is_being_deleted_claims_nothing() {
        let metadata = ObjectMeta { deletion_timestamp: Some(Time(Timestamp::UNIX_EPOCH)), ..ObjectMeta::default() };
        assert_eq!(Claim::of(Kind::SlmModel, &metadata), None);
    }

    #[test]
    fn references_to_nothing_are_told_from_misspelled_ones() {
        let [models, adapters, externals] = ["smol", "banking", "large"].map(|name| vec![name.to_owned()]);
        let known = Known { models, adapters, externals };
        let said = |kind, name| known.dangling(kind, name).map(|fault| fault.to_string());
        assert_eq!(said(TargetKind::SlmModel, "smol"), None);
        let cases = [
            (TargetKind::SlmModel, "smoll", "no SlmModel is named `smoll`; did you mean `smol`?"),
            (TargetKind::SlmModel, "banking", "no SlmModel is named `banking`; it is a LoraAdapter"),
            (TargetKind::LoraAdapter, "zzz", "no LoraAdapter is named `zzz`"),
            (TargetKind::LoraAdapter, "large", "no LoraAdapter is named `large`; it is an ExternalModel"),
            (TargetKind::ExternalModel, "larg", "no ExternalModel is named `larg`; did you mean `large`?"),
        ];
        for (kind, name, words) in cases {
            assert_eq!(said(kind, name).as_deref(), Some(words));
        }
    }
}
