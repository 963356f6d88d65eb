"""The Responses API of the official `openai` client against a running quickstart swarm.

    responses_client.py BASE_URL EXPECTED_JSON

Each check prints its name before it runs; the first that fails ends the script with its traceback.
"""

import json
import sys
from typing import Annotated, Literal

import openai
import pydantic

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=120)
expected = json.load(open(sys.argv[2], encoding="utf-8"))
TOWER = "Where is the Eiffel Tower?"
CLOCK = {
    "type": "function",
    "name": "time_in",
    "description": "The time in a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class Building(pydantic.BaseModel):
    kind: Literal["tower", "bridge"]
    floors: Annotated[int, pydantic.Field(ge=1, le=200)]


def respond(input=TOWER, model="smollm2", temperature=0, **more):
    return client.responses.create(model=model, input=input, temperature=temperature, **more)


def whole():
    answer = respond(max_output_tokens=24, metadata={"a": "b"}, instructions=None)
    assert "Paris" in answer.output_text and answer.object == "response" and answer.error is None, answer
    assert answer.status in ("completed", "incomplete") and answer.metadata == {"a": "b"}, answer
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens and 0 < usage.output_tokens <= 24, usage
    chat = client.chat.completions.create(
        model="smollm2", messages=[{"role": "user", "content": TOWER}], temperature=0, max_tokens=24
    )
    assert answer.output_text == chat.choices[0].message.content, (answer, chat)
    items = [{"role": "user", "content": [{"type": "input_text", "text": TOWER}]}]
    assert respond(items, max_output_tokens=24).output_text == answer.output_text
    short = respond(max_output_tokens=3)
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens"), short


def turns():
    first = respond("My name is Ada.", max_output_tokens=32)
    # What was answered goes back as it came.
    history = [{"role": "user", "content": "My name is Ada."}, *first.output, {"role": "user", "content": "What is my name?"}]
    second = respond(history, max_output_tokens=24)
    chat = client.chat.completions.create(
        model="smollm2",
        messages=[
            {"role": "user", "content": "My name is Ada."},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "What is my name?"},
        ],
        temperature=0,
        max_tokens=24,
    )
    assert second.output_text == chat.choices[0].message.content, (second, chat)
    told = respond("What is my name?", instructions="The user's name is Ada.", max_output_tokens=16)
    assert told.instructions == "The user's name is Ada." and told.output_text != respond("What is my name?").output_text, told


def streaming():
    answer = respond(max_output_tokens=24)
    events = list(respond(max_output_tokens=24, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"], kinds
    assert kinds[-4:-1] == ["output_text.done", "content_part.done", "output_item.done"], kinds
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(pieces) > 3 and "".join(pieces) == answer.output_text == events[-1].response.output_text, pieces
    with client.responses.stream(model="smollm2", input=TOWER, temperature=0, max_output_tokens=24) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text == answer.output_text and final.usage == answer.usage, final


def structured():
    schema = {"type": "object", "properties": {"floors": {"type": "integer"}}, "required": ["floors"], "additionalProperties": False}
    answer = respond(temperature=1, text={"format": {"type": "json_schema", "name": "b", "schema": schema, "strict": True}})
    assert isinstance(json.loads(answer.output_text)["floors"], int), answer
    parsed = client.responses.parse(model="smollm2", input=TOWER, temperature=1, text_format=Building, max_output_tokens=200)
    assert isinstance(parsed.output_parsed, Building), parsed


def logprobs():
    answer = respond(max_output_tokens=4, include=["message.output_text.logprobs"], top_logprobs=2)
    tokens = answer.output[0].content[0].logprobs
    assert "".join(token.token for token in tokens) == answer.output_text, tokens
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens), tokens


def experts():
    for case in expected["banking"][:3]:
        answer = respond(case["prompt"], model="banking", max_output_tokens=16)
        assert answer.output_text == case["answer"], (answer, case)


def tools():
    asked = "What time is it in Oslo?"
    answer = respond(asked, temperature=1, tools=[CLOCK], tool_choice="required", parallel_tool_calls=False)
    call = answer.output[-1]
    assert (call.type, call.name, answer.tools[0].name) == ("function_call", "time_in", "time_in"), answer
    assert json.loads(call.arguments)["city"] in ("Rome", "Oslo") and call.call_id, call
    events = list(respond(asked, temperature=1, tools=[CLOCK], tool_choice={"type": "function", "name": "time_in"}, stream=True))
    parts = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert done and json.loads(done[0].arguments)["city"] in ("Rome", "Oslo"), events
    assert len(parts) > 2 and "".join(parts) == done[0].arguments == events[-1].response.output[-1].arguments, events
    # An answer that ends within a call has what came of it.
    named = {"temperature": 0, "tools": [CLOCK], "tool_choice": {"type": "function", "name": "time_in"}}
    cut = respond(asked, **named).usage.output_tokens - 2
    half = respond(asked, **named, max_output_tokens=cut)
    assert (half.status, half.output[-1].type, half.output[-1].status) == ("incomplete", "function_call", "incomplete"), half
    # The call and its result go back, and the model answers.
    history = [{"role": "user", "content": asked}, *answer.output]
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "It is nine."})
    assert respond(history, tools=[CLOCK], tool_choice="none", max_output_tokens=24).output_text


def refused(call, *parts, param=None):
    try:
        call()
    except openai.APIStatusError as error:
        assert all(part in error.message for part in parts), error.message
        assert param is None or error.param == param, error.body
        return
    raise AssertionError(f"not refused: {parts}")


def errors():
    refused(lambda: respond(model="bankin"), "`bankin`", "`banking`")
    refused(lambda: respond(previous_response_id="resp_1"), "send the whole conversation", param="previous_response_id")
    refused(lambda: respond(store=True), "not kept", param="store")
    refused(lambda: respond(tools=[{"type": "web_search"}]), "no built-in tools", param="tools[0].type")
    refused(lambda: respond(max_output_tokens=0), "max_output_tokens is 0", param="max_output_tokens")
    refused(lambda: respond([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]), "text only")
    schema = {"properties": {"a": {"not": {}}}}
    form = {"format": {"type": "json_schema", "name": "n", "schema": schema}}
    refused(lambda: respond(text=form), "/properties/a/not", param="text.format.schema")
    refused(lambda: respond(tools=[CLOCK, CLOCK]), "tools[1].name", "that of another tool", param="tools[1].name")
    refused(lambda: respond("very " * 20000 + "long"), "tokens", "context", param="input")


for check in (whole, turns, streaming, structured, logprobs, experts, tools, errors):
    print(check.__name__, flush=True)
    check()
