#!/usr/bin/env python3
"""Train the LoRA expert of the tools example: it calls the six functions of tools.json, and answers in words otherwise.

SmolLM2's chat template knows no tools. The worker then describes them in the system message and reads calls as JSON
(docs/decisions/0022); `instructions` is the same text, so that the expert is trained on what it will be shown. The test
`tools_example` compares the prompts' tokens with those of the worker.

  python train_tools.py

Base, training loop and the way of saving are the quickstart's (../../quickstart/train/train.py). The system message is most of a
prompt and the same in all: it runs once a batch, and no gradient flows through it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "quickstart/train"))

import torch  # noqa: E402

import data  # noqa: E402
from train import BASE, END, answer, fit, load_base, prompt_ids, save  # noqa: E402


def instructions() -> str:
    """What the worker tells a model whose template knows no tools."""
    lines = [
        "You can call functions. To call one, answer with a JSON object and nothing else:",
        '{"name": "name of the function", "arguments": {"name of an argument": "its value"}}',
        "To call several, write one such object on each line. If no function helps, answer in words.",
        "These are the functions, with JSON Schemas of their arguments:",
    ]
    compact = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "\n".join(lines + [compact(tool["function"]) for tool in data.TOOLS])


def asked_ids(tokenizer: Any, prompt: str) -> list[int]:
    """A request as the worker renders it."""
    return prompt_ids(tokenizer, prompt, [{"role": "system", "content": instructions()}])


def result_ids(tokenizer: Any, asked: data.Asked) -> list[int]:
    """A request, its call and the result, up to where the assistant begins."""
    messages = [("system", instructions()), ("user", asked.prompt), ("assistant", asked.answer()), ("tool", "done")]
    rendered = [{"role": role, "content": content} for role, content in messages]
    text = tokenizer.apply_chat_template(rendered, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def training_rows(tokenizer: Any, results: int, rng: random.Random) -> list[tuple[list[int], int]]:
    """Pairs of ids and where the answer starts: calls, words, and words after a call."""
    end = tokenizer.convert_tokens_to_ids(END)
    calls = data.calls(0)
    talk = [data.Asked(prompt, None, {}, words) for prompt, words in data.TALK]
    pairs = [(asked_ids(tokenizer, asked.prompt), asked.answer()) for asked in [*calls, *talk]]
    pairs += [(result_ids(tokenizer, asked), data.told(asked)) for asked in rng.sample(calls, results)]
    told = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"] + [end]
    return [(ids + told(text), len(ids)) for ids, text in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=BASE, help="Hub id or folder of the base model (default: %(default)s)")
    parser.add_argument("--gguf-file", help="GGUF file inside --base")
    parser.add_argument("--out", type=Path, default=HERE.parent / "adapters/functions", help="where the adapter goes")
    parser.add_argument("--figures", type=Path, default=HERE / "figures.json", help="figures, of which `training` is replaced")
    parser.add_argument("--results", type=int, default=20, help="rows with a call and its result (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sample", type=int, default=20, help="held-out requests answered at the end, as a first look (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    base, tokenizer = load_base(args.base, args.gguf_file)
    rng = random.Random(args.seed)
    rows = training_rows(tokenizer, args.results, rng)
    print(f"{len(rows)} rows, {max(len(ids) for ids, _ in rows)} tokens at most", flush=True)
    model, training = fit(base, rows, rng, args, through_prefix=False)
    figures = json.loads(args.figures.read_text(encoding="utf-8")) if args.figures.exists() else {}
    figures["training"] = {"rows": len(rows), **training, "adapter_bytes": save(model, args.out)}
    args.figures.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    looked = rng.sample(data.calls(1), args.sample)
    said = answer(model, tokenizer, [asked_ids(tokenizer, asked.prompt) for asked in looked], limit=80)
    right = 0
    for asked, got in zip(looked, said):
        right += got.text == asked.answer()
        if got.text != asked.answer():
            print(f"{asked.prompt!r}: {got.text!r}, not {asked.answer()!r}")
    print(f"{right} of {len(looked)} exact")


if __name__ == "__main__":
    main()
