//! A name to what it stands for.

use slm_crds::nearest::nearest;

use crate::{
    refusal::Refusal,
    view::{Entry, View},
};

/// A request whose name is known.
#[derive(Debug)]
pub(crate) struct Resolved<'v> {
    pub(crate) view: &'v View,
    pub(crate) requested: &'v str,
    pub(crate) entry: &'v Entry,
}

/// # Errors
/// [`Refusal::UnknownModel`] with the nearest names.
pub(crate) fn resolve<'v>(view: &'v View, name: &str) -> Result<Resolved<'v>, Refusal> {
    if name.is_empty() {
        return Err(Refusal::NoModel);
    }
    if let Some((requested, entry)) = view.index.names.get_key_value(name) {
        return Ok(Resolved { view, requested, entry });
    }
    // A name can be as long as a body; what is shown and compared is not.
    let shown: String = name.chars().take(80).collect();
    let nearest = nearest(&shown, view.index.names.keys().map(String::as_str));
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
            let resolved = resolve(&view, name).expect(name);
            assert_eq!((resolved.requested, matches!(resolved.entry, Entry::Route(_))), (name, is_route));
        }
        let cases = [
            ("bankin", "no model, adapter or route is named `bankin`; did you mean `banking`?"),
            ("gpt-4o", "no model, adapter or route is named `gpt-4o`"),
            ("", "`model` is missing: name a model, an adapter or a route"),
        ];
        for (name, message) in cases {
            assert_eq!(resolve(&view, name).expect_err(name).to_string(), message);
        }
    }
}
