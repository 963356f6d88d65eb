//! Scores by label: the probabilities of a classifier's labels, summed for each target. Pure.
//!
//! Whether a text is in scope is told by its typicality, which heads give: a share of texts in scope, so the route's share of false
//! rejections is its threshold. Other classifiers have the probability of the best target alone, and thresholds of the manifest.

use std::collections::HashMap;

use slm_crds::route::{Classifier, Thresholds};

use super::{Scope, best};

/// Scores of one text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Labelled {
    /// A probability for each target, in the route's order.
    pub(crate) scores: Vec<f32>,
    /// The place of the most probable target.
    pub(crate) best: usize,
    /// The most probable label.
    pub(crate) label: String,
    /// The expert of that label, if it is no target of the route.
    pub(crate) stray: Option<String>,
    pub(crate) typicality: Option<f32>,
    pub(crate) scope: Scope,
    /// Of the typicality, or else of the probability.
    pub(crate) thresholds: Thresholds,
}

/// Names of a classifier's outputs.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) labels: Vec<String>,
    /// The expert of each label; empty unless a head classifies.
    pub(crate) experts: Vec<String>,
}

impl Labelled {
    /// The probability of the most probable target.
    pub(crate) fn score(&self) -> f32 {
        self.scores.get(self.best).copied().unwrap_or_default()
    }
}

impl Names {
    /// Scores for the targets of `classifier`. There is a probability for each label, and at least one.
    pub(crate) fn scores(&self, classifier: &Classifier, probabilities: &[f32], typicality: Option<f32>) -> Labelled {
        let places: HashMap<&str, usize> =
            classifier.targets.iter().enumerate().map(|(place, target)| (target.name.as_str(), place)).collect();
        let mut scores = vec![0.0; classifier.targets.len()];
        for (label, probability) in probabilities.iter().enumerate() {
            if let Some(place) = places.get(self.expert(classifier, label)) {
                scores[*place] += probability;
            }
        }
        let label = best(probabilities);
        let expert = self.expert(classifier, label);
        let stray = (!places.contains_key(expert)).then(|| expert.to_owned());
        let best = best(&scores);
        let (scope, thresholds) = match typicality {
            Some(typicality) => of_typicality(typicality, classifier.false_rejections),
            None => {
                let everything = Thresholds { accept: 0.0, out_of_scope: 0.0 };
                let thresholds = classifier.thresholds.clone().unwrap_or(everything);
                let score = scores.get(best).copied().unwrap_or_default();
                (Scope::of(score.into(), &thresholds), thresholds)
            }
        };
        Labelled {
            scope: if stray.is_some() { Scope::Out } else { scope },
            label: self.labels.get(label).cloned().unwrap_or_default(),
            scores,
            best,
            stray,
            typicality,
            thresholds,
        }
    }

    /// The name of the target that a label belongs to, whether the route has it or not.
    fn expert<'a>(&'a self, classifier: &'a Classifier, label: usize) -> &'a str {
        let own = self.labels.get(label).map_or("", String::as_str);
        let listed = classifier.labels.get(own);
        listed.or_else(|| self.experts.get(label)).map_or(own, String::as_str)
    }
}

/// Of texts in scope, `share` have a typicality up to that share: they are called out of scope, and as many again unsure.
fn of_typicality(typicality: f32, share: f64) -> (Scope, Thresholds) {
    let thresholds = Thresholds { accept: 2.0 * share, out_of_scope: share };
    let scope = match f64::from(typicality) {
        typicality if typicality > thresholds.accept => Scope::In,
        typicality if typicality > thresholds.out_of_scope => Scope::Unsure,
        _ => Scope::Out,
    };
    (scope, thresholds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn classifier(more: &serde_json::Value) -> Classifier {
        let target = |name| json!({ "kind": "LoraAdapter", "name": name });
        let targets = ["banking", "travel"].map(target);
        let mut spec = json!({ "model": target("head"), "targets": targets });
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        serde_json::from_value(spec).expect("a classifier")
    }

    fn names(experts: &[&str]) -> Names {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names { labels: own(&["balance", "transfer", "flight", "poetry"]), experts: own(experts) }
    }

    const EXPERTS: [&str; 4] = ["banking", "banking", "travel", "arts"];

    #[test]
    fn probabilities_of_labels_are_those_of_their_targets() {
        let head = names(&EXPERTS);
        let labelled = head.scores(&classifier(&json!({})), &[0.3, 0.25, 0.35, 0.1], Some(0.5));
        // The most probable label is of travel, the most probable target is banking.
        assert_eq!((labelled.scores, labelled.best, labelled.label.as_str()), (vec![0.55, 0.35], 0, "flight"));
        assert_eq!((labelled.scope, labelled.stray), (Scope::In, None));
        let listed = classifier(&json!({ "labels": { "balance": "travel" } }));
        assert_eq!(head.scores(&listed, &[0.5, 0.1, 0.3, 0.1], Some(0.5)).scores, [0.1, 0.8]);
    }

    #[test]
    fn a_label_of_no_target_is_out_of_scope() {
        let labelled = names(&EXPERTS).scores(&classifier(&json!({})), &[0.1, 0.1, 0.2, 0.6], Some(0.9));
        assert_eq!((labelled.scope, labelled.stray.as_deref()), (Scope::Out, Some("arts")));
        // Without a head, labels are names of targets.
        let labelled = names(&[]).scores(&classifier(&json!({})), &[0.7, 0.1, 0.1, 0.1], None);
        assert_eq!((labelled.scope, labelled.stray.as_deref()), (Scope::Out, Some("balance")));
    }

    #[test]
    fn typicality_is_compared_with_the_share_of_false_rejections() {
        let head = names(&EXPERTS);
        let scope = |share: f64, typicality: f32| {
            let classifier = classifier(&json!({ "falseRejections": share }));
            head.scores(&classifier, &[0.9, 0.1, 0.0, 0.0], Some(typicality)).scope
        };
        assert_eq!([0.5, 0.03, 0.02].map(|typicality| scope(0.02, typicality)), [Scope::In, Scope::Unsure, Scope::Out]);
        assert_eq!(scope(0.0, 1e-6), Scope::In);
        let model = names(&[]);
        let labels = json!({ "balance": "banking", "transfer": "banking", "flight": "travel", "poetry": "travel" });
        let scope = |more: serde_json::Value, probability: f32| {
            let mut all = json!({ "labels": labels });
            all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            model.scores(&classifier(&all), &[probability, 0.0, 1.0 - probability, 0.0], None).scope
        };
        assert_eq!(scope(json!({}), 0.51), Scope::In);
        let thresholds = json!({ "thresholds": { "accept": 0.9, "outOfScope": 0.6 } });
        let scopes = [0.95, 0.7, 0.55].map(|probability| scope(thresholds.clone(), probability));
        assert_eq!(scopes, [Scope::In, Scope::Unsure, Scope::Out]);
    }
}
