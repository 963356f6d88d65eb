"""A client generated from the published proto against a running quickstart swarm.

    grpc_client.py ADDRESS PROTO_DIR

Each check prints its name before it runs; the first that fails ends the script with its traceback.
"""

import json
import pathlib
import sys
import tempfile

import grpc
from google.protobuf import descriptor_pool
from grpc_tools import protoc

# Published by the gRPC project; small enough to be written out, so that no further package is needed.
HEALTH = """
syntax = "proto3";
package grpc.health.v1;
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse { enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; } ServingStatus status = 1; }
service Health { rpc Check(HealthCheckRequest) returns (HealthCheckResponse); }
"""
REFLECTION = """
syntax = "proto3";
package grpc.reflection.v1;
service ServerReflection { rpc ServerReflectionInfo(stream ServerReflectionRequest) returns (stream ServerReflectionResponse); }
message ServerReflectionRequest { string host = 1; oneof message_request { string file_containing_symbol = 4; string list_services = 7; } }
message ServerReflectionResponse { string valid_host = 1; FileDescriptorResponse file_descriptor_response = 4; ListServiceResponse list_services_response = 6; }
message FileDescriptorResponse { repeated bytes file_descriptor_proto = 1; }
message ListServiceResponse { repeated ServiceResponse service = 1; }
message ServiceResponse { string name = 1; }
"""

address, protos = sys.argv[1:]
work = tempfile.TemporaryDirectory()
for name, text in (("health", HEALTH), ("reflection", REFLECTION)):
    pathlib.Path(work.name, f"{name}.proto").write_text(text, encoding="utf-8")
out = [f"--python_out={work.name}", f"--grpc_python_out={work.name}"]
assert protoc.main(["protoc", f"-I{protos}", *out, "slm/v1/generation.proto", "slm/v1/worker.proto"]) == 0
assert protoc.main(["protoc", f"-I{work.name}", *out, "health.proto", "reflection.proto"]) == 0
sys.path.insert(0, work.name)

import health_pb2  # noqa: E402
import health_pb2_grpc  # noqa: E402
import reflection_pb2  # noqa: E402
import reflection_pb2_grpc  # noqa: E402
from slm.v1 import generation_pb2 as pb  # noqa: E402
from slm.v1 import generation_pb2_grpc  # noqa: E402

channel = grpc.insecure_channel(address)
generation = generation_pb2_grpc.GenerationStub(channel)
swarm = generation_pb2_grpc.SwarmStub(channel)


def request(model="smollm2", text="Where is the Eiffel Tower?", temperature=0.0, **more):
    messages = pb.Messages(messages=[pb.Message(role="user", content=text)])
    more.setdefault("max_tokens", 24)
    return pb.GenerateRequest(model=model, messages=messages, sampling=pb.Sampling(temperature=temperature), **more)


def complete():
    answer = generation.Complete(request(), timeout=60)
    assert "Paris" in answer.text, answer
    assert answer.started.expert.kind == pb.EXPERT_KIND_SLM_MODEL and answer.started.expert.name == "smollm2", answer
    assert answer.started.expert.digest.startswith("sha256:") and answer.started.request_id, answer
    assert answer.usage.prompt_tokens == answer.started.prompt_tokens > 0, answer
    raw = pb.GenerateRequest(model="smollm2", prompt="One, two, three,", max_tokens=6, sampling=pb.Sampling(temperature=0))
    assert "four" in generation.Complete(raw, timeout=60).text
    length = generation.Complete(request(max_tokens=3), timeout=60)
    assert (length.reason, length.usage.completion_tokens) == (pb.FINISH_REASON_LENGTH, 3), length


def generate():
    whole = generation.Complete(request(logprobs=2), timeout=60)
    events = list(generation.Generate(request(logprobs=2, request_id="mine"), timeout=60))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "started" and kinds[-1] == "finished" and set(kinds[1:-1]) == {"delta"}, kinds
    assert events[0].started.request_id == "mine", events[0]
    assert "".join(event.delta.text for event in events[1:-1]) == whole.text
    tokens = [token for event in events[1:-1] for token in event.delta.logprobs]
    assert [token.id for token in tokens] == [token.id for token in whole.logprobs]
    assert all(len(token.top) == 2 and token.id == token.top[0].id for token in tokens), tokens
    assert events[-1].finished.usage == whole.usage and events[-1].finished.reason == whole.reason, events[-1]


def stop():
    whole = generation.Complete(request(), timeout=60).text
    word = whole.split()[3]
    cut = generation.Complete(request(stop=[word]), timeout=60)
    assert cut.text == whole[: whole.index(word)] and cut.reason == pb.FINISH_REASON_STOP, cut


