//! Reports objects that do not decode, by an Event and by their Ready condition.
//!
//! The condition is written by a merge patch: the rest of the status is unknown to this release and must stay.

use std::{collections::BTreeSet, fmt::Debug, time::Duration};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::events::{Event, EventType, Recorder},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use slm_crds::{ExternalModel, GROUP, LoraAdapter, SlmModel, SwarmRoute, schema::Kind, status::Condition};
use slm_watch::{Invalid, Undecodable};
use tokio::time::sleep;

use crate::conditions::READY;

/// Reason of the condition and of the Event.
const UNDECODABLE: &str = "Undecodable";
/// Interval of attempts to report an object.
const AGAIN: Duration = Duration::from_secs(30);

/// Reports each fault once, for as long as the operator leads.
pub(crate) async fn run(client: Client, namespace: String, recorder: Recorder, undecodable: Undecodable) {
    let mut told = BTreeSet::new();
    loop {
        let all = undecodable.all();
        told.retain(|fault| all.iter().any(|invalid| key(invalid) == *fault));
        for invalid in &all {
            let fault = key(invalid);
            if told.contains(&fault) {
                continue;
            }
            match tell(&client, &namespace, &recorder, invalid).await {
                Ok(()) => {
                    told.insert(fault);
                }
                Err(error) => {
                    tracing::warn!(kind = invalid.kind, %error, "an object that does not decode could not be reported")
                }
            }
        }
        tokio::select! {
            () = undecodable.changed() => {}
            () = sleep(AGAIN) => {}
        }
    }
}

type Fault = (String, Option<String>, (Option<String>, Option<i64>, String));

fn key(invalid: &Invalid) -> Fault {
    (invalid.kind.clone(), invalid.metadata.name.clone(), invalid.fault())
}

async fn tell(client: &Client, namespace: &str, recorder: &Recorder, invalid: &Invalid) -> Result<(), kube::Error> {
    let message = message(invalid);
    let metadata = &invalid.metadata;
    match Kind::named(&invalid.kind) {
        Some(Kind::SlmModel) => condition::<SlmModel>(client, namespace, metadata, &message).await?,
        Some(Kind::LoraAdapter) => condition::<LoraAdapter>(client, namespace, metadata, &message).await?,
        Some(Kind::ExternalModel) => condition::<ExternalModel>(client, namespace, metadata, &message).await?,
        Some(Kind::SwarmRoute) => condition::<SwarmRoute>(client, namespace, metadata, &message).await?,
        // The kind has no status, and Events of cluster-scoped objects go to the namespace `default`, where this operator may
        // not write: the models that use the profile say it.
        Some(Kind::AcceleratorProfile) => return Ok(()),
        // Not a kind of ours: the log has named it.
        None => return Ok(()),
    }
    let event = Event {
        type_: EventType::Warning,
        reason: UNDECODABLE.to_owned(),
        note: Some(message.chars().take(900).collect()),
        action: "Decode".to_owned(),
        secondary: None,
    };
    let reference = k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some(format!("{GROUP}/{}", slm_crds::VERSION)),
        kind: Some(invalid.kind.clone()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        ..Default::default()
    };
    recorder.publish(&event, &reference).await
}

fn message(invalid: &Invalid) -> String {
    let kept = if invalid.former_in_use { "its last version that could be read stays in use" } else { "it is ignored" };
    format!("this operator cannot read the object: {}; {kept}. Mend it, or upgrade the operator", invalid.error)
}

async fn condition<K>(client: &Client, namespace: &str, metadata: &ObjectMeta, message: &str) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let condition = Condition {
        type_: READY.to_owned(),
        status: "False".to_owned(),
        reason: UNDECODABLE.to_owned(),
        message: message.to_owned(),
        observed_generation: metadata.generation,
        last_transition_time: Time(Timestamp::now()),
    };
    let patch = Patch::Merge(json!({ "status": { "conditions": [condition] } }));
    let objects: Api<DeserializeGuard<K>> = Api::namespaced(client.clone(), namespace);
    let name = metadata.name.as_deref().unwrap_or_default();
    match objects.patch_status(name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        // The object was deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Server;

    #[tokio::test(start_paused = true)]
    async fn an_object_is_told_that_it_does_not_decode() {
        const PATH: &str = "/apis/slmswarm.io/v1alpha1/namespaces/n/slmmodels/x";
        let server = Server::new();
        // A precision of the future, and a status that another operator wrote.
        server.put(
            PATH,
            json!({
                "apiVersion": "slmswarm.io/v1alpha1", "kind": "SlmModel",
                "metadata": { "name": "x", "namespace": "n", "generation": 3 },
                "spec": { "source": { "uri": "oci://r/x:1" }, "runtime": { "precision": "Int2" } },
                "status": { "replicas": 2 },
            }),
        );
        let object = server.get(PATH).expect("the object");
        let guard: DeserializeGuard<SlmModel> = serde_json::from_value(object).expect("any object");
        let error = guard.0.expect_err("it does not decode");
        condition::<SlmModel>(&server.client(), "n", &error.metadata, &error.error).await.expect("told");
        let status = server.get(PATH).expect("the object")["status"].clone();
        assert_eq!(status["replicas"], 2);
        let condition = &status["conditions"][0];
        assert_eq!((&condition["reason"], &condition["observedGeneration"]), (&json!(UNDECODABLE), &json!(3)));
        assert!(condition["message"].as_str().is_some_and(|message| message.contains("Int2")), "{condition}");
    }
}
