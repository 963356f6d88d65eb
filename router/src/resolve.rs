//! Resolution of a name to a model, an adapter or a route.

use slm_crds::nearest::nearest;

use crate::{
    access::table::Caller,
    refusal::Refusal,
    view::{Entry, View},
};

/// Names that are compared with one that is unknown, and held against the patterns of a token: what a wrong name may cost.
const SUGGESTED_FROM_MAX: usize = 1000;

/// A request with its name resolved.
#[derive(Debug)]
pub(crate) struct Resolved<'v> {
    pub(crate) view: &'v View,
    pub(crate) requested: &'v str,
    pub(crate) entry: &'v Entry,
}

/// A name that a caller may not use does not exist for it, and is not suggested to it either.
///
/// # Errors
/// [`Refusal::UnknownModel`] with the nearest names; [`Refusal::External`]: only routes lead to it.
pub(crate) fn resolve<'v>(view: &'v View, name: &str, caller: &Caller) -> Result<Resolved<'v>, Refusal> {
    if name.is_empty() {
        return Err(Refusal::NoModel);
    }
    if let Some((requested, entry)) = view.index.names.get_key_value(name)
        && caller.may(name)
    {
        if matches!(entry, Entry::Expert(expert) if expert.is_external()) {
            return Err(Refusal::External { name: name.to_owned() });
        }
        return Ok(Resolved { view, requested, entry });
    }
    // A name can be as long as a body; what is shown and compared is not.
    let shown: String = name.chars().take(80).collect();
    let named = |entry: &Entry| !matches!(entry, Entry::Expert(expert) if expert.is_external());
    let known = view.index.names.iter().filter(|(_, entry)| named(entry)).map(|(name, _)| name.as_str());
    let known = known.take(SUGGESTED_FROM_MAX);
    let nearest = nearest(&shown, known.filter(|name| caller.may(name)));
    Err(Refusal::UnknownModel { nearest: nearest.into_iter().map(str::to_owned).collect(), name: shown })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures;

    #[test]
    fn names() {
        let view = fixtures::view(vec![]);
        for (name, is_route) in [("smol", false), ("banking", false), ("assistant", true)] {
            let resolved = resolve(&view, name, &Caller::anybody()).expect(name);
            assert_eq!((resolved.requested, matches!(resolved.entry, Entry::Route(_))), (name, is_route));
        }
        let cases = [
            ("bankin", "no model, adapter or route is named `bankin`; did you mean `banking`?"),
            ("gpt-4o", "no model, adapter or route is named `gpt-4o`"),
            ("", "`model` is missing: name a model, an adapter or a route"),
        ];
        for (name, message) in cases {
            assert_eq!(resolve(&view, name, &Caller::anybody()).expect_err(name).to_string(), message);
        }
    }

    #[test]
    fn what_a_caller_may_not_name_is_not_there() {
        let view = fixtures::view(vec![]);
        let caller = Caller::of("team", &["banking"]);
        assert!(resolve(&view, "banking", &caller).is_ok());
        for name in ["travel", "travl"] {
            let message = resolve(&view, name, &caller).expect_err(name).to_string();
            assert_eq!(message, format!("no model, adapter or route is named `{name}`"));
        }
    }
}
