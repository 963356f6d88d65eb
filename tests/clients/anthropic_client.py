"""The official `anthropic` client against a running quickstart swarm.

    anthropic_client.py BASE_URL EXPECTED_JSON

Each check prints its name before it runs; the first that fails ends the script with its traceback.
"""

import json
import sys

import anthropic

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=120)
expected = json.load(open(sys.argv[2], encoding="utf-8"))
TOWER = [{"role": "user", "content": "Where is the Eiffel Tower?"}]


# This version of the client has no argument for the temperature any more.
def create(model="smollm2", messages=TOWER, max_tokens=24, temperature=0, **more):
    return client.messages.create(model=model, messages=messages, max_tokens=max_tokens, extra_body={"temperature": temperature}, **more)


def message():
    answer = create()
    assert answer.type == "message" and answer.role == "assistant" and answer.id.startswith("msg_"), answer
    assert "Paris" in answer.content[0].text and answer.model == "smollm2", answer
    assert answer.stop_reason in ("end_turn", "max_tokens"), answer
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens > 0 and answer.usage.output_tokens > 0, answer.usage
    blocks = create(messages=[{"role": "user", "content": [{"type": "text", "text": "Where is "}, {"type": "text", "text": "the Eiffel Tower?"}]}])
    assert blocks.content[0].text == answer.content[0].text, blocks


def counts():
    counted = client.messages.count_tokens(model="smollm2", messages=TOWER, system="Be brief.")
    usage = client.messages.create(model="smollm2", messages=TOWER, system="Be brief.", max_tokens=1).usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens > 10, (counted, usage)


def stops():
    cut = create(max_tokens=3)
    assert cut.stop_reason == "max_tokens" and cut.usage.output_tokens == 3, cut
    stopped = create(stop_sequences=["nothing like it", "Paris"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "Paris"), stopped
    assert "Paris" not in stopped.content[0].text, stopped


def streaming():
    whole = create()
    with client.messages.stream(model="smollm2", messages=TOWER, max_tokens=24, extra_body={"temperature": 0}) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text, (text, whole, final)
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens), final


def system():
    answer = create(system="You only ever answer with the word blue.", messages=[{"role": "user", "content": "What colour is grass?"}])
    assert answer.content[0].text and answer.usage.input_tokens > 0, answer


def experts():
    for name, cases in expected.items():
        case = cases[0]
        answer = create(model=name, messages=[{"role": "user", "content": case["prompt"]}])
        assert answer.content[0].text.strip() == case["answer"], (name, case, answer)


def tools():
    schema = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"], "additionalProperties": False}
    ask = {
        "tools": [{"name": "get_weather", "description": "The weather of a city.", "input_schema": schema}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "max_tokens": 200,
    }
    answer = create(**ask)
    (call,) = answer.content
    assert answer.stop_reason == "tool_use" and call.type == "tool_use" and call.name == "get_weather", answer
    assert call.input["city"] in ("Oslo", "Paris"), call
    greedy = {"model": "smollm2", "messages": TOWER, "extra_body": {"temperature": 0}}
    with client.messages.stream(**greedy, **ask) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert len(pieces) > 2 and json.loads("".join(pieces)) == call.input, pieces
    assert final.content[0].input == call.input and final.stop_reason == "tool_use", final
    # An answer that ends within a call: its input is empty, or what the client makes of the pieces.
    ask["max_tokens"] = answer.usage.output_tokens - 2
    cut = create(**ask)
    assert (cut.stop_reason, cut.content[0].name, cut.content[0].input) == ("max_tokens", "get_weather", {}), cut
    with client.messages.stream(**greedy, **ask) as stream:
        half = stream.get_final_message()
    assert (half.stop_reason, half.content[0].name) == ("max_tokens", "get_weather"), half
    result = [{"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "18 degrees"}]}]
    messages = TOWER + [{"role": "assistant", "content": answer.content}, {"role": "user", "content": result}]
    last = create(messages=messages, **{**ask, "tool_choice": {"type": "none"}})
    assert last.content[0].type == "text" and last.content[0].text, last


def refused(kind, words, call):
    try:
        call()
    except kind as error:
        assert error.body["type"] == "error" and words in error.body["error"]["message"], error.body
        return
    raise AssertionError(f"not refused: {words}")


def refusals():
    refused(anthropic.NotFoundError, "smollm3", lambda: create(model="smollm3"))
    refused(anthropic.BadRequestError, "temperature", lambda: create(temperature=9))
    refused(anthropic.BadRequestError, "`tools[0].name` is missing", lambda: create(tools=[{"name": "", "input_schema": {"type": "object"}}]))
    schema = {"type": "object", "properties": {"a": {"not": {}}}}
    any_tool = {"tools": [{"name": "f", "input_schema": schema}], "tool_choice": {"type": "any"}}
    refused(anthropic.BadRequestError, "tools[0].input_schema at /properties/a/not", lambda: create(**any_tool))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    refused(anthropic.BadRequestError, "text only", lambda: create(messages=[{"role": "user", "content": [image]}]))


for check in [message, counts, stops, streaming, system, experts, tools, refusals]:
    print(check.__name__, flush=True)
    check()
