"""The official `openai` and `ollama` clients against a running swarm with the models `minilm` (embeds) and, on it, the adapter `expert`.

    embeddings_client.py HTTP_ADDRESS TEXTS_JSON

Each check prints its name before it runs; the first that fails ends the script with its traceback.
"""

import json
import math
import sys

import httpx
import ollama
import openai

address, texts = sys.argv[1], json.load(open(sys.argv[2], encoding="utf-8"))
client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120)
tools = ollama.Client(host=address, timeout=120)


def close(a, b, bound=1e-6):
    return len(a) == len(b) and all(math.isclose(x, y, abs_tol=bound) for x, y in zip(a, b))


def length(vector):
    return math.sqrt(sum(x * x for x in vector))


def refused(field, words, **request):
    try:
        client.embeddings.create(**{"model": "minilm", "input": "a", **request})
    except openai.BadRequestError as error:
        assert (error.status_code, error.param) == (400, field), (error.status_code, error.param, error.message)
        assert words in error.message, error.message
        return error
    raise AssertionError(f"{request} was not refused")


def one_and_several():
    answer = client.embeddings.create(model="minilm", input=texts)
    assert answer.object == "list" and answer.model == "minilm", answer.model
    assert [item.index for item in answer.data] == list(range(len(texts)))
    assert 0 < answer.usage.prompt_tokens == answer.usage.total_tokens, answer.usage
    alone = client.embeddings.create(model="minilm", input=texts[1])
    assert close(alone.data[0].embedding, answer.data[1].embedding), "alone as in company"
    assert math.isclose(length(alone.data[0].embedding), 1, abs_tol=1e-5)


def float_and_base64_are_the_same_numbers():
    # The client asks for base64 by itself, and decodes it.
    packed = client.embeddings.create(model="minilm", input=texts[2]).data[0].embedding
    plain = client.embeddings.create(model="minilm", input=texts[2], encoding_format="float").data[0].embedding
    assert close(packed, plain, 1e-7), "the same numbers"
    raw = client.embeddings.create(model="minilm", input=texts[2], encoding_format="base64").data[0].embedding
    assert isinstance(raw, str) and raw, raw


def tokens():
    ask = lambda path, **body: httpx.post(f"{address}{path}", json={"model": "minilm", **body}, timeout=120)
    told = ask("/tokenize", prompt=texts[1], return_token_strs=True).json()
    usage = client.embeddings.create(model="minilm", input=texts[1]).usage
    assert told["count"] == len(told["token_strs"]) == usage.prompt_tokens, (told, usage)
    same = client.embeddings.create(model="minilm", input=told["tokens"]).data[0].embedding
    assert close(same, client.embeddings.create(model="minilm", input=texts[1]).data[0].embedding), "the same tokens"
    text = ask("/detokenize", tokens=told["tokens"]).json()["prompt"]
    assert told["token_strs"][0] in text, (told, text)
    bare = ask("/tokenize", content=texts[1]).json()["tokens"]
    assert bare == told["tokens"][1:-1], (bare, told)
    assert ask("/tokenize", prompt="a " * 1000).json()["count"] > 1000, "more than the model takes"
    assert "suffix is for models that generate text" in ask("/tokenize", prompt="a", suffix="b").text
    refused = ask("/tokenize", messages=[{"role": "user", "content": "a"}])
    assert refused.status_code == 400 and "minilm" in refused.text, refused.text


def token_ids():
    answer = client.embeddings.create(model="minilm", input=[[2, 7, 3], [2, 8, 3]])
    assert len(answer.data) == 2 and answer.usage.prompt_tokens == 6, answer.usage
    alone = client.embeddings.create(model="minilm", input=[2, 7, 3])
    assert close(alone.data[0].embedding, answer.data[0].embedding)


def dimensions():
    whole = client.embeddings.create(model="minilm", input="hello").data[0].embedding
    cut = client.embeddings.create(model="minilm", input="hello", dimensions=16, user="someone").data[0].embedding
    assert close(cut, [x / length(whole[:16]) for x in whole[:16]]), "cut, and of length one"


def adapter():
    base = client.embeddings.create(model="minilm", input="hello").data[0].embedding
    adapted = client.embeddings.create(model="expert", input="hello").data[0].embedding
    assert not close(base, adapted, 1e-3)


def refusals():
    refused("input", "empty list", input=[])
    refused("input", "empty string", input="")
    refused("input[1]", "empty string", input=["a", ""])
    refused("input", "at most 2048", input=["a"] * 10_000)
    refused("input", "has to be a string", input={"text": "a"})
    refused("dimensions", "1 to 64", dimensions=65)
    refused("input[0][1]", "integer", input=[[2, "a"]])
    refused("input", "vocabulary", input=[2, 9999])
    refused("encoding_format", "base64", encoding_format="int8")
    long = refused("input[1]", "has 102 tokens; `minilm` takes 64", input=["a", "a " * 100])
    assert long.code == "context_length_exceeded", long.code
    cut = client.embeddings.create(model="minilm", input="a " * 100, extra_body={"truncate": True})
    assert cut.usage.prompt_tokens == 64, cut.usage
    try:
        client.chat.completions.create(model="minilm", messages=[{"role": "user", "content": "hi"}])
    except openai.BadRequestError as error:
        assert "embeds texts" in error.message, error.message
    else:
        raise AssertionError("it chatted")
    try:
        client.embeddings.create(model="minilmm", input="a")
    except openai.NotFoundError as error:
        assert "did you mean `minilm`" in error.message, error.message
    else:
        raise AssertionError("found")


def ollama_embeds():
    want = client.embeddings.create(model="minilm", input=texts[:2]).data
    answer = tools.embed(model="minilm:latest", input=texts[:2], keep_alive="5m")
    assert all(close(got, item.embedding, 1e-7) for got, item in zip(answer.embeddings, want))
    assert answer.prompt_eval_count > 0 and answer.total_duration > 0, answer
    assert close(tools.embed(model="minilm", input=texts[0]).embeddings[0], want[0].embedding, 1e-7)
    assert close(tools.embeddings(model="minilm", prompt=texts[0]).embedding, want[0].embedding, 1e-7)
    assert tools.embed(model="minilm", input="a " * 100).prompt_eval_count == 64, "cut, as Ollama does"
    for request, words in [({"input": "a " * 100, "truncate": False}, "has 102 tokens"), ({"input": ""}, "empty string")]:
        try:
            tools.embed(model="minilm", **request)
        except ollama.ResponseError as error:
            assert error.status_code == 400 and words in error.error, error
        else:
            raise AssertionError(f"{request} was not refused")


for check in [one_and_several, float_and_base64_are_the_same_numbers, tokens, token_ids, dimensions, adapter, refusals, ollama_embeds]:
    print(check.__name__, flush=True)
    check()
