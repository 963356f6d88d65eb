//! Who may ask.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::json;
use slm_egress::Config;
use slm_proto::v1::{WatchStateRequest, egress_client::EgressClient};
use slm_tls::{
    Identity,
    mint::{Minted, authority, leaf},
};
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Code, Status, transport::Endpoint};

use crate::harness::{config, large, question};

const LIFETIME: Duration = Duration::from_secs(3600);

fn mount(folder: &Path, authority: &Minted, identity: Identity) {
    let own = leaf(authority, identity, SystemTime::now(), LIFETIME).expect("a certificate");
    fs::create_dir_all(folder).expect("a folder");
    for (name, text) in [("ca.crt", &authority.certificate), ("tls.crt", &own.certificate), ("tls.key", &own.key)] {
        fs::write(folder.join(name), text).expect("a file");
    }
}

/// A call of each method by a caller with the certificate in `folder`.
async fn call(address: &str, folder: &Path, identity: Identity) -> [Result<(), Status>; 2] {
    let tls = slm_tls::follow(folder, identity).expect("certificates");
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
    let channel = slm_tls::client::channel(&endpoint, Identity::Egress, Some(&tls)).expect("a channel");
    let mut client = EgressClient::new(channel);
    [client.watch_state(WatchStateRequest {}).await.map(|_| ()), client.generate(question("hello")).await.map(|_| ())]
}

#[tokio::test]
async fn routers_of_the_swarm_are_admitted_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = |name: &str| folder.path().join(name);
    let ours = authority(SystemTime::now(), LIFETIME).expect("an authority");
    let theirs = authority(SystemTime::now(), LIFETIME).expect("an authority");
    mount(&of("egress"), &ours, Identity::Egress);
    mount(&of("router"), &ours, Identity::Router);
    mount(&of("operator"), &ours, Identity::Operator);
    mount(&of("stranger"), &theirs, Identity::Router);

    let (_externals, receiver) = watch::channel(Arc::new(large("http://127.0.0.1:1/v1", &json!({}))));
    let (sender, bound) = oneshot::channel();
    let config = Config { tls: Some(of("egress")), ..config() };
    let _running =
        AbortOnDropHandle::new(tokio::spawn(slm_egress::run(config, receiver, CancellationToken::new(), sender)));
    let address = bound.await.expect("a port").grpc.to_string();

    let [states, _] = call(&address, &of("router"), Identity::Router).await;
    states.expect("routers follow its states");
    for outcome in call(&address, &of("operator"), Identity::Operator).await {
        let status = outcome.expect_err("an operator");
        assert_eq!(
            (status.code(), status.message().contains("operator")),
            (Code::PermissionDenied, true),
            "{status:?}"
        );
    }
    for outcome in call(&address, &of("stranger"), Identity::Router).await {
        assert_eq!(outcome.expect_err("another swarm").code(), Code::Unavailable);
    }
    // Its own certificate is one for servers.
    assert!(slm_tls::follow(&of("egress"), Identity::Router).is_err());
}
