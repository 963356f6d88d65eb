//! Nothing leaks: requests that may not leave, of every kind that a request can be, beside a network recorder in the place of a model
//! outside. `SLM_LEAK_REQUESTS` requests, 100,000 unless it is set.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use serde_json::json;
use slm_crds::route::DataPolicy;
use slm_egress::{Externals, Secrets, Sink};
use slm_proto::v1::{GenerateRequest, Message, Messages, generate_request::Input, generation_client::GenerationClient};
use slm_router::{Limits, Swarm};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Code, transport::Channel};

use crate::{
    harness::{Router, config, limits},
    worker::Worker,
};

/// Counts connections to the place of a model outside, and closes them.
struct Recorder {
    url: String,
    connections: Arc<AtomicU64>,
    _accepting: AbortOnDropHandle<()>,
}

impl Recorder {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let connections = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&connections);
        let accepting = AbortOnDropHandle::new(tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }));
        Self { url, connections, _accepting: accepting }
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// A real egress, whose model `large` is the recorder.
async fn egress(recorder: &Recorder, stop: CancellationToken) -> String {
    let spec = json!({ "url": recorder.url, "model": "gpt", "timeoutSeconds": 5 });
    let externals = json!({ "generation": 1, "externals": [{ "name": "large", "spec": spec }] });
    let externals: Externals = serde_json::from_value(externals).expect("a snapshot");
    let config = slm_egress::Config {
        grpc: "127.0.0.1:0".parse().expect("an address"),
        tls: None,
        probes: None,
        secrets: Secrets::None,
        audit: Sink::Log,
        audit_content: false,
        drain: Duration::ZERO,
    };
    let (bound, is_bound) = oneshot::channel();
    let (sender, receiver) = watch::channel(Arc::new(externals));
    tokio::spawn(async move {
        // The source stays for as long as the egress.
        let _sender = sender;
        slm_egress::run(config, receiver, stop, bound).await.expect("an egress");
    });
    format!("http://{}", is_bound.await.expect("a port").grpc)
}

/// For each policy: a fallback outside, a rule that leads outside, a cascade that ends outside, ensembles with an expert or a fallback
/// outside, and a candidate outside that gets copies.
fn swarm(worker: &Worker, egress: &str) -> Swarm {
    let outside = json!({ "kind": "ExternalModel", "name": "large" });
    let banking = json!({ "kind": "LoraAdapter", "name": "banking" });
    let travel = json!({ "kind": "LoraAdapter", "name": "travel" });
    let smol = json!({ "kind": "SlmModel", "name": "smol" });
    let mut routes = Vec::new();
    for policy in DataPolicy::ALL {
        let cascade =
            |accept: f64| json!({ "targets": [banking, travel, outside], "confidence": { "accept": accept } });
        let rules = json!([{ "when": "text.contains('far')", "to": outside }, { "when": "text.contains('near')", "to": travel }]);
        for (name, spec) in [
            ("fallback", json!({ "fallback": outside })),
            ("rules", json!({ "rules": rules, "fallback": outside })),
            ("cascade", json!({ "cascade": cascade(0.5), "fallback": banking })),
            ("strict", json!({ "cascade": cascade(1.0), "rules": rules, "fallback": banking, "onError": "Reject" })),
            (
                "vote",
                json!({ "ensemble": { "experts": [banking, outside, travel], "combine": "Vote" }, "fallback": outside }),
            ),
            (
                "judge",
                json!({
                    "ensemble": {
                        "experts": [banking, travel, outside], "combine": "Judge", "judge": smol, "minimumAnswers": 2,
                        "timeoutMilliseconds": 50,
                    },
                    "shadow": { "to": outside, "percent": 100 },
                    "fallback": outside,
                }),
            ),
            ("shadow", json!({ "shadow": { "to": outside, "percent": 100 }, "rules": rules, "fallback": banking })),
        ] {
            let mut spec = spec;
            spec["dataPolicy"] = json!(policy);
            routes.push(json!({ "name": format!("{name}-{}", policy.to_string().to_lowercase()), "spec": spec }));
        }
    }
    serde_json::from_value(json!({
        "generation": 1,
        "models": [{ "name": "smol", "workers": [worker.url] }],
        "adapters": [{ "name": "banking", "model": "smol" }, { "name": "travel", "model": "smol" }],
        "externals": [{ "name": "large" }],
        "egress": [egress],
        "routes": routes,
    }))
    .expect("a swarm")
}

