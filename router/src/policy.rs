//! The data policy of a request: the strictest of its route's, its token's, its router's and its own.

use slm_crds::route::DataPolicy;
use slm_proto::v1::GenerateRequest;

use crate::{access::table::Caller, refusal::Refusal, view::View};

/// Key of a request's metadata.
const KEY: &str = "data_policy";

/// What may leave the swarm for a request. Nothing does for one that names a model or an adapter. `limit` is the router's own.
///
/// # Errors
/// [`Refusal::UnknownPolicy`]: the request's own is no policy.
pub(crate) fn of_request(
    view: &View,
    request: &GenerateRequest,
    caller: &Caller,
    limit: DataPolicy,
) -> Result<DataPolicy, Refusal> {
    let own = request.metadata.get(KEY).map(|word| word.parse()).transpose().map_err(Refusal::UnknownPolicy)?;
    let own = own.unwrap_or(DataPolicy::AllowExternal);
    let of_route = match view.index.route(&request.model) {
        Some(route) => route.data_policy(),
        // Not known yet: it counts when it is.
        None if view.index.swarm.generation == 0 => DataPolicy::AllowExternal,
        None => DataPolicy::LocalOnly,
    };
    Ok(of_route.min(own).min(caller.data_policy()).min(limit))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::view::{Index, fixtures};

    fn view(policy: DataPolicy) -> View {
        let mut swarm = fixtures::swarm();
        swarm.routes[0].spec.data_policy = policy;
        View { index: Arc::new(Index::new(Arc::new(swarm), &Index::default())), ..View::default() }
    }

    fn policy(model: &str, route: DataPolicy, own: Option<&str>, limit: DataPolicy) -> Result<DataPolicy, String> {
        let metadata = own.map(|word| (KEY.to_owned(), word.to_owned())).into_iter().collect();
        let request = GenerateRequest { model: model.to_owned(), metadata, ..Default::default() };
        of_request(&view(route), &request, &Caller::anybody(), limit).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn the_strictest_counts() {
        use DataPolicy::{AllowExternal, LocalOnly, Redacted};
        for (route, own, limit, expected) in [
            (AllowExternal, None, AllowExternal, AllowExternal),
            (AllowExternal, Some("Redacted"), AllowExternal, Redacted),
            (AllowExternal, Some("LocalOnly"), AllowExternal, LocalOnly),
            (Redacted, Some("AllowExternal"), AllowExternal, Redacted),
            (LocalOnly, Some("AllowExternal"), AllowExternal, LocalOnly),
            (AllowExternal, None, Redacted, Redacted),
            (AllowExternal, None, LocalOnly, LocalOnly),
        ] {
            assert_eq!(policy("assistant", route, own, limit), Ok(expected), "{route} {own:?} {limit}");
        }
    }

    #[test]
    fn what_names_an_expert_stays() {
        let policy = |own| policy("banking", DataPolicy::AllowExternal, own, DataPolicy::AllowExternal);
        assert_eq!(policy(None), Ok(DataPolicy::LocalOnly));
        assert_eq!(
            policy(Some("localonly")),
            Err("`metadata.data_policy`: `localonly` is no data policy: there are LocalOnly, Redacted and AllowExternal"
                .to_owned())
        );
    }
}
