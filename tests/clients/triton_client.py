"""The official `tritonclient`, over gRPC and HTTP, against a running quickstart swarm.

    triton_client.py GRPC_HOST:PORT HTTP_HOST:PORT EXPECTED_JSON

Each check prints its name before it runs; the first that fails ends the script with its traceback.
"""

import json
import queue
import sys
import urllib.request

import numpy
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

over_grpc = tritonclient.grpc.InferenceServerClient(sys.argv[1])
over_http = tritonclient.http.InferenceServerClient(sys.argv[2], concurrency=2)
BASE = f"http://{sys.argv[2]}/v2/models"
# As SmolLM2's chat template renders a question, which is how the quickstart's experts were trained.
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
CHAT = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
case = json.load(open(sys.argv[3], encoding="utf-8"))["banking"][0]
PROMPT = "The Eiffel Tower is in the city of"
GREEDY = json.dumps({"temperature": "0", "max_tokens": "12"})


def text(package, name, *texts):
    tensor = package.InferInput(name, [len(texts)], "BYTES")
    tensor.set_data_from_numpy(numpy.array([text.encode() for text in texts], dtype=object))
    return tensor


def scalar(package, name, value, datatype, dtype):
    tensor = package.InferInput(name, [1], datatype)
    tensor.set_data_from_numpy(numpy.array([value], dtype=dtype))
    return tensor


def both(check):
    for client, package in ((over_grpc, tritonclient.grpc), (over_http, tritonclient.http)):
        check(client, package)


def server():
    def check(client, _):
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("smollm2") and client.is_model_ready("assistant", "1")
        assert not client.is_model_ready("nobody") and not client.is_model_ready("smollm2", "2")

    both(check)
    assert over_grpc.get_server_metadata().name == over_http.get_server_metadata()["name"] == "slm-swarm"


def models():
    of_grpc = over_grpc.get_model_metadata("banking", as_json=True)
    of_http = over_http.get_model_metadata("banking")
    assert of_http["inputs"][0] == {"name": "text_input", "datatype": "BYTES", "shape": [-1]}, of_http
    assert [output["name"] for output in of_grpc["outputs"]] == [output["name"] for output in of_http["outputs"]]
    index = {model.name: model.state for model in over_grpc.get_model_repository_index().models}
    assert index == {model["name"]: model["state"] for model in over_http.get_model_repository_index()}, index
    assert index["assistant"] == index["banking"] == "READY", index


def infer():
    answers = []

    def check(client, package):
        inputs = [text(package, "text_input", PROMPT, "Water boils at"), text(package, "sampling_parameters", GREEDY)]
        inputs.append(scalar(package, "return_num_output_tokens", True, "BOOL", bool))
        result = client.infer("smollm2", inputs, request_id="seven")
        outputs = result.as_numpy("text_output").tolist()
        assert len(outputs) == 2 and b"Paris" in outputs[0], outputs
        assert result.as_numpy("num_output_tokens").tolist() == [12, 12], result.as_numpy("num_output_tokens")
        response = result.get_response()
        assert (response["id"] if isinstance(response, dict) else response.id) == "seven", response
        answers.append(outputs)

    both(check)
    assert answers[0] == answers[1], answers


def outputs():
    def check(client, package):
        inputs = [text(package, "text_input", PROMPT), scalar(package, "max_tokens", 3, "INT32", numpy.int32)]
        inputs.append(scalar(package, "temperature", 0.0, "FP32", numpy.float32))
        inputs.append(scalar(package, "exclude_input_in_output", False, "BOOL", bool))
        wanted = [package.InferRequestedOutput("text_output"), package.InferRequestedOutput("finish_reason")]
        result = client.infer("smollm2", inputs, outputs=wanted)
        assert result.as_numpy("text_output")[0].startswith(PROMPT.encode()), result.as_numpy("text_output")
        assert result.as_numpy("finish_reason").tolist() == [b"length"], result.as_numpy("finish_reason")

    both(check)
    # Text in the JSON itself, which the client can ask for.
    plain = text(tritonclient.http, "text_input", PROMPT)
    plain.set_data_from_numpy(numpy.array([PROMPT], dtype=object), binary_data=False)
    wanted = [tritonclient.http.InferRequestedOutput("text_output", binary_data=False)]
    result = over_http.infer("smollm2", [plain, text(tritonclient.http, "sampling_parameters", GREEDY)], outputs=wanted)
    assert "Paris" in result.get_response()["outputs"][0]["data"][0], result.get_response()


