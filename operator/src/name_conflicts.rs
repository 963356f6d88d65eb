//! Name conflicts: models, adapters, external models and routes share one namespace of names, because callers put
//! names into `model` and answers say whom they are from. Of several objects with one name the oldest owns it ([`slm_crds::names::holders`]).

use kube::{Resource, ResourceExt};
use slm_crds::{names::NameTaken, schema::Kind};

use crate::{conditions::Verdict, objects::Objects};

/// Reason of the Ready condition of an object that does not own its name.
const NAME_TAKEN: &str = "NameTaken";

/// The refusal of `object` if another object owns its name.
#[must_use]
pub(crate) fn name_taken<K: Resource<DynamicType = ()>>(object: &K, objects: &Objects) -> Option<Verdict> {
    let name = object.name_any();
    let holder = objects.holder(&name)?;
    if Kind::named(&K::kind(&())) == Some(holder.kind) {
        return None;
    }
    let other = holder.kind.name().to_owned();
    let why = format!("{}: rename one; the older object has the name", NameTaken { name, other });
    Some(Verdict::wrong(NAME_TAKEN, why))
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::objects::fixtures::world;

    #[test]
    fn of_three_objects_the_oldest_has_the_name() {
        for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
            let mut world = world();
            let (model, adapter) = (world.model("x", order[0]), world.adapter("x", "base", order[1]));
            let route = world.route("x", "base", order[2]);
            let taken = [
                name_taken(&model, &world.objects),
                name_taken(&adapter, &world.objects),
                name_taken(&route, &world.objects),
            ];
            assert_eq!(taken.map(|taken| taken.is_none()), order.map(|age| age == 1), "{order:?}");
            assert_eq!(world.objects.model("x").is_some(), order[0] == 1);
            assert_eq!(world.objects.adapter("x").is_some(), order[1] == 1);
        }
    }

    #[test]
    fn external_models_share_the_names() {
        for (model, external) in [(1, 2), (2, 1)] {
            let mut world = world();
            let (model_object, external_object) = (world.model("x", model), world.external("x", external));
            assert_eq!(name_taken(&model_object, &world.objects).is_none(), model == 1);
            assert_eq!(name_taken(&external_object, &world.objects).is_none(), external == 1);
            assert_eq!(world.objects.external("x").is_some(), external == 1);
        }
    }

    #[test]
    fn a_name_is_free_when_its_holder_goes() {
        let mut world = world();
        let (model, adapter) = (world.model("x", 1), world.adapter("x", "base", 2));
        assert!(name_taken(&adapter, &world.objects).is_some_and(|why| why.reason == NAME_TAKEN));
        world.models.apply_watcher_event(&Event::Delete(model));
        assert_eq!(name_taken(&adapter, &world.objects), None);
        assert!(world.objects.adapter("x").is_some());
    }
}
