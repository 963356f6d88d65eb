"""The official `openai` client against a running quickstart swarm.

    openai_client.py BASE_URL EXPECTED_JSON

Each check prints its name before it runs; the first that fails ends the script with its traceback.
"""

import json
import math
import sys
from typing import Annotated, Literal, Optional

import openai
import pydantic

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=120)
expected = json.load(open(sys.argv[2], encoding="utf-8"))
TOWER = [{"role": "user", "content": "Where is the Eiffel Tower?"}]


class Building(pydantic.BaseModel):
    kind: Literal["tower", "bridge"]
    floors: Annotated[int, pydantic.Field(ge=1, le=200)]
    owner: Optional[Literal["city", "state"]]


def user(text):
    return [{"role": "user", "content": text}]


def chat(model="smollm2", messages=TOWER, temperature=0, **more):
    return client.chat.completions.create(model=model, messages=messages, temperature=temperature, **more)


def models():
    names = {model.id for model in client.models.list()}
    assert {"smollm2", "banking", "travel", "kitchen", "assistant"} <= names, names
    one = client.models.retrieve("banking")
    assert (one.id, one.object) == ("banking", "model"), one


def chat_completion():
    answer = chat(max_tokens=24)
    assert answer.object == "chat.completion" and answer.model == "smollm2", answer
    assert "Paris" in answer.choices[0].message.content, answer
    assert answer.choices[0].message.role == "assistant"
    assert answer.system_fingerprint.startswith("sha256:"), answer
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    assert 0 < usage.completion_tokens <= 24, usage


def completion():
    answer = client.completions.create(model="smollm2", prompt="The capital of France is", temperature=0, max_tokens=8)
    assert answer.object == "text_completion" and "Paris" in answer.choices[0].text, answer
    both = client.completions.create(
        model="smollm2", prompt=["The capital of France is", "One, two, three,"], temperature=0, max_tokens=8
    )
    assert [choice.index for choice in both.choices] == [0, 1], both
    assert both.choices[0].text == answer.choices[0].text, both


