"""LangChain's ChatOpenAI against a running quickstart swarm.

    langchain_client.py BASE_URL EXPECTED_JSON

Each check prints its name before it runs; the first that fails ends the script with its traceback.
"""

import asyncio
import json
import sys
from typing import Annotated, Literal

import openai
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict, Field

expected = json.load(open(sys.argv[2], encoding="utf-8"))
TOWER = "Where is the Eiffel Tower?"


def chat(name="smollm2", temperature=0, max_tokens=24, **more):
    return ChatOpenAI(
        model=name, base_url=sys.argv[1], api_key="none", max_retries=0, timeout=120, temperature=temperature, max_tokens=max_tokens, **more
    )


@tool
def get_weather(city: Literal["Oslo", "Paris"], days: Annotated[int, Field(ge=1, le=9)]) -> str:
    """The weather of a city."""
    return f"18 degrees in {city} for {days} days"


@tool
def add(a: Annotated[int, Field(ge=0, le=99)], b: Annotated[int, Field(ge=0, le=99)]) -> str:
    """Adds two numbers."""
    return str(a + b)


class Building(BaseModel):
    """A building."""

    # Other fields would be allowed, and a small model writes many.
    model_config = ConfigDict(extra="forbid")

    city: Annotated[str, Field(max_length=20)]
    kind: Literal["tower", "bridge"]
    floors: Annotated[int, Field(ge=1, le=200)]


def invoke():
    answer = chat().invoke(TOWER)
    assert "Paris" in answer.content and answer.response_metadata["finish_reason"] in ("stop", "length"), answer
    usage = answer.usage_metadata
    assert usage["input_tokens"] > 0 and usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], usage
    told = chat().invoke([SystemMessage("You answer with one word."), HumanMessage(TOWER)])
    assert told.content, told


def stream():
    whole = chat().invoke(TOWER)
    pieces = list(chat(stream_usage=True).stream(TOWER))
    assert len(pieces) > 3 and "".join(piece.content for piece in pieces) == whole.content, pieces
    usages = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert [usage["output_tokens"] for usage in usages] == [whole.usage_metadata["output_tokens"]], usages


def several():
    answers = chat().batch([TOWER, "What is the capital of France?"])
    assert len(answers) == 2 and all(answer.content for answer in answers), answers
    assert asyncio.run(chat().ainvoke(TOWER)).content == answers[0].content


def experts():
    for case in expected["banking"][:3]:
        assert chat("banking").invoke(case["prompt"]).content.strip() == case["answer"], case


def tools():
    bound = chat(temperature=1, max_tokens=200, seed=3).bind_tools([get_weather, add], tool_choice="any", parallel_tool_calls=False)
    answer = bound.invoke("How is the weather in Paris?")
    (call,) = answer.tool_calls
    assert answer.response_metadata["finish_reason"] == "tool_calls" and not answer.invalid_tool_calls, answer
    known = {"get_weather": get_weather, "add": add}
    result = known[call["name"]].invoke(call)
    assert isinstance(result, ToolMessage) and result.tool_call_id == call["id"], result
    # A stream has the name in one chunk, the arguments in others; added up they are the same call.
    chunks = list(bound.stream("How is the weather in Paris?"))
    parts = [part for chunk in chunks for part in chunk.tool_call_chunks]
    assert parts[0]["name"] == call["name"] and len(parts) > 3 and not any(part["name"] for part in parts[1:]), parts
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert [(one["name"], one["args"]) for one in whole.tool_calls] == [(call["name"], call["args"])], whole
    # The call and its result go back.
    history = [HumanMessage("How is the weather in Paris?"), answer, result]
    last = chat().bind_tools([get_weather, add], tool_choice="none").invoke(history)
    assert last.content and not last.tool_calls, last
    # One by name, strict.
    named = chat(temperature=1, max_tokens=200).bind_tools([get_weather, add], tool_choice="add", strict=True)
    (call,) = named.invoke("What is 2 and 3?").tool_calls
    assert call["name"] == "add" and isinstance(call["args"]["a"], int), call
    # The model decides.
    free = chat().bind_tools([add]).invoke(TOWER)
    assert free.content or free.tool_calls, free


def structured():
    model = chat(temperature=1, max_tokens=200)
    for method, more in [("json_schema", {}), ("json_schema", {"strict": True}), ("function_calling", {}), ("function_calling", {"strict": True})]:
        building = model.with_structured_output(Building, method=method, **more).invoke(TOWER)
        assert isinstance(building, Building), (method, building)
    raw = model.with_structured_output(Building, method="function_calling", include_raw=True).invoke(TOWER)
    assert raw["parsing_error"] is None and raw["raw"].tool_calls[0]["name"] == "Building", raw
    # A dictionary grows while its pieces come.
    for method in ("json_schema", "function_calling"):
        pieces = list(model.with_structured_output(Building.model_json_schema(), method=method).stream(TOWER))
        assert len(pieces) > 2 and Building.model_validate(pieces[-1]) and len(pieces[0]) < 3, (method, pieces)


def errors():
    for model, kind, words in [
        (chat("bankin"), openai.NotFoundError, "`banking`"),
        (chat(max_tokens=0), openai.BadRequestError, "at least 1"),
        (chat().bind_tools([add, add]), openai.BadRequestError, "tools[1].function.name"),
    ]:
        try:
            model.invoke(TOWER)
        except kind as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"not refused: {words}")


for check in (invoke, stream, several, experts, tools, structured, errors):
    print(check.__name__, flush=True)
    check()
