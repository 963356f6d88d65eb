#!/usr/bin/env python3
"""Measure base and expert of the tools example over the held-out requests, with a swarm that runs.

  slm up -f examples/tools &
  python measure.py

Each request is sent greedily with tools.json. `required` makes both call, under the same grammar; with `auto` the model decides, and
there are requests that none of the functions can do, too. Right arguments are equal as JSON, all of them and no others.
Needs the package `openai`.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai

import data

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="the swarm (default: %(default)s)")
    parser.add_argument("--figures", type=Path, default=HERE / "figures.json", help="figures, of which `measured` is replaced")
    parser.add_argument("--answers", type=Path, help="where every answer goes, as JSON")
    parser.add_argument("--models", nargs="+", default=["smollm2", "functions"], help="base and expert (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="requests at a time (default: %(default)s)")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=args.url, api_key="none", timeout=600)
    calls = data.calls(1)
    talk = [data.Asked(prompt, None, {}) for prompt in data.HELD_TALK]

    def ask(model: str, choice: str, asked: data.Asked) -> dict[str, Any]:
        message = {"role": "user", "content": asked.prompt}
        answer = client.chat.completions.create(
            model=model, messages=[message], tools=data.TOOLS, tool_choice=choice, parallel_tool_calls=False, temperature=0, max_tokens=96
        ).choices[0]  # fmt: skip
        got = answer.message.tool_calls[0].function if answer.message.tool_calls else None
        try:
            arguments = json.loads(got.arguments) if got else None
        except json.JSONDecodeError:  # cut at max_tokens
            arguments = None
        return {
            "prompt": asked.prompt, "wanted": [asked.name, asked.arguments], "name": got and got.name, "arguments": arguments,
            "text": answer.message.content, "reason": answer.finish_reason,
        }  # fmt: skip

    measured: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    for model in args.models:
        for choice, asks in (("required", calls), ("auto", calls), ("auto, no function fits", talk)):
            with ThreadPoolExecutor(args.clients) as pool:
                got = list(pool.map(lambda asked: ask(model, choice.split(",")[0], asked), asks))
            answers[f"{model}, {choice}"] = got
            result = {"requests": len(got), "called": sum(one["name"] is not None for one in got)}
            if asks is calls:
                result["function"] = sum(one["name"] == one["wanted"][0] for one in got)
                result["arguments"] = sum([one["name"], one["arguments"]] == one["wanted"] for one in got)
            measured.setdefault(model, {})[choice] = result
            print(model, choice, result, flush=True)
    figures = json.loads(args.figures.read_text(encoding="utf-8")) if args.figures.exists() else {}
    figures["measured"] = {**figures.get("measured", {}), **measured}
    args.figures.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if args.answers:
        args.answers.write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
