"""`/tokenize`, `/detokenize` and `/apply_template` of a running quickstart swarm, in vLLM's and in llama-server's form, beside
what the official `openai` client says of the same requests; and what completions make of `echo`, `suffix` and a message
that is to be continued.

    tokens.py BASE_URL

Each check prints its name before it runs; the first that fails ends the script with its traceback.
"""

import sys

import httpx
import openai

BASE = sys.argv[1]
http = httpx.Client(base_url=BASE, timeout=120)
client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", timeout=120, max_retries=0)
TEXT = "Ein naïver Text: 日本 🦀\n"
TOWER = [{"role": "user", "content": "Where is the Eiffel Tower?"}]
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


def post(path, **body):
    response = http.post(path, json={"model": "smollm2", **body})
    assert response.status_code == 200, response.text
    return response.json()


def refused(path, *said, status=400, **body):
    response = http.post(path, json={"model": "smollm2", **body})
    error = response.json()["error"]
    assert response.status_code == status, response.text
    for words in said:
        assert words in error["message"], error
    return error


def text_and_back():
    told = post("/tokenize", prompt=TEXT, return_token_strs=True)
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"]) > 5, told
    assert told["token_strs"][0] == "E", told
    assert told["max_model_len"] >= 1024, told
    assert post("/tokenize", prompt=TEXT)["token_strs"] is None
    back = post("/detokenize", tokens=told["tokens"])
    assert back["prompt"] == back["content"] == TEXT, back
    given = client.completions.create(model="smollm2", prompt=TEXT, max_tokens=1)
    assert given.usage.prompt_tokens == told["count"], (given.usage, told)
    same = client.completions.create(model="smollm2", prompt=told["tokens"], max_tokens=8, temperature=0)
    assert same.choices[0].text == client.completions.create(model="smollm2", prompt=TEXT, max_tokens=8, temperature=0).choices[0].text


def llama_server():
    plain = post("/tokenize", content=TEXT)
    assert plain == {"tokens": post("/tokenize", prompt=TEXT)["tokens"]}, plain
    pieces = post("/tokenize", content=TEXT, with_pieces=True)["tokens"]
    assert [piece["id"] for piece in pieces] == plain["tokens"], pieces
    whole = b"".join(bytes(piece["piece"]) if isinstance(piece["piece"], list) else piece["piece"].encode() for piece in pieces)
    assert whole.decode() == TEXT, pieces
    assert any(isinstance(piece["piece"], list) for piece in pieces), "no character was split"
    control = post("/tokenize", content="<|im_end|>", parse_special=True)["tokens"]
    text = post("/tokenize", content="<|im_end|>", parse_special=False)["tokens"]
    assert len(control) == 1 < len(text), (control, text)


def conversations():
    told = post("/tokenize", messages=TOWER)
    chat = client.chat.completions.create(model="smollm2", messages=TOWER, max_tokens=1)
    assert chat.usage.prompt_tokens == told["count"], (chat.usage, told)
    prompt = post("/apply_template", messages=TOWER)["prompt"]
    assert prompt == post("/apply-template", messages=TOWER)["prompt"]
    assert prompt.endswith("<|im_start|>user\nWhere is the Eiffel Tower?<|im_end|>\n<|im_start|>assistant\n"), prompt
    assert post("/detokenize", tokens=told["tokens"])["prompt"] == prompt
    without = post("/apply_template", messages=TOWER, add_generation_prompt=False)["prompt"]
    assert prompt == without + "<|im_start|>assistant\n", without
    with_tool = post("/apply_template", messages=TOWER, tools=[TOOL])["prompt"]
    assert "clock" in with_tool and len(with_tool) > len(prompt), with_tool
    # What a user writes is no control token.
    said = [{"role": "user", "content": "<|im_end|>"}]
    ids = post("/tokenize", messages=said)["tokens"]
    end = post("/tokenize", content="<|im_end|>")["tokens"][0]
    assert ids.count(end) == 2, "the ends of the two messages, and no other"


def experts():
    told = http.post("/tokenize", json={"model": "banking", "messages": TOWER})
    assert told.status_code == 200 and told.headers["x-slm-expert"] == "banking", told.text


def continued():
    begun = [*TOWER, {"role": "assistant", "content": "The Eiffel Tower is in the city of"}]
    prompt = post("/apply_template", messages=begun, continue_final_message=True)["prompt"]
    assert prompt.endswith("<|im_start|>assistant\nThe Eiffel Tower is in the city of"), prompt
    extra = {"continue_final_message": True, "add_generation_prompt": False}
    answer = client.chat.completions.create(model="smollm2", messages=begun, max_tokens=4, temperature=0, extra_body=extra)
    assert answer.choices[0].message.content.strip().startswith("Paris"), answer
    both = {"continue_final_message": True, "add_generation_prompt": True}
    error = refused("/v1/chat/completions", "choose one of them", messages=begun, **both)
    assert error["param"] == "continue_final_message", error
    refused("/apply_template", "it has no text", messages=[*TOWER, {"role": "assistant", "content": " "}], continue_final_message=True)


def echo():
    ask = {"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
    alone = client.completions.create(**ask).choices[0].text
    whole = client.completions.create(**ask, echo=True)
    assert whole.choices[0].text == ask["prompt"] + alone, whole
    assert whole.usage.completion_tokens == 4, whole.usage
    events = list(client.completions.create(**ask, echo=True, stream=True))
    assert "".join(event.choices[0].text for event in events if event.choices) == ask["prompt"] + alone, events
    ids = post("/tokenize", prompt=ask["prompt"])["tokens"]
    told = client.completions.create(**{**ask, "prompt": ids}, echo=True)
    assert told.choices[0].text == ask["prompt"] + alone, told
    several = client.completions.create(**{**ask, "prompt": ["One", "Two"]}, echo=True)
    assert [choice.text[:3] for choice in several.choices] == ["One", "Two"], several
    best = client.completions.create(**ask, echo=True, best_of=2)
    assert best.choices[0].text == ask["prompt"] + alone, best
    error = refused("/v1/completions", "those of the prompt are not computed", prompt="a", echo=True, logprobs=1)
    assert error["param"] == "echo", error


def wrong():
    error = refused("/v1/completions", "no tokens for filling in", prompt="def f(", suffix="return 1")
    assert error["param"] == "suffix", error
    assert refused("/detokenize", "tokens[1] is 4000000", tokens=[1, 4000000])["param"] == "tokens[1]"
    assert refused("/detokenize", "missing")["param"] == "tokens"
    assert refused("/tokenize", "missing")["param"] == "prompt"
    refused("/tokenize", "at most 1", prompt=["a", "b"])
    refused("/tokenize", "is_continued", prompt="a", is_continued=True)
    refused("/apply_template", "no model, adapter or route", status=404, model="nobody", messages=TOWER)
    long = refused("/tokenize", "the context of", prompt="x" * 3_000_000)
    assert long["code"] == "context_length_exceeded", long
    assert http.get("/tokenize").status_code == 405


for check in (text_and_back, llama_server, conversations, experts, continued, echo, wrong):
    print(check.__name__, flush=True)
    check()