def experts():
    prompt = CHAT.format(SYSTEM, case["prompt"])

    def check(client, package):
        result = client.infer("banking", [text(package, "text_input", prompt), text(package, "sampling_parameters", GREEDY)])
        assert result.as_numpy("text_output")[0].decode() == case["answer"], (result.as_numpy("text_output"), case)

    both(check)


def streaming():
    whole = over_grpc.infer(
        "smollm2", [text(tritonclient.grpc, "text_input", PROMPT), text(tritonclient.grpc, "sampling_parameters", GREEDY)]
    ).as_numpy("text_output")[0]
    results = queue.Queue()
    over_grpc.start_stream(callback=lambda result, error: results.put((result, error)))

    def ask(model, *more):
        inputs = [text(tritonclient.grpc, "text_input", PROMPT), text(tritonclient.grpc, "sampling_parameters", GREEDY)]
        over_grpc.async_stream_infer(model, inputs + list(more), enable_empty_final_response=True)

    ask("smollm2", scalar(tritonclient.grpc, "stream", True, "BOOL", bool))
    ask("nobody")
    ask("smollm2")
    pieces, final = [], False
    while not final:
        result, error = results.get(timeout=60)
        assert error is None, error
        pieces.append(result.as_numpy("text_output")[0])
        final = result.get_response().parameters["triton_final_response"].bool_param
    assert len(pieces) > 3 and b"".join(pieces) == whole, (pieces, whole)
    # What fails is said, and the stream goes on.
    _, error = results.get(timeout=60)
    assert "`nobody`" in error.message(), error
    result, error = results.get(timeout=60)
    assert error is None and result.as_numpy("text_output")[0] == whole, error
    over_grpc.stop_stream()


def post(path, body):
    request = urllib.request.Request(f"{BASE}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=60)


def generate():
    body = {"text_input": PROMPT, "parameters": {"temperature": 0, "max_tokens": 12, "return_finish_reason": True}}
    answer = json.load(post("smollm2/generate", body))
    assert "Paris" in answer["text_output"] and answer["finish_reason"] == "length", answer
    assert answer["parameters"]["slm_expert"] == "smollm2", answer
    lines = [line for line in post("smollm2/generate_stream", body).read().decode().split("\n") if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert "".join(event["text_output"] for event in events) == answer["text_output"], events
    assert len(events) > 3 and events[-1]["finish_reason"] == "length", events


def refused(words, call):
    try:
        call()
    except InferenceServerException as error:
        assert all(word in error.message() for word in words), error.message()
        return
    raise AssertionError(f"not refused with {words}")


def errors():
    def check(client, package):
        prompt = text(package, "text_input", PROMPT)
        refused(["`smolm2`", "`smollm2`"], lambda: client.infer("smolm2", [prompt]))
        refused(["no version \"7\""], lambda: client.infer("smollm2", [prompt], model_version="7"))
        refused(["`text_input` is missing"], lambda: client.infer("smollm2", [text(package, "prompt", PROMPT)]))
        refused(["datatype", "`text_input`"], lambda: client.infer("smollm2", [scalar(package, "text_input", 1, "INT32", numpy.int32)]))
        refused(["FP16"], lambda: client.infer("smollm2", [scalar(package, "text_input", 1, "FP16", numpy.float16)]))
        refused(["max_tokens is 0"], lambda: client.infer("smollm2", [prompt, scalar(package, "max_tokens", 0, "INT32", numpy.int32)]))
        refused(["`max_token`", "`max_tokens`"], lambda: client.infer("smollm2", [prompt], parameters={"max_token": 5}))
        refused(["no output `logits`"], lambda: client.infer("smollm2", [prompt], outputs=[package.InferRequestedOutput("logits")]))
        refused(["`stream`"], lambda: client.infer("smollm2", [prompt, scalar(package, "stream", True, "BOOL", bool)]))

    both(check)


for check in (server, models, infer, outputs, experts, streaming, generate, errors):
    print(check.__name__, flush=True)
    check()