/// Splitmix64: the requests are the same in every run.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn pick<'w>(words: &[&'w str], draw: u64) -> &'w str {
    words[usize::try_from(draw % words.len() as u64).expect("few")]
}

/// A request that may not leave: of a local route, or of another with a policy of its own.
fn request(number: u64, strict_router: bool) -> GenerateRequest {
    let draw = mixed(number);
    let kind = pick(&["fallback", "rules", "cascade", "strict", "vote", "judge", "shadow"], draw);
    let own = [None, Some("LocalOnly"), Some("Redacted"), Some("AllowExternal")];
    let (policy, own) = match (strict_router, (draw >> 8) % 3) {
        (true, _) => (
            pick(&["localonly", "redacted", "allowexternal"], draw >> 16),
            own[usize::try_from((draw >> 24) % 4).expect("few")],
        ),
        (false, 0) => (pick(&["redacted", "allowexternal"], draw >> 16), Some("LocalOnly")),
        (false, _) => ("localonly", own[usize::try_from((draw >> 24) % 4).expect("few")]),
    };
    let texts = [
        "far",
        "near",
        "hello",
        "hello !vague",
        "near !full",
        "!break",
        "!vague far !break",
        "banking=yes travel=no smol=2",
        "banking=yes travel=!break smol=!never",
    ];
    let text = pick(&texts, draw >> 32);
    let message = Message { role: "user".to_owned(), content: text.to_owned(), ..Message::default() };
    GenerateRequest {
        model: format!("{kind}-{policy}"),
        input: Some(Input::Messages(Messages { messages: vec![message] })),
        metadata: own.map(|policy| ("data_policy".to_owned(), policy.to_owned())).into_iter().collect(),
        logprobs: (draw >> 40).is_multiple_of(4).then_some(1),
        explain: (draw >> 44).is_multiple_of(4),
        ..GenerateRequest::default()
    }
}

/// The code with which it ends.
async fn ask(mut client: GenerationClient<Channel>, request: GenerateRequest) -> Code {
    let mut stream = match client.generate(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return status.code(),
    };
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Code::Ok,
            Err(status) => return status.code(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_may_not_leave_leaves() {
    let count = env::var("SLM_LEAK_REQUESTS").map_or(100_000, |count| count.parse().expect("a number"));
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let recorder = Recorder::start().await;
    let egress = egress(&recorder, stop).await;
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let soon = Limits { wait_max: Duration::from_millis(2), ..limits() };
    let lax = Router::start(swarm(&worker, &egress), soon.clone()).await;
    let mut config = config(soon);
    config.data_policy = DataPolicy::LocalOnly;
    let strict = Router::with(swarm(&worker, &egress), config).await;
    let mut clients = Vec::new();
    for router in [&lax, &strict] {
        router.ready().await;
        clients.push(GenerationClient::new(router.grpc().await));
    }
    let codes: Vec<Code> = stream::iter(0..count)
        .map(|number| {
            let strict = number % 4 == 0;
            // Now and then every local target fails, or an adapter is not there.
            if number % 64 == 7 {
                worker.script.failures.store(u32::try_from(mixed(number) % 9).expect("few"), Ordering::Relaxed);
            }
            match number % 1000 {
                500 => worker.change(|state| state.adapters.retain(|adapter| adapter.name != "travel")),
                700 => worker.load("travel"),
                _ => {}
            }
            ask(clients[usize::from(strict)].clone(), request(number, strict))
        })
        .buffer_unordered(64)
        .collect()
        .await;
    assert_eq!(recorder.connections(), 0);
    for code in [Code::Ok, Code::PermissionDenied, Code::Unavailable, Code::ResourceExhausted] {
        assert!(codes.contains(&code), "no request ended with {code:?}");
    }
    // The same swarm leads there when it may, in each way: the recorder works.
    worker.script.failures.store(0, Ordering::Relaxed);
    for (kind, code) in [("fallback", Code::Unavailable), ("vote", Code::Ok), ("shadow", Code::Ok)] {
        let message = Message { role: "user".to_owned(), content: "hello".to_owned(), ..Message::default() };
        let allowed = GenerateRequest {
            model: format!("{kind}-allowexternal"),
            input: Some(Input::Messages(Messages { messages: vec![message] })),
            ..GenerateRequest::default()
        };
        let before = recorder.connections();
        assert_eq!(ask(clients[0].clone(), allowed).await, code, "{kind}");
        while recorder.connections() == before {
            tokio::task::yield_now().await;
        }
    }
}
