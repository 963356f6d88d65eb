//! A route with its rules compiled: plain data, made once for each version of the route.

use std::sync::Arc;

use slm_crds::{
    route::{RouteRule, SwarmRouteSpec, Target},
    rule::{Rule, RuleError},
};

/// A compiled `SwarmRoute`.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) rules: Vec<CompiledRule>,
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
    pub(crate) fn compile(name: &str, spec: &SwarmRouteSpec) -> Self {
        let compile = |RouteRule { when, to }: &RouteRule| CompiledRule {
            rule: Rule::compile(when),
            when: when.clone(),
            to: to.clone(),
        };
        Self { name: name.to_owned(), rules: spec.rules.iter().map(compile).collect(), spec: spec.clone() }
    }

    /// `compiled` if it is this very route, else a new one: compiling costs a thousand times what a comparison does.
    pub(crate) fn reuse(compiled: Option<&Arc<Self>>, name: &str, spec: &SwarmRouteSpec) -> Arc<Self> {
        match compiled {
            Some(compiled) if compiled.spec == *spec => Arc::clone(compiled),
            _ => Arc::new(Self::compile(name, spec)),
        }
    }

    pub(crate) fn description(&self) -> &str {
        self.spec.description.as_deref().unwrap_or_default()
    }

    pub(crate) fn fallback(&self) -> &Target {
        &self.spec.fallback
    }

    /// Every expert that may answer, the fallback last.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.rules.iter().map(|rule| &rule.to).chain([self.fallback()])
    }

    /// Rules that do not compile: number, counted from 1, and why.
    pub(crate) fn broken(&self) -> impl Iterator<Item = (usize, &RuleError)> {
        (1..).zip(&self.rules).filter_map(|(number, rule)| Some((number, rule.rule.as_ref().err()?)))
    }
}
