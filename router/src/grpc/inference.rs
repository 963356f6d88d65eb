//! `inference.GRPCInferenceService`: the Open Inference Protocol.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _, future::try_join_all, stream};
use serde_json::{Map, Value};
use slm_listen::deadline::Deadline;
use slm_proto::{
    inference::{
        InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
        ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStreamInferResponse, RepositoryIndexRequest,
        RepositoryIndexResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
        ServerReadyRequest, ServerReadyResponse, grpc_inference_service_server::GrpcInferenceService,
        infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
        model_infer_response::InferOutputTensor, model_metadata_response::TensorMetadata,
        repository_index_response::ModelIndex,
    },
    trailers,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::{GrpcServer, caller, identify};
use crate::{
    access::table::Caller,
    dispatch::{Call, Dispatcher},
    events::{Answer, Event},
    http::error::ApiError,
    inference::{
        self, Asked, AskedVectors, Datatype, Form, Infer, Output, PLATFORM, Tensor, TensorDescription, VERSION,
    },
    metrics::Api,
    readiness::readiness,
    relay::Relayed,
};

type Responses = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

#[tonic::async_trait]
impl GrpcInferenceService for GrpcServer {
    type ModelStreamInferStream = Responses;

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = self.dispatcher.gate.open(&readiness(&self.dispatcher.view()));
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let caller = caller(&request)?;
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = inference::ready(&self.dispatcher.view(), &caller, &name).unwrap_or(false);
        Ok(Response::new(ModelReadyResponse { ready: ready && inference::same_version(&version).is_ok() }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: PLATFORM.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: vec!["model_repository".to_owned()],
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let caller = caller(&request)?;
        let ModelMetadataRequest { name, version } = request.into_inner();
        inference::ready(&self.dispatcher.view(), &caller, &name)?;
        inference::same_version(&version).map_err(status)?;
        let described = |tensor: &TensorDescription| TensorMetadata {
            name: tensor.name.to_owned(),
            datatype: tensor.datatype.to_owned(),
            shape: tensor.shape(),
        };
        let (inputs, outputs) = inference::describe(&self.dispatcher.view(), &name);
        Ok(Response::new(ModelMetadataResponse {
            name,
            versions: vec![VERSION.to_owned()],
            platform: PLATFORM.to_owned(),
            inputs: inputs.iter().map(described).collect(),
            outputs: outputs.iter().map(described).collect(),
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let (caller, deadline) = (caller(&request)?, Deadline::of(&request));
        let request = request.into_inner();
        if inference::embeds(&self.dispatcher.view(), &request.model_name) {
            return Ok(Response::new(embed(&self.dispatcher, request, (caller, deadline)).await?));
        }
        let (asked, response) = read(request, &self.dispatcher)?;
        if asked.stream == Some(true) {
            let message = "`stream` is for ModelStreamInfer; leave it out here";
            return Err(status(ApiError::param("stream", message)));
        }
        let call = call(caller, Api::inference_grpc_infer, deadline, asked.timeout);
        let answers = inference::begin(&self.dispatcher, &asked.requests, &call).await?;
        Ok(Response::new(whole(answers, &asked.form, response).await?))
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (caller, deadline) = (caller(&request)?, Deadline::of(&request));
        let session = Session { dispatcher: self.dispatcher.clone(), caller, deadline, requests: request.into_inner() };
        let responses = stream::unfold((session, None), |(mut session, running)| async move {
            let (response, running) = session.next(running).await?;
            Some((response, (session, running)))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let caller = caller(&request)?;
        let models = inference::index(&self.dispatcher.view(), &caller, request.into_inner().ready);
        let models = models.into_iter().map(|model| {
            let (state, reason) = if model.ready { ("READY", "") } else { ("UNAVAILABLE", "no worker serves it now") };
            ModelIndex {
                name: model.name,
                version: VERSION.to_owned(),
                state: state.to_owned(),
                reason: reason.to_owned(),
            }
        });
        Ok(Response::new(RepositoryIndexResponse { models: models.collect() }))
    }
}

/// A call of ModelStreamInfer: requests, answered one after the other.
struct Session {
    dispatcher: std::sync::Arc<Dispatcher>,
    caller: Caller,
    deadline: Option<Instant>,
    requests: Streaming<ModelInferRequest>,
}

/// An answer that is being streamed.
struct Running {
    relayed: Relayed,
    form: Form,
    response: ModelInferResponse,
}

type Next = (Result<ModelStreamInferResponse, Status>, Option<Running>);

impl Session {
    /// The next response; `None` after the last one.
    async fn next(&mut self, mut running: Option<Running>) -> Option<Next> {
        loop {
            if let Some(answer) = running.take() {
                if let Some(next) = answer.next().await {
                    return Some(next);
                }
                continue;
            }
            let request = match self.requests.next().await? {
                Ok(request) => request,
                Err(status) => return Some((Err(status), None)),
            };
            match self.begin(request).await {
                Ok(Begun::Running(begun)) => running = Some(begun),
                Ok(Begun::Whole(response)) => return Some((Ok(answered(response)), None)),
                Err(error) => return Some((Ok(failed(&error)), None)),
            }
        }
    }

    async fn begin(&self, request: ModelInferRequest) -> Result<Begun, Status> {
        let (asked, response) = read(request, &self.dispatcher)?;
        let streamed = asked.stream.unwrap_or(false);
        if streamed && asked.requests.len() > 1 {
            return Err(status(ApiError::param("text_input", "a stream answers one text; send one")));
        }
        let call = call(self.caller.clone(), Api::inference_grpc_stream, self.deadline, asked.timeout);
        let mut answers = inference::begin(&self.dispatcher, &asked.requests, &call).await?;
        if !streamed {
            let mut response = whole(answers, &asked.form, response).await?;
            response.parameters.insert(FINAL.to_owned(), parameter(true));
            return Ok(Begun::Whole(response));
        }
        let answer = answers.pop().ok_or_else(|| Status::internal("the request has no text"))?;
        let (started, relayed) = answer.relayed();
        let response = with_expert(response, inference::expert(Some(&started)));
        Ok(Begun::Running(Running { relayed, form: asked.form, response }))
    }
}

enum Begun {
    Running(Running),
    Whole(ModelInferResponse),
}

/// The parameter of the last response to a request.
const FINAL: &str = "triton_final_response";

impl Running {
    /// The next response, with what is left of the answer.
    async fn next(mut self) -> Option<Next> {
        loop {
            let (outputs, last) = match self.relayed.next().await? {
                Ok(Event::Delta(delta)) if delta.text.is_empty() => continue,
                Ok(Event::Delta(delta)) => (inference::piece(&self.form, delta.text), false),
                Ok(Event::Finished(finished)) => (inference::finished(&self.form, &finished), true),
                Err(refusal) => return Some((Ok(failed(&refusal.into())), None)),
            };
            let mut response = with_outputs(self.response.clone(), outputs);
            response.parameters.insert(FINAL.to_owned(), parameter(last));
            return Some((Ok(answered(response)), (!last).then_some(self)));
        }
    }
}

fn answered(response: ModelInferResponse) -> ModelStreamInferResponse {
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
}

fn failed(status: &Status) -> ModelStreamInferResponse {
    ModelStreamInferResponse { error_message: status.message().to_owned(), infer_response: None }
}

/// The vectors of texts.
async fn embed(
    dispatcher: &Dispatcher,
    request: ModelInferRequest,
    (caller, deadline): (Caller, Option<Instant>),
) -> Result<ModelInferResponse, Status> {
    inference::same_version(&request.model_version).map_err(status)?;
    let response = begun(&request);
    let AskedVectors { mut request, timeout } = infer(request).and_then(Infer::asked_vectors).map_err(status)?;
    identify(&mut request.request_id);
    let call = call(caller, Api::inference_grpc_infer, deadline, timeout);
    let answer = inference::embed(dispatcher, request, &call).await?;
    let expert = answer.expert.as_ref().map(|expert| expert.name.clone());
    Ok(with_outputs(with_expert(response, expert), inference::vectors(answer)))
}

fn call(caller: Caller, api: Api, deadline: Option<Instant>, timeout: Option<Duration>) -> Call {
    let own = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let deadline = match (deadline, own) {
        (Some(deadline), Some(own)) => Some(deadline.min(own)),
        (deadline, own) => deadline.or(own),
    };
    Call::new(caller, api, deadline)
}

/// What is asked, and the response without its outputs.
fn read(request: ModelInferRequest, dispatcher: &Dispatcher) -> Result<(Asked, ModelInferResponse), Status> {
    inference::same_version(&request.model_version).map_err(status)?;
    let response = begun(&request);
    let mut asked = infer(request).and_then(|infer| infer.asked(dispatcher.limits.prompts_max)).map_err(status)?;
    for request in &mut asked.requests {
        identify(&mut request.request_id);
    }
    Ok((asked, response))
}

/// The response without its outputs.
fn begun(request: &ModelInferRequest) -> ModelInferResponse {
    ModelInferResponse {
        model_name: request.model_name.clone(),
        model_version: VERSION.to_owned(),
        id: request.id.clone(),
        ..Default::default()
    }
}

fn infer(request: ModelInferRequest) -> Result<Infer, ApiError> {
    let (inputs, raw) = (request.inputs, request.raw_input_contents);
    let inputs = if raw.is_empty() {
        inputs.into_iter().map(typed).collect::<Result<_, _>>()?
    } else if raw.len() == inputs.len() {
        let from_raw = |(input, raw): (InferInputTensor, Vec<u8>)| {
            let datatype = Datatype::parse(&input.name, &input.datatype)?;
            Tensor::from_raw(&input.name, datatype, &input.shape, &raw)
        };
        inputs.into_iter().zip(raw).map(from_raw).collect::<Result<_, _>>()?
    } else {
        let message = format!(
            "`raw_input_contents` has {} entries for {} inputs; give the contents of all inputs there, or of none",
            raw.len(),
            inputs.len()
        );
        return Err(ApiError::param("raw_input_contents", message));
    };
    let parameters = request.parameters.into_iter().map(|(name, parameter)| (name, json(parameter)));
    Ok(Infer {
        model: request.model_name,
        id: request.id,
        parameters: parameters.collect::<Map<_, _>>(),
        inputs,
        outputs: request.outputs.into_iter().map(|output| output.name).collect(),
    })
}

fn json(parameter: InferParameter) -> Value {
    match parameter.parameter_choice {
        None => Value::Null,
        Some(ParameterChoice::BoolParam(value)) => value.into(),
        Some(ParameterChoice::Int64Param(value)) => value.into(),
        Some(ParameterChoice::StringParam(value)) => value.into(),
        Some(ParameterChoice::DoubleParam(value)) => value.into(),
        Some(ParameterChoice::Uint64Param(value)) => value.into(),
    }
}

fn typed(input: InferInputTensor) -> Result<Tensor, ApiError> {
    let datatype = Datatype::parse(&input.name, &input.datatype)?;
    let contents = input.contents.unwrap_or_default();
    // More than any input has is refused before it is converted.
    inference::count(&input.name, &[i64::try_from(filled(&contents)).unwrap_or(i64::MAX)])?;
    let values = match datatype {
        Datatype::Bytes => {
            let texts = contents.bytes_contents.iter().enumerate();
            texts.map(|(index, text)| Tensor::text(&input.name, index, text)).collect::<Result<_, _>>()?
        }
        Datatype::Bool => values(contents.bool_contents),
        Datatype::Int(_) => values(contents.int_contents).into_iter().chain(values(contents.int64_contents)).collect(),
        Datatype::Uint(_) => {
            values(contents.uint_contents).into_iter().chain(values(contents.uint64_contents)).collect()
        }
        Datatype::Fp32 => values(contents.fp32_contents),
        Datatype::Fp64 => values(contents.fp64_contents),
    };
    Tensor::new(&input.name, datatype, &input.shape, values)
}

fn values<T: Into<Value>>(values: Vec<T>) -> Vec<Value> {
    values.into_iter().map(Into::into).collect()
}

/// Elements of all fields.
fn filled(contents: &InferTensorContents) -> usize {
    contents.bool_contents.len()
        + contents.int_contents.len()
        + contents.int64_contents.len()
        + contents.uint_contents.len()
        + contents.uint64_contents.len()
        + contents.fp32_contents.len()
        + contents.fp64_contents.len()
        + contents.bytes_contents.len()
}

async fn whole(answers: Vec<Answer>, form: &Form, response: ModelInferResponse) -> Result<ModelInferResponse, Status> {
    let completions = try_join_all(answers.into_iter().map(Answer::complete)).await?;
    let expert = inference::expert(completions.first().and_then(|completion| completion.started.as_ref()));
    Ok(with_outputs(with_expert(response, expert), inference::whole(form, completions)))
}

fn with_expert(mut response: ModelInferResponse, expert: Option<String>) -> ModelInferResponse {
    if let Some(expert) = expert {
        let parameter = InferParameter { parameter_choice: Some(ParameterChoice::StringParam(expert)) };
        response.parameters.insert("slm_expert".to_owned(), parameter);
    }
    response
}

fn parameter(value: bool) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(value)) }
}

/// Outputs are raw, as Triton's are.
fn with_outputs(mut response: ModelInferResponse, outputs: Vec<Output>) -> ModelInferResponse {
    for Output { name, values } in outputs {
        response.raw_output_contents.push(values.raw());
        response.outputs.push(InferOutputTensor {
            name: name.to_owned(),
            datatype: values.datatype().to_owned(),
            shape: values.shape().into_iter().map(|size| i64::try_from(size).unwrap_or(i64::MAX)).collect(),
            ..Default::default()
        });
    }
    response
}

/// A tensor or parameter that is wrong.
fn status(error: ApiError) -> Status {
    let mut status = Status::invalid_argument(error.body.message);
    if let Some(Ok(field)) = error.body.param.map(|param| param.parse()) {
        status.metadata_mut().insert(trailers::ERROR_FIELD, field);
    }
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn input(name: &str, datatype: &str, contents: InferTensorContents) -> InferInputTensor {
        InferInputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![1],
            contents: Some(contents),
            ..Default::default()
        }
    }

    #[test]
    fn contents_are_in_the_field_of_their_datatype() {
        let tensor = |datatype, contents| typed(input("x", datatype, contents)).map(|tensor| tensor.values);
        for (datatype, contents, expected) in [
            (
                "BYTES",
                InferTensorContents { bytes_contents: vec![b"hi".to_vec()], ..Default::default() },
                json!(["hi"]),
            ),
            ("BOOL", InferTensorContents { bool_contents: vec![true], ..Default::default() }, json!([true])),
            ("INT32", InferTensorContents { int_contents: vec![-3], ..Default::default() }, json!([-3])),
            ("UINT64", InferTensorContents { uint64_contents: vec![3], ..Default::default() }, json!([3])),
            ("FP32", InferTensorContents { fp32_contents: vec![0.5], ..Default::default() }, json!([0.5])),
        ] {
            assert_eq!(tensor(datatype, contents).map(Value::Array), Ok(expected));
        }
        let elsewhere = InferTensorContents { int_contents: vec![1], ..Default::default() };
        let error = tensor("FP32", elsewhere).expect_err("not its field");
        assert!(
            error.body.message.contains("has 0 values, but its shape [1] has 1 elements"),
            "{}",
            error.body.message
        );
        let many = InferTensorContents { fp32_contents: vec![0.0; 2000], ..Default::default() };
        assert!(tensor("FP32", many).expect_err("too many").body.message.contains("more than 1024 elements"));
    }

    #[test]
    fn raw_contents_are_of_all_inputs_or_of_none() {
        let request = ModelInferRequest {
            inputs: vec![input("text_input", "BYTES", InferTensorContents::default()); 2],
            raw_input_contents: vec![b"\x01\0\0\0a".to_vec()],
            ..Default::default()
        };
        let error = infer(request).expect_err("one is missing");
        assert!(
            error.body.message.contains("`raw_input_contents` has 1 entries for 2 inputs"),
            "{}",
            error.body.message
        );
    }
}
