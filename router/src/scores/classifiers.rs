//! Labels of requests by the classifiers of their routes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use slm_crds::route::Classifier;

use super::{
    Kept, Labelled, ReadError, Readers, Scope, ScoreError, in_time,
    kept::key,
    labels::Names,
    readable,
    readers::{Classification, Reader},
};
use crate::metrics::Metrics;

const ROLE: &str = "classifier";
/// Classifiers whose names of labels are kept. A swarm has as many as it has such routes.
const NAMES_MAX: usize = 1024;

/// The classifiers of one router.
pub(crate) struct Classifiers {
    readers: Readers,
    kept: Kept,
    metrics: Arc<Metrics>,
    /// Of each classifier the version that answered last, and the names of its outputs.
    names: Mutex<HashMap<String, (String, Arc<Names>)>>,
}

impl Classifiers {
    pub(crate) fn new(readers: Readers, kept: Kept, metrics: Arc<Metrics>) -> Self {
        Self { readers, kept, metrics, names: Mutex::default() }
    }

    /// Scores of `text` by the classifier of that route.
    pub(crate) async fn label(
        &self,
        route: &str,
        classifier: &Classifier,
        text: &str,
        tenant: &str,
    ) -> Result<Labelled, ScoreError> {
        let begun = Instant::now();
        let scored = async { self.labelled(classifier, readable(text)?, tenant).await };
        let outcome = in_time((ROLE, &classifier.model.name), scored).await;
        let scope = Scope::of_outcome(outcome.as_ref().map(|labelled| labelled.scope));
        self.metrics.scored("label", route, scope, begun);
        outcome
    }

    async fn labelled(&self, classifier: &Classifier, text: &str, tenant: &str) -> Result<Labelled, ScoreError> {
        let digest = self.readers.digest(ROLE, &classifier.model)?;
        match self.labelled_by(&digest, classifier, text, tenant).await {
            // The classifier was replaced meanwhile: once more, by the new version.
            Err(error) if error.is_of_version() && self.readers.digest(ROLE, &classifier.model)? != digest => {
                let digest = self.readers.digest(ROLE, &classifier.model)?;
                Ok(self.labelled_by(&digest, classifier, text, tenant).await?)
            }
            outcome => Ok(outcome?),
        }
    }

    async fn labelled_by(
        &self,
        digest: &str,
        classifier: &Classifier,
        text: &str,
        tenant: &str,
    ) -> Result<Labelled, ReadError> {
        let model = &classifier.model;
        let reader = Reader::classifier(model, digest);
        let key = key(tenant, &reader, text);
        if let (Some(names), Some(numbers)) = (self.names(&model.name, digest), self.kept.get(&key))
            && let Some((typicality, probabilities)) = numbers.split_last()
        {
            let typicality = Some(*typicality).filter(|typicality| !typicality.is_nan());
            return Ok(names.scores(classifier, probabilities, typicality));
        }
        let Classification { labels, experts, probabilities, typicality } =
            self.readers.classify(&reader, text, tenant).await?;
        let names = self.keep_names(&model.name, digest, Names { labels, experts });
        let scores = names.scores(classifier, &probabilities, typicality);
        let numbers: Vec<f32> = probabilities.into_iter().chain([typicality.unwrap_or(f32::NAN)]).collect();
        self.kept.put(key, numbers.into());
        Ok(scores)
    }

    fn names(&self, name: &str, digest: &str) -> Option<Arc<Names>> {
        let known = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|(version, _)| version == digest).map(|(_, names)| Arc::clone(names))
    }

    fn keep_names(&self, name: &str, digest: &str, names: Names) -> Arc<Names> {
        let names = Arc::new(names);
        let mut known = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= NAMES_MAX {
            // Those of classifiers that are gone go with them; the others come back with their next text.
            known.clear();
        }
        known.insert(name.to_owned(), (digest.to_owned(), Arc::clone(&names)));
        names
    }
}
