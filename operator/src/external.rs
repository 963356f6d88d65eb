//! ExternalModel controller: reports whether a model outside of the swarm can be asked. The egress asks it, and follows
//! the objects and their Secrets itself.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, runtime::controller::Action};
use slm_crds::{
    ExternalModel,
    external::{ExternalModelSpec, ExternalModelStatus},
};
use slm_tls::mint;

use crate::{
    conditions::Verdict,
    context::{Context, Error},
    credentials,
    name_conflicts::name_taken,
    objects::Objects,
    reconcile::Reconciled,
};

/// Interval of reads of a Secret, which this operator may not watch.
const SECRET_AGAIN: Duration = Duration::from_secs(30);

impl Reconciled for ExternalModel {
    async fn reconcile(self: Arc<Self>, context: Arc<Context>) -> Result<Action, Error> {
        if self.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let verdict = match (invalid(&self, &context.objects), &self.spec.secret_ref) {
            (Some(invalid), _) => invalid,
            (None, None) => ready(&self.spec),
            (None, Some(secret)) => {
                let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
                let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
                let refused = of_secret(&secret.name, secrets.get_opt(&secret.name).await, &self.spec)?;
                refused.unwrap_or_else(|| ready(&self.spec))
            }
        };
        let action = self.refuse(&context, &verdict).await?;
        Ok(if self.spec.secret_ref.is_some() { Action::requeue(SECRET_AGAIN) } else { action })
    }

    async fn refuse(&self, context: &Context, verdict: &Verdict) -> Result<Action, Error> {
        let former = self.status.clone().unwrap_or_default();
        let next = |conditions| ExternalModelStatus { observed_generation: self.metadata.generation, conditions };
        context.report(self, &former.conditions, verdict, next, self.status.as_ref()).await
    }
}

/// What is wrong with the object itself.
fn invalid(external: &ExternalModel, objects: &Objects) -> Option<Verdict> {
    if let Some(taken) = name_taken(external, objects) {
        return Some(taken);
    }
    let bundle = external.spec.ca_bundle.as_ref()?;
    let why = match mint::facts(bundle.as_bytes()) {
        Ok(certificates) if certificates.is_empty() => "there is none in it".to_owned(),
        Ok(_) => return None,
        Err(error) => error.to_string(),
    };
    let message = format!(
        "spec.caBundle: {why}; put in the certificates of the authorities, each from -----BEGIN CERTIFICATE----- to \
         -----END CERTIFICATE-----"
    );
    Some(Verdict::wrong("InvalidCaBundle", message))
}

/// What is wrong with the Secret.
///
/// # Errors
/// The API server could not be asked: nothing is known of the Secret.
fn of_secret(
    name: &str,
    found: Result<Option<Secret>, kube::Error>,
    spec: &ExternalModelSpec,
) -> Result<Option<Verdict>, Error> {
    let unusable = |why| Verdict::wrong("SecretNotUsable", why);
    match found {
        Ok(Some(secret)) => Ok(credentials::check_token(name, &secret, spec).err().map(unusable)),
        Ok(None) => {
            let why = format!("Secret {name} does not exist; create it, or remove secretRef");
            Ok(Some(Verdict::wrong("SecretNotFound", why)))
        }
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Some(unusable(format!(
            "Secret {name}: {}; list it in the chart's egress.credentials.secretNames",
            status.message
        )))),
        Err(error) => Err(Error::api("reading a Secret")(error)),
    }
}

