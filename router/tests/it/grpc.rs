//! The gRPC API.

use std::time::Duration;

use futures::StreamExt as _;
use slm_proto::v1::{
    CandidateOutcome, Decision, GenerateRequest, ListModelsRequest, generate_request::Input, generate_response::Event,
    generation_client::GenerationClient, swarm_client::SwarmClient,
};
use tonic::{Code, Request};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::harness::Router;

fn prompt(model: &str, text: &str) -> GenerateRequest {
    GenerateRequest {
        model: model.to_owned(),
        input: Some(Input::Prompt(text.to_owned())),
        request_id: "r-1".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn without_an_explanation_no_rule_and_no_address_is_named() {
    let (router, _worker) = Router::over_one_worker().await;
    let mut client = GenerationClient::new(router.grpc().await);
    let mut answers = client.generate(prompt("assistant", "my card")).await.expect("an answer").into_inner();
    let Some(Event::Started(started)) = answers.message().await.expect("a message").expect("a message").event else {
        panic!("Started comes first")
    };
    let decision = started.decision.expect("a decision");
    assert_eq!((decision.route.as_str(), decision.chosen.expect("an expert").name.as_str()), ("assistant", "banking"));
    assert_eq!((decision.reason, decision.worker, decision.candidates.len()), (String::new(), String::new(), 0));
}

#[tokio::test]
async fn generate_streams_with_its_decision() {
    let (router, worker) = Router::over_one_worker().await;
    let mut client = GenerationClient::new(router.grpc().await);
    let request = GenerateRequest { explain: true, ..prompt("assistant", "my card") };
    let mut answers = client.generate(request).await.expect("an answer").into_inner();
    let Some(Event::Started(started)) = answers.message().await.expect("a message").expect("a message").event else {
        panic!("Started comes first")
    };
    assert_eq!(started.request_id, "r-1");
    let Decision { requested, route, chosen, reason, worker: address, candidates, similarity, classified } =
        started.decision.expect("a decision");
    assert_eq!((requested.as_str(), route.as_str(), address), ("assistant", "assistant", worker.url.clone()));
    assert_eq!(chosen.expect("an expert").name, "banking");
    assert!(reason.starts_with("rule 1 matched: text.matches"), "{reason}");
    let outcomes: Vec<_> = candidates.iter().map(|candidate| candidate.outcome()).collect();
    let [chosen, not_reached] = [CandidateOutcome::Chosen, CandidateOutcome::NotReached];
    assert_eq!((outcomes, similarity, classified), (vec![chosen, not_reached, not_reached], None, None));
    let mut text = String::new();
    let mut finished = false;
    while let Some(message) = answers.message().await.expect("a message") {
        match message.event {
            Some(Event::Delta(delta)) => text.push_str(&delta.text),
            Some(Event::Finished(_)) => finished = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(finished);
    assert_eq!(text, "banking: my card ");
}

#[tokio::test]
async fn complete_list_and_explain() {
    let (router, worker) = Router::over_one_worker().await;
    let channel = router.grpc().await;
    let completion = GenerationClient::new(channel.clone()).complete(prompt("smol", "hi")).await.expect("an answer");
    assert_eq!(completion.into_inner().text, "smol: hi ");

    let mut swarm = SwarmClient::new(channel);
    let models = swarm.list_models(ListModelsRequest {}).await.expect("a list").into_inner().models;
    let rows: Vec<_> = models.iter().map(|model| (model.name.as_str(), model.kind.as_str(), model.ready)).collect();
    assert_eq!(
        rows,
        [
            ("smol", "SlmModel", true),
            ("banking", "LoraAdapter", true),
            ("travel", "LoraAdapter", true),
            ("assistant", "SwarmRoute", true)
        ]
    );
    let mut request = prompt("assistant", "hi");
    request.metadata.insert("topic".to_owned(), "travel".to_owned());
    let asked = worker.asked();
    let decision = swarm.explain(request).await.expect("a decision").into_inner();
    assert_eq!(decision.chosen.expect("an expert").name, "travel");
    assert_eq!((decision.candidates.len(), worker.asked()), (3, asked), "a dry run asks no worker");
}

#[tokio::test]
async fn refusals_are_statuses() {
    let (router, _worker) = Router::over_one_worker().await;
    let mut client = GenerationClient::new(router.grpc().await);
    let cases = [
        (prompt("bankin", "hi"), Code::NotFound, "did you mean `banking`?"),
        (GenerateRequest { input: None, ..prompt("smol", "") }, Code::InvalidArgument, "is missing; send one of them"),
        (prompt("smol", "!long"), Code::InvalidArgument, "9 tokens"),
        (prompt("smol", "!full"), Code::ResourceExhausted, "queue is full"),
        (prompt("smol", &"x".repeat(5 << 20)), Code::OutOfRange, "message length too large"),
    ];
    for (request, code, message) in cases {
        let status = client.complete(request).await.expect_err(message);
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(message), "{status}");
    }
}

#[tokio::test]
async fn deadlines_pass_on_and_hold() {
    let (router, worker) = Router::over_one_worker().await;
    let mut client = GenerationClient::new(router.grpc().await);
    let mut request = Request::new(prompt("smol", "one !never"));
    request.set_timeout(Duration::from_millis(300));
    let mut answers = client.generate(request).await.expect("an answer").into_inner();
    let status = loop {
        if let Err(status) = answers.message().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let mut cancelled = worker.script.cancelled.subscribe();
    cancelled.wait_for(|cancelled| *cancelled == 1).await.expect("the script lives");
    assert!(worker.script.requests.lock().expect("no panic")[0].1, "the worker was told the deadline");
}

#[tokio::test]
async fn dropping_the_stream_cancels() {
    let (router, worker) = Router::over_one_worker().await;
    let mut client = GenerationClient::new(router.grpc().await);
    let mut answers = client.generate(prompt("smol", "one !never")).await.expect("an answer").into_inner();
    answers.message().await.expect("a message");
    drop(answers);
    worker.script.cancelled.subscribe().wait_for(|cancelled| *cancelled == 1).await.expect("the script lives");
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let (router, _worker) = Router::over_one_worker().await;
    let mut client = ServerReflectionClient::new(router.grpc().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = futures::stream::iter([request]).boxed();
    let mut answers = client.server_reflection_info(requests).await.expect("reflection").into_inner();
    let answer = answers.message().await.expect("a message").expect("a message");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("a list") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["slm.v1.Generation", "slm.v1.Swarm", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(!names.contains(&"slm.v1.WorkerControl"), "{names:?}");
}