def streaming():
    whole = chat(max_tokens=24)
    chunks = list(chat(max_tokens=24, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1 and {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
    *running, last = chunks
    # Without cached_tokens: what a worker kept of earlier prompts differs by worker and by time.
    counted, expected = ((u.prompt_tokens, u.completion_tokens, u.total_tokens) for u in (last.usage, whole.usage))
    assert last.choices == [] and counted == expected, last
    assert all(chunk.usage is None for chunk in running), running
    text = "".join(chunk.choices[0].delta.content or "" for chunk in running)
    assert text == whole.choices[0].message.content, text
    assert running[-1].choices[0].finish_reason == whole.choices[0].finish_reason, running[-1]
    assert len(running) > 4, "an answer of many tokens came in few pieces"
    pieces = client.completions.create(model="smollm2", prompt="One, two,", temperature=0, max_tokens=6, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces).strip(), "no text"


def logprobs():
    answer = chat(max_tokens=4, logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens, tokens
    for token in tokens:
        best = token.top_logprobs
        assert len(best) == 3 and [one.logprob for one in best] == sorted((one.logprob for one in best), reverse=True)
        # Greedy at temperature 0: the token is the likeliest.
        assert token.token == best[0].token and token.logprob == best[0].logprob, token
        assert sum(math.exp(one.logprob) for one in best) <= 1.0001 and token.logprob <= 0, token
    text = b"".join(bytes(token.bytes) for token in tokens).decode()
    assert text.startswith(answer.choices[0].message.content), (text, answer)
    alone = chat(max_tokens=2, logprobs=True).choices[0].logprobs.content
    assert all(token.top_logprobs == [] for token in alone), alone
    streamed = [
        token.token
        for chunk in chat(max_tokens=4, logprobs=True, top_logprobs=3, stream=True)
        if chunk.choices and chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert streamed == [token.token for token in tokens], streamed
    old = client.completions.create(model="smollm2", prompt="One, two,", temperature=0, max_tokens=3, logprobs=2)
    assert len(old.choices[0].logprobs.tokens) == len(old.choices[0].logprobs.token_logprobs) == 3, old


def stop():
    whole = chat(max_tokens=24).choices[0].message.content
    word = whole.split()[3]
    cut = chat(max_tokens=24, stop=word).choices[0]
    assert cut.message.content == whole[: whole.index(word)] and cut.finish_reason == "stop", cut
    several = chat(max_tokens=24, stop=["never said", word]).choices[0]
    assert several.message.content == cut.message.content, several
    pieces = chat(max_tokens=24, stop=word, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == cut.message.content, "part of a stop string was sent"


def seed():
    def sample(number):
        answer = chat(messages=user("Tell me a story."), temperature=1, seed=number, max_tokens=16)
        return answer.choices[0].message.content

    assert sample(7) == sample(7)
    assert len({sample(number) for number in range(4)}) > 1, "every seed gives the same text"


def length():
    answer = chat(messages=user("Tell me a long story about the sea."), max_tokens=5)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 5, answer
    newer = chat(messages=user("Tell me a long story about the sea."), max_completion_tokens=5)
    assert newer.usage.completion_tokens == 5, newer


def experts_by_name():
    wrong = []
    for name, cases in expected.items():
        for case in cases:
            answer = chat(name, user(case["prompt"]), max_tokens=16)
            if answer.choices[0].message.content.strip() != case["answer"]:
                wrong.append((name, case["prompt"], answer.choices[0].message.content))
    assert sum(map(len, expected.values())) == 36
    assert not wrong, wrong


def route_picks_the_expert():
    cases = [
        ("put a freeze on my bank account right now", "banking", "freeze_account"),
        ("book me a flight from lisbon to oslo next friday", "travel", "book_flight"),
        ("find me a good recipe for onion soup", "kitchen", "recipe"),
        ("Who wrote Hamlet?", "smollm2", None),
    ]
    for prompt, expert, label in cases:
        raw = client.chat.completions.with_raw_response.create(
            model="assistant", messages=user(prompt), temperature=0, max_tokens=16, extra_body={"explain": True}
        )
        assert raw.headers["x-slm-expert"] == expert, (prompt, raw.headers)
        answer = raw.parse()
        decision = answer.x_slm_decision
        assert decision["route"] == "assistant" and decision["chosen"]["name"] == expert, decision
        assert decision["reason"] and decision["candidates"], decision
        assert label in (None, answer.choices[0].message.content.strip()), answer


def refused(kind, call, *parts, param=None, code=None):
    try:
        call()
    except kind as error:
        assert all(part in error.message for part in parts), error
        assert param in (None, error.param), (error.param, error)
        assert code in (None, error.code), (error.code, error)
        assert error.body["type"], error.body
        return
    raise AssertionError(f"not refused with {kind.__name__}: {parts}")


def structured_outputs():
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "minLength": 1, "maxLength": 20},
            "kind": {"enum": ["tower", "bridge"]},
            "floors": {"type": "integer", "minimum": 1, "maximum": 200},
        },
        "required": ["city", "kind", "floors"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "building", "strict": True, "schema": schema}}
    for number in range(3):
        choice = chat(temperature=1, seed=number, response_format=form, max_tokens=200).choices[0]
        building = json.loads(choice.message.content)
        assert choice.finish_reason == "stop" and list(building) == ["city", "kind", "floors"], building
        assert building["kind"] in ("tower", "bridge") and 1 <= building["floors"] <= 200, building
    pieces = chat(temperature=1, seed=2, response_format=form, max_tokens=200, stream=True)
    streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert streamed == choice.message.content, (streamed, choice)
    cut = chat(response_format=form, max_tokens=3).choices[0]
    assert cut.finish_reason == "length", cut
    # An adapter, which would answer with a label.
    label = chat("banking", user("freeze my card"), response_format=form, max_tokens=200).choices[0].message.content
    assert list(json.loads(label)) == ["city", "kind", "floors"], label
    text = chat(response_format={"type": "text"}, max_tokens=24).choices[0].message.content
    assert text == chat(max_tokens=24).choices[0].message.content, text
    chosen = chat(extra_body={"structured_outputs": {"choice": ["yes", "no"]}}).choices[0].message.content
    assert chosen in ("yes", "no"), chosen
    number = client.completions.create(
        model="smollm2", prompt="Call me at ", max_tokens=16, extra_body={"guided_regex": "[0-9]{3}-[0-9]{4}"}
    )
    assert len(number.choices[0].text) == 8 and number.choices[0].finish_reason == "stop", number
    parsed = client.chat.completions.parse(
        model="smollm2", messages=TOWER, temperature=1, seed=1, max_tokens=200, response_format=Building
    )
    assert isinstance(parsed.choices[0].message.parsed, Building), parsed


class GetWeather(pydantic.BaseModel):
    """The weather of a city."""

    city: Annotated[str, pydantic.Field(max_length=20)]
    unit: Literal["celsius", "fahrenheit"]


def tools():
    add = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a", "b"],
    }
    known = [
        {"type": "function", "function": {"name": "add", "description": "Adds two numbers.", "parameters": add}},
        openai.pydantic_function_tool(GetWeather),
    ]
    ask = {"messages": user("What is 2 and 3?"), "tools": known, "temperature": 1, "max_tokens": 200, "parallel_tool_calls": False}
    for number in range(3):
        whole = chat(tool_choice="required", seed=number, **ask)
        answer, tokens = whole.choices[0], whole.usage.completion_tokens
        assert answer.finish_reason == "tool_calls" and answer.message.content is None, answer
        (call,) = answer.message.tool_calls
        assert call.type == "function" and call.id and call.function.name in ("add", "GetWeather"), call
        assert isinstance(json.loads(call.function.arguments), dict), call
    def streamed(**more):
        """The parts of calls, at most one in a piece, and the reason."""
        pieces = list(chat(tool_choice="required", seed=2, stream=True, **{**ask, **more}))
        calls = [piece.choices[0].delta.tool_calls or [] for piece in pieces]
        assert all(len(parts) <= 1 for parts in calls), calls
        return [part for parts in calls for part in parts], pieces[-1].choices[0].finish_reason

    # The name first, then its arguments, piece by piece, which are those of the whole answer.
    (begun, *parts), reason = streamed()
    assert begun.index == 0 and begun.id and begun.type == "function", begun
    assert (begun.function.name, begun.function.arguments) == (call.function.name, ""), begun
    assert len(parts) > 2 and all((part.index, part.id, part.type, part.function.name) == (0, None, None, None) for part in parts), parts
    assert "".join(part.function.arguments for part in parts) == call.function.arguments, (parts, call)
    assert reason == "tool_calls", reason
    # An answer that ends within them has what came of them.
    cut = chat(tool_choice="required", seed=2, **{**ask, "max_tokens": tokens - 3}).choices[0]
    (half,) = cut.message.tool_calls
    assert cut.finish_reason == "length" and half.function.name == call.function.name, cut
    assert half.function.arguments != call.function.arguments and call.function.arguments.startswith(half.function.arguments), (half, call)
    (_, *parts), reason = streamed(max_tokens=tokens - 3)
    assert ("".join(part.function.arguments for part in parts), reason) == (half.function.arguments, "length"), (parts, half)
    with client.chat.completions.stream(model="smollm2", tool_choice="required", seed=2, **ask) as stream:
        snapshots = [event.arguments for event in stream if event.type == "tool_calls.function.arguments.delta"]
        assert len(snapshots) > 2 and snapshots[-1] == call.function.arguments, snapshots
        assert stream.get_final_completion().choices[0].message.tool_calls[0].function.name == call.function.name
    # One by name, and what the client's own parser makes of it.
    named = {"type": "function", "function": {"name": "GetWeather"}}
    ask["tools"] = known[1:]
    parsed = client.chat.completions.parse(model="smollm2", tool_choice=named, seed=1, **ask).choices[0]
    (call,) = parsed.message.tool_calls
    assert isinstance(call.function.parsed_arguments, GetWeather), call
    # The call and its result go back; then the model decides, and strict arguments stay guaranteed.
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": call.id, "type": "function", "function": {"name": "GetWeather", "arguments": call.function.arguments}}]}
    result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}
    ask["messages"] = user("How is the weather?") + [called, result]
    last = chat(seed=1, **ask).choices[0]
    assert last.message.content or last.message.tool_calls, last
    assert chat(tool_choice="none", seed=1, **ask).choices[0].message.tool_calls is None
    bad = openai.BadRequestError
    ask["messages"] = user("x") + [result]
    refused(bad, lambda: chat(**ask), "which no message before it makes", param="messages[1].tool_call_id")
    ask["messages"] = user("x")
    ask["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"not": {}}}}}}]
    where = "tools[0].function.parameters"
    refused(bad, lambda: chat(tool_choice="required", **ask), where, "/properties/a/not", param=where)
    ask["tools"] = known + known
    refused(bad, lambda: chat(**ask), "tools[2].function.name", "names have to differ", param="tools[2].function.name")


def several_answers():
    one = chat(max_tokens=16, temperature=1, seed=5)
    three = chat(max_tokens=16, temperature=1, seed=5, n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2], three
    texts = [choice.message.content for choice in three.choices]
    assert texts[0] == one.choices[0].message.content and len(set(texts)) == 3, texts
    assert texts == [choice.message.content for choice in chat(max_tokens=16, temperature=1, seed=5, n=3).choices]
    # A prompt counts once.
    usage = three.usage
    assert usage.prompt_tokens == one.usage.prompt_tokens and usage.completion_tokens > one.usage.completion_tokens, usage
    pieces = ["", "", ""]
    for event in chat(max_tokens=16, temperature=1, seed=5, n=3, stream=True):
        for choice in event.choices:
            pieces[choice.index] += choice.delta.content or ""
    assert pieces == texts, pieces
    best = client.completions.create(
        model="smollm2", prompt="The capital of France is", max_tokens=8, temperature=1, seed=1, n=2, best_of=4, logprobs=0
    )
    means = [sum(choice.logprobs.token_logprobs) / len(choice.logprobs.tokens) for choice in best.choices]
    assert len(means) == 2 and means[0] >= means[1], means
    refused(
        openai.BadRequestError,
        lambda: client.completions.create(model="smollm2", prompt="x", n=3, best_of=2),
        "`best_of` is 2, but 3 answers are wanted",
        param="best_of",
    )


def logit_bias():
    first = chat(max_tokens=1, logprobs=True, top_logprobs=2, extra_body={"return_tokens_as_token_ids": True})
    best, second = (int(one.token.split(":")[1]) for one in first.choices[0].logprobs.content[0].top_logprobs)
    biased = chat(
        max_tokens=1, logprobs=True, logit_bias={str(best): -100}, extra_body={"return_tokens_as_token_ids": True}
    )
    assert biased.choices[0].logprobs.content[0].token == f"token_id:{second}", biased


def errors():
    bad = openai.BadRequestError
    refused(openai.NotFoundError, lambda: chat("bankin"), "`bankin`", "`banking`", param="model", code="model_not_found")
    refused(openai.NotFoundError, lambda: client.models.retrieve("bankin"), "`banking`")
    refused(bad, lambda: chat(max_tokens=0), "max_tokens", "at least 1", param="max_tokens")
    refused(bad, lambda: chat(n=65), "`n`", "from 1 to 64", param="n")
    refused(bad, lambda: chat(temperature=-1), "temperature", "between 0 and", param="temperature")
    refused(bad, lambda: chat(top_p=1.5), "top_p", "between 0 and 1", param="top_p")
    refused(bad, lambda: chat(logprobs=True, top_logprobs=21), "at most 20")
    refused(bad, lambda: chat(extra_body={"temprature": 1}), "`temprature`", "`temperature`", code="unknown_parameter")
    refused(bad, lambda: chat(messages=[]), "messages", param="messages")
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"properties": {"a": {"not": {}}}}}}
    where = "response_format.json_schema.schema"
    refused(bad, lambda: chat(response_format=form), "/properties/a/not", "`not` is not supported", param=where)
    refused(bad, lambda: chat(logit_bias={"7": 101}), "between -100 and 100", param="logit_bias")
    refused(bad, lambda: chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "text")
    long = user("very " * 20000 + "long")
    refused(bad, lambda: chat(messages=long), "tokens", "context", code="context_length_exceeded")
    refused(bad, lambda: chat(messages=long, stream=True), "context", code="context_length_exceeded")


for check in (
    models,
    chat_completion,
    completion,
    streaming,
    logprobs,
    stop,
    seed,
    length,
    experts_by_name,
    route_picks_the_expert,
    structured_outputs,
    tools,
    several_answers,
    logit_bias,
    errors,
):
    print(check.__name__, flush=True)
    check()