fn ready(spec: &ExternalModelSpec) -> Verdict {
    let host = slm_crds::hosts::host(&spec.url).unwrap_or(&spec.url);
    Verdict::ready(format!("asked at {host} by routes whose dataPolicy allows it"))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use kube::core::Status;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        config::WorkerPods,
        context::recorder,
        fake::Server,
        fleet::FleetView,
        objects::fixtures::{object, world},
        probe::OperatorProbe,
    };

    const URL: &str = "https://api.example.com:8443/v1";

    fn external(change: Value) -> ExternalModel {
        let mut spec = json!({ "url": URL, "model": "large" });
        spec.as_object_mut().expect("a spec").extend(change.as_object().expect("a change").clone());
        object("ExternalModel", "large", 1, spec)
    }

    #[test]
    fn one_whose_name_is_taken() {
        let mut world = world();
        world.model("large", 1);
        let younger = world.external("large", 2);
        let taken = invalid(&younger, &world.objects).expect("taken");
        assert_eq!(taken.reason, "NameTaken");
        assert!(taken.message.starts_with("the name `large` is taken by the SlmModel"), "{}", taken.message);
    }

    #[test]
    fn bundles_of_authorities() {
        let world = world();
        let day = Duration::from_secs(86_400);
        let [one, other] = [(); 2].map(|()| mint::authority(SystemTime::now(), day).expect("an authority"));
        let both = format!("# ours\n{}{}", one.certificate, other.certificate);
        for good in [&one.certificate, &both] {
            assert_eq!(invalid(&external(json!({ "caBundle": good })), &world.objects), None);
        }
        assert_eq!(invalid(&external(json!({})), &world.objects), None);
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let with_damaged = format!("{}{damaged}", one.certificate);
        for wrong in ["none", damaged, &with_damaged, &one.key] {
            let refused = invalid(&external(json!({ "caBundle": wrong })), &world.objects).expect(wrong);
            assert_eq!(refused.reason, "InvalidCaBundle");
            let message = refused.message;
            assert!(message.starts_with("spec.caBundle: ") && message.contains("BEGIN CERTIFICATE"), "{message}");
        }
    }

    #[test]
    fn what_is_said_of_secrets() {
        let secret = |hosts: &str, key: &str| -> Secret {
            serde_json::from_value(json!({
                "metadata": { "name": "key", "annotations": { "slmswarm.io/hosts": hosts } },
                "data": { key: "dA==" },
            }))
            .expect("a Secret")
        };
        let verdict = |found| {
            of_secret("key", found, &external(json!({})).spec)
                .expect("known")
                .map(|verdict| (verdict.reason, verdict.message))
        };
        assert_eq!(verdict(Ok(Some(secret("api.example.com:8443", "token")))), None);
        let forbidden =
            Status { code: 403, reason: "Forbidden".into(), message: "forbidden".into(), ..Status::default() };
        for (found, reason, message) in [
            (Ok(None), "SecretNotFound", "Secret key does not exist; create it, or remove secretRef"),
            (Ok(Some(secret("api.example.com:8443", "key"))), "SecretNotUsable", "Secret key: has no `token`; add it"),
            (
                Ok(Some(secret("api.example.com", "token"))),
                "SecretNotUsable",
                "Secret key: its token or password may not be sent to `api.example.com:8443`; allow it with the annotation \
                 slmswarm.io/hosts: api.example.com:8443",
            ),
            (
                Err(kube::Error::Api(forbidden.boxed())),
                "SecretNotUsable",
                "Secret key: forbidden; list it in the chart's egress.credentials.secretNames",
            ),
        ] {
            assert_eq!(verdict(found), Some((reason.into(), message.to_owned())));
        }
        // Nothing is known of a Secret when the API server fails.
        let failed = Status { code: 500, ..Status::default() };
        assert!(of_secret("key", Err(kube::Error::Api(failed.boxed())), &external(json!({})).spec).is_err());
    }

    #[test]
    fn a_ready_one_names_its_host() {
        let verdict = ready(&external(json!({})).spec);
        assert_eq!(verdict.message, "asked at api.example.com:8443 by routes whose dataPolicy allows it");
    }

    fn context(server: &Server, objects: Objects) -> Arc<Context> {
        let pods = WorkerPods {
            image: "slm-swarm:1".to_owned(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            cache_claim: None,
            certificates: None,
            artifacts_bytes_max: 1 << 34,
            insecure_hosts: Vec::new(),
            hub_endpoint: slm_launch::HUB_ENDPOINT.to_owned(),
            s3_endpoint: None,
            log: "info".to_owned(),
        };
        let recorder = recorder(server.client(), "test");
        let (view, probe) = (FleetView::default(), OperatorProbe::new());
        Arc::new(Context::new(server.client(), objects, view, pods, probe, recorder))
    }

    /// Nobody says that a Secret has changed.
    #[tokio::test]
    async fn a_secret_is_read_until_it_is_right_and_after() {
        const PATH: &str = "/apis/slmswarm.io/v1alpha1/namespaces/n/externalmodels/large";
        const SECRET: &str = "/api/v1/namespaces/n/secrets/key";
        let server = Server::new();
        let context = context(&server, world().objects);
        let created = external(json!({ "secretRef": { "name": "key" } }));
        server.put(PATH, serde_json::to_value(created).expect("JSON"));
        let secret = |hosts: &str| {
            json!({
                "metadata": { "name": "key", "annotations": { "slmswarm.io/hosts": hosts } },
                "data": { "token": "dA==" },
            })
        };
        for (change, status, reason) in [
            (None, "False", "SecretNotFound"),
            (Some(secret("elsewhere.example.com")), "False", "SecretNotUsable"),
            (Some(secret("api.example.com:8443")), "True", "Ready"),
            (Some(secret("")), "False", "SecretNotUsable"),
        ] {
            if let Some(secret) = change {
                server.put(SECRET, secret);
            }
            let object = serde_json::from_value(server.get(PATH).expect("the object")).expect("an ExternalModel");
            let action = Arc::<ExternalModel>::new(object).reconcile(Arc::clone(&context)).await.expect("reconciled");
            assert_eq!(action, Action::requeue(SECRET_AGAIN));
            let condition = server.get(PATH).expect("the object")["status"]["conditions"][0].clone();
            assert_eq!((&condition["status"], &condition["reason"]), (&json!(status), &json!(reason)), "{condition}");
        }
    }
}
