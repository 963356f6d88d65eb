//! Who may do what: the accounts can do what they need, and nothing else.

use std::collections::BTreeSet;

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
        (&operator, "get", "secrets/slm-swarm-ca"),
        (&router, "watch", "slmmodels.slmswarm.io"),
        (&router, "watch", "endpointslices.discovery.k8s.io"),
    ];
    for (account, verb, resource) in needs {
        assert!(may(account, verb, resource, &[]), "{account} must be able to {verb} {resource}");
    }
    let forbidden = [
        (&operator, "list", "secrets"),
        (&operator, "get", "secrets/somebody-elses"),
        (&operator, "delete", "secrets/slm-swarm-ca"),
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

/// What `kubectl auth can-i --list` has for an account and not for one that was given nothing.
fn granted(account: &str) -> Result<BTreeSet<String>> {
    let list = |account: &str| -> Result<BTreeSet<String>> {
        let who = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
        let table = kubectl(&["auth", "can-i", "--list", "--no-headers", &who])?;
        Ok(table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
    };
    Ok(&list(account)? - &list("nobody")?)
}

#[test]
fn the_rights_of_the_accounts_are_exactly_these() -> Result<()> {
    let operator = [
        "deployments.apps [] [] [list watch create patch]",
        "externalmodels.slmswarm.io [] [] [list watch]",
        "externalmodels.slmswarm.io/status [] [] [patch]",
        "events.events.k8s.io [] [] [create patch]",
        "leases.coordination.k8s.io [] [] [create]",
        "leases.coordination.k8s.io [] [slm-operator] [get update]",
        "loraadapters.slmswarm.io [] [] [list watch]",
        "loraadapters.slmswarm.io/status [] [] [patch]",
        "poddisruptionbudgets.policy [] [] [list watch create patch]",
        "pods [] [] [list watch]",
        "pods/status [] [] [patch]",
        "secrets [] [] [create]",
        "secrets [] [slm-swarm-ca] [get patch]",
        "secrets [] [slm-swarm-egress-tls] [get patch]",
        "secrets [] [slm-swarm-operator-tls] [get patch]",
        "secrets [] [slm-swarm-router-tls] [get patch]",
        "secrets [] [slm-swarm-worker-tls] [get patch]",
        "serviceaccounts [] [] [list watch create patch]",
        "services [] [] [list watch create patch]",
        "slmmodels.slmswarm.io [] [] [list watch]",
        "slmmodels.slmswarm.io/finalizers [] [] [update]",
        "slmmodels.slmswarm.io/status [] [] [patch]",
        "swarmroutes.slmswarm.io [] [] [list watch]",
        "swarmroutes.slmswarm.io/status [] [] [patch]",
        "acceleratorprofiles.slmswarm.io [] [] [list watch]",
    ];
    let router = [
        "endpointslices.discovery.k8s.io [] [] [list watch]",
        "externalmodels.slmswarm.io [] [] [list watch]",
        "loraadapters.slmswarm.io [] [] [list watch]",
        "slmmodels.slmswarm.io [] [] [list watch]",
        "swarmroutes.slmswarm.io [] [] [list watch]",
    ];
    for (account, expected) in [("operator", &operator[..]), ("router", &router[..])] {
        let expected: BTreeSet<_> = expected.iter().map(|&right| right.to_owned()).collect();
        assert_eq!(granted(&format!("{RELEASE}-slm-swarm-{account}"))?, expected, "{account}");
    }
    Ok(())
}

#[test]
fn the_namespace_takes_no_pod_that_is_not_restricted() {
    let refused = kubectl(&["run", "root", "--image=localhost/slm-swarm:0.1.0", "--restart=Never", "--privileged"]);
    let message = format!("{:#}", refused.expect_err("a privileged pod"));
    assert!(message.contains("restricted"), "{message}");
}
