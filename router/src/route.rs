//! A route with its rules compiled: plain data, made once for each version of the route.

use std::sync::Arc;

use slm_crds::{
    ensemble::{Ensemble, Shadow},
    retrieve::Retrieve,
    route::{Cascade, Classifier, DataPolicy, OnError, OutOfScope, RouteRule, Similarity, SwarmRouteSpec, Target},
    rule::{Rule, RuleError},
};

/// A compiled `SwarmRoute`.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) rules: Vec<CompiledRule>,
    /// Examples of each target of its similarity.
    pub(crate) examples: Vec<Vec<String>>,
    spec: SwarmRouteSpec,
}

/// A compiled rule, or the reason why it does not compile.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub(crate) rule: Result<Rule, RuleError>,
    /// Its text in the manifest.
    pub(crate) when: String,
    pub(crate) to: Target,
}

impl Route {
    fn compile(name: &str, spec: &SwarmRouteSpec, examples: Vec<Vec<String>>) -> Self {
        let compile = |RouteRule { when, to }: &RouteRule| CompiledRule {
            rule: Rule::compile(when),
            when: when.clone(),
            to: to.clone(),
        };
        Self { name: name.to_owned(), rules: spec.rules.iter().map(compile).collect(), examples, spec: spec.clone() }
    }

    /// `compiled` if it is this very route, else a new one: compiling costs a thousand times what a comparison does.
    /// `examples` are those of an expert.
    pub(crate) fn reuse<'e>(
        compiled: Option<&Arc<Self>>,
        name: &str,
        spec: &SwarmRouteSpec,
        examples: impl Fn(&Target) -> &'e [String],
    ) -> Arc<Self> {
        let of_targets = || spec.similarity.iter().flat_map(|similarity| &similarity.targets).map(&examples);
        match compiled {
            Some(compiled)
                if compiled.spec == *spec && of_targets().eq(compiled.examples.iter().map(Vec::as_slice)) =>
            {
                Arc::clone(compiled)
            }
            _ => Arc::new(Self::compile(name, spec, of_targets().map(<[String]>::to_vec).collect())),
        }
    }

    pub(crate) fn description(&self) -> &str {
        self.spec.description.as_deref().unwrap_or_default()
    }

    pub(crate) fn fallback(&self) -> &Target {
        &self.spec.fallback
    }

    pub(crate) fn classifier(&self) -> Option<&Classifier> {
        self.spec.classifier.as_ref()
    }

    pub(crate) fn similarity(&self) -> Option<&Similarity> {
        self.spec.similarity.as_ref()
    }

    pub(crate) fn out_of_scope(&self) -> Option<&OutOfScope> {
        self.spec.out_of_scope.as_ref()
    }

    pub(crate) fn cascade(&self) -> Option<&Cascade> {
        self.spec.cascade.as_ref()
    }

    pub(crate) fn ensemble(&self) -> Option<&Ensemble> {
        self.spec.ensemble.as_ref()
    }

    pub(crate) fn shadow(&self) -> Option<&Shadow> {
        self.spec.shadow.as_ref()
    }

    pub(crate) fn retrieve(&self) -> Option<&Retrieve> {
        self.spec.retrieve.as_ref()
    }

    pub(crate) fn data_policy(&self) -> DataPolicy {
        self.spec.data_policy
    }

    /// Whether a request is refused whose rules, label, similarity or ensemble fail.
    pub(crate) fn rejects_on_error(&self) -> bool {
        self.spec.on_error == OnError::Reject
    }

    /// Every expert that may answer, the fallback last.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.spec.references().filter(|(place, _)| place.answers()).map(|(_, target)| target)
    }

    /// Rules that do not compile: number, counted from 1, and why.
    pub(crate) fn broken(&self) -> impl Iterator<Item = (usize, &RuleError)> {
        (1..).zip(&self.rules).filter_map(|(number, rule)| Some((number, rule.rule.as_ref().err()?)))
    }
}