def expert():
    answer = generation.Complete(request("banking", "put a freeze on my bank account right now"), timeout=60)
    chosen = answer.started.expert
    assert answer.text.strip() == "freeze_account", answer
    assert (chosen.kind, chosen.name, chosen.model) == (pb.EXPERT_KIND_LORA_ADAPTER, "banking", "smollm2"), chosen


def list_models():
    models = {model.name: model for model in swarm.ListModels(pb.ListModelsRequest(), timeout=10).models}
    kinds = {name: model.kind for name, model in models.items()}
    wanted = {"smollm2": "SlmModel", "banking": "LoraAdapter", "assistant": "SwarmRoute"}
    assert wanted.items() <= kinds.items(), kinds
    assert all(model.ready for model in models.values()), models
    assert models["banking"].model == "smollm2" and models["banking"].digest.startswith("sha256:"), models["banking"]
    assert models["banking"].workers, models["banking"]


def explain():
    flight = request("assistant", "book me a flight from lisbon to oslo next friday")
    decision = swarm.Explain(flight, timeout=10)
    assert (decision.route, decision.chosen.name) == ("assistant", "travel"), decision
    outcomes = [candidate.outcome for candidate in decision.candidates]
    assert outcomes.count(pb.CANDIDATE_OUTCOME_CHOSEN) == 1, decision
    flight.explain = True
    answer = generation.Complete(flight, timeout=60)
    assert answer.started.decision.chosen.name == "travel" and answer.started.decision.candidates, answer
    assert answer.text.strip() == "book_flight", answer
    named = swarm.Explain(request("kitchen"), timeout=10)
    assert named.chosen.name == "kitchen" and not named.route and named.reason, named


def health():
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "slm.v1.Generation", "slm.v1.Swarm"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, (service, answer)
    status(grpc.StatusCode.NOT_FOUND, lambda: stub.Check(health_pb2.HealthCheckRequest(service="none"), timeout=10))


def reflection():
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services="*"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="slm.v1.Generation"),
    ]
    services, files = stub.ServerReflectionInfo(iter(asked), timeout=10)
    names = {service.name for service in services.list_services_response.service}
    assert {"slm.v1.Generation", "slm.v1.Swarm", "grpc.health.v1.Health"} <= names, names
    # Steering workers is not for callers.
    assert "slm.v1.WorkerControl" not in names, names
    pool = descriptor_pool.DescriptorPool()
    for blob in files.file_descriptor_response.file_descriptor_proto:
        pool.AddSerializedFile(blob)
    assert "Generate" in pool.FindServiceByName("slm.v1.Generation").methods_by_name


def status(code, call, *parts):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, error
        assert all(part in error.details() for part in parts), error.details()
        return dict(error.trailing_metadata())
    raise AssertionError(f"not refused with {code}")


def errors():
    code = grpc.StatusCode
    call = generation.Complete
    status(code.NOT_FOUND, lambda: call(request("bankin")), "`bankin`", "`banking`")
    status(code.NOT_FOUND, lambda: list(generation.Generate(request("bankin"))), "`banking`")
    trailers = status(code.INVALID_ARGUMENT, lambda: call(request(max_tokens=0)), "max_tokens is 0", "at least 1")
    assert trailers["slm-error-field"] == "max_tokens", trailers
    status(code.INVALID_ARGUMENT, lambda: call(request(temperature=-1.0)), "temperature")
    status(code.INVALID_ARGUMENT, lambda: call(request(stop=[""])), "stop")
    status(code.INVALID_ARGUMENT, lambda: call(request(logprobs=21)), "logprobs", "at most 20")
    status(code.INVALID_ARGUMENT, lambda: call(pb.GenerateRequest(model="smollm2")), "prompt")
    status(code.INVALID_ARGUMENT, lambda: call(request("")), "model")
    trailers = status(code.INVALID_ARGUMENT, lambda: call(request(text="very " * 20000)), "tokens", "context")
    assert trailers["slm-error-code"] == "context_length_exceeded", trailers
    status(code.DEADLINE_EXCEEDED, lambda: call(request(max_tokens=2000, ignore_eos=True), timeout=0.3))


def tools():
    schema = json.dumps({"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"]})
    more = {
        "tools": [pb.Tool(name="get_weather", description="The weather of a city.", parameters=schema)],
        "tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED, name="get_weather"),
        "max_tokens": 200,
    }
    answer = generation.Complete(request(**more), timeout=60)
    (call,) = answer.tool_calls
    assert answer.reason == pb.FINISH_REASON_TOOL_CALLS and not answer.text and call.id, answer
    assert json.loads(call.arguments)["city"] in ("Oslo", "Paris"), call
    events = list(generation.Generate(request(**more), timeout=60))
    parts = [part for event in events for part in event.delta.tool_calls]
    assert "".join(part.arguments for part in parts) == call.arguments and parts[0].name == call.name, parts


for check in (complete, generate, stop, tools, expert, list_models, explain, health, reflection, errors):
    print(check.__name__, flush=True)
    check()
