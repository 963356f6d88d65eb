//! Who may do what: the accounts can do what they need, and nothing else.

use anyhow::Result;
use slm_tests::cluster::{NAMESPACE, RELEASE, kubectl};

fn may(account: &str, verb: &str, resource: &str, more: &[&str]) -> bool {
    let who = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
    let (resource, part) = resource.split_once(':').unwrap_or((resource, ""));
    let part = format!("--subresource={part}");
    kubectl(&[&["auth", "can-i", verb, resource, &part, &who, "-q"], more].concat()).is_ok()
}

#[test]
fn accounts_can_do_what_they_need_and_nothing_else() -> Result<()> {
    let operator = format!("{RELEASE}-slm-swarm-operator");
    let router = format!("{RELEASE}-slm-swarm-router");
    let needs = [
        (&operator, "patch", "deployments.apps"),
        (&operator, "patch", "services"),
        (&operator, "patch", "serviceaccounts"),
        (&operator, "patch", "poddisruptionbudgets.policy"),
        (&operator, "patch", "pods:status"),
        (&operator, "patch", "loraadapters.slmswarm.io:status"),
        (&operator, "update", "leases.coordination.k8s.io/slm-operator"),
        (&router, "watch", "slmmodels.slmswarm.io"),
        (&router, "watch", "endpointslices.discovery.k8s.io"),
    ];
    for (account, verb, resource) in needs {
        assert!(may(account, verb, resource, &[]), "{account} must be able to {verb} {resource}");
    }
    let forbidden = [
        (&operator, "list", "secrets"),
        (&operator, "create", "pods"),
        (&operator, "create", "pods:exec"),
        (&operator, "delete", "slmmodels.slmswarm.io"),
        (&operator, "patch", "slmmodels.slmswarm.io"),
        (&operator, "create", "rolebindings.rbac.authorization.k8s.io"),
        (&router, "get", "secrets"),
        (&router, "patch", "loraadapters.slmswarm.io:status"),
        (&router, "list", "pods"),
    ];
    for (account, verb, resource) in forbidden {
        assert!(!may(account, verb, resource, &[]), "{account} must not be able to {verb} {resource}");
    }
    for account in [&operator, &router] {
        assert!(!may(account, "get", "slmmodels.slmswarm.io", &["-A"]), "{account}: only its namespace");
    }
    Ok(())
}

#[test]
fn the_namespace_takes_no_pod_that_is_not_restricted() {
    let refused = kubectl(&["run", "root", "--image=localhost/slm-swarm:0.1.0", "--restart=Never", "--privileged"]);
    let message = format!("{:#}", refused.expect_err("a privileged pod"));
    assert!(message.contains("restricted"), "{message}");
}
