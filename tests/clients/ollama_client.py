"""The official `ollama` client against a running quickstart swarm.

    ollama_client.py HOST EXPECTED_JSON

Each check prints its name before it runs; the first that fails ends the script with its traceback.
"""

import json
import sys

import ollama

client = ollama.Client(host=sys.argv[1], timeout=120)
expected = json.load(open(sys.argv[2], encoding="utf-8"))
TOWER = [{"role": "user", "content": "Where is the Eiffel Tower?"}]
GREEDY = {"temperature": 0, "num_predict": 24}


def lists():
    names = {model.model for model in client.list().models}
    assert {"smollm2", "banking", "travel", "kitchen", "assistant"} <= names, names
    loaded = {model.model for model in client.ps().models}
    assert "smollm2" in loaded and "assistant" not in loaded, loaded
    assert client.show("banking").details.parent_model == "smollm2"


def chat():
    answer = client.chat(model="smollm2", messages=TOWER, options=GREEDY)
    assert "Paris" in answer.message.content and answer.message.role == "assistant", answer
    assert answer.done and answer.done_reason in ("stop", "length"), answer
    assert 0 < answer.eval_count <= 24 and answer.prompt_eval_count > 0, answer
    assert answer.total_duration >= answer.eval_duration > 0, answer
    tagged = client.chat(model="smollm2:latest", messages=TOWER, options=GREEDY)
    assert tagged.message.content == answer.message.content, tagged


def streaming():
    whole = client.chat(model="smollm2", messages=TOWER, options=GREEDY).message.content
    *running, last = client.chat(model="smollm2", messages=TOWER, options=GREEDY, stream=True)
    assert len(running) > 3 and not any(part.done for part in running), running
    assert "".join(part.message.content for part in running) == whole, running
    assert last.done and last.eval_count > 0, last


def generate():
    raw = client.generate(model="smollm2", prompt="The capital of France is", raw=True, options={"temperature": 0, "num_predict": 8})
    assert "Paris" in raw.response, raw
    *running, last = client.generate(model="smollm2", prompt="Where is the Eiffel Tower?", system="Be brief.", options=GREEDY, stream=True)
    assert "".join(part.response for part in running) and last.done_reason, last
    loaded = client.generate(model="smollm2")
    assert loaded.done and loaded.response == "", loaded


def experts():
    for name, cases in expected.items():
        case = cases[0]
        answer = client.chat(model=name, messages=[{"role": "user", "content": case["prompt"]}], options={"temperature": 0})
        assert answer.message.content.strip() == case["answer"], (name, case, answer)


def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: Name of the city.
    """
    return f"18 degrees in {city}"


def tools():
    # Ollama's API cannot ask for a call: the model decides.
    ask = {"model": "smollm2", "tools": [get_weather], "options": GREEDY}
    answer = client.chat(messages=TOWER, **ask)
    assert answer.message.content or answer.message.tool_calls, answer
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    messages = TOWER + [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": get_weather("Paris"), "tool_name": "get_weather"},
    ]
    last = client.chat(messages=messages, **ask)
    assert last.prompt_eval_count > answer.prompt_eval_count, (last, answer)
    assert last.message.content or last.message.tool_calls, last
    assert client.chat(model="smollm2", messages=TOWER, options=GREEDY, think=False).message.content
    refused(400, "no call before it of that tool is left without a result", lambda: client.chat(messages=TOWER + messages[-1:], **ask))


def refused(status, words, call):
    try:
        call()
    except ollama.ResponseError as error:
        assert error.status_code == status and words in error.error, (error.status_code, error.error)
        return
    raise AssertionError(f"not refused: {words}")


def refusals():
    refused(404, "smollm3", lambda: client.chat(model="smollm3", messages=TOWER))
    refused(404, "smollm3", lambda: client.show("smollm3"))
    refused(400, "`options.temperature`", lambda: client.chat(model="smollm2", messages=TOWER, options={"temperature": 9}))
    refused(400, "`options.num_predict`", lambda: client.chat(model="smollm2", messages=TOWER, options={"num_predict": 0}))
    refused(400, "`options.mirostat`", lambda: client.chat(model="smollm2", messages=TOWER, options={"mirostat": 1}))
    refused(400, "`smollm2` generates text; for embeddings", lambda: client.embed(model="smollm2", input="hi"))
    refused(404, "no endpoint at /api/pull", lambda: client.pull("smollm2"))


for check in [lists, chat, streaming, generate, experts, tools, refusals]:
    print(check.__name__, flush=True)
    check()
