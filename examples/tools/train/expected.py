#!/usr/bin/env python3
"""Write ../expected.json: held-out requests that the expert answers rightly, with the number of tokens of their prompts.

The numbers are those of transformers' chat template and tokenizer. A test compares them with the worker's, which shows that the
expert was trained on what it is shown. `--answers` is a file of measure.py.

  python expected.py --answers answers.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from transformers import AutoTokenizer

import data
from train_tools import BASE, HERE, asked_ids, result_ids

KINDS = ["set_light", "set_heating", "set_timer", "send_message", "book_room", "add_to_list"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=BASE, help="Hub id or folder of the base model (default: %(default)s)")
    parser.add_argument("--gguf-file", help="GGUF file inside --base")
    parser.add_argument("--answers", type=Path, required=True, help="what measure.py wrote")
    parser.add_argument("--out", type=Path, default=HERE.parent / "expected.json")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.base, **({"gguf_file": args.gguf_file} if args.gguf_file else {}))
    answers = json.loads(args.answers.read_text(encoding="utf-8"))
    right = [one for one in answers["functions, auto"] if [one["name"], one["arguments"]] == one["wanted"]]
    quiet = [one["prompt"] for one in answers["functions, auto, no function fits"] if one["name"] is None]
    asked = {one.prompt: one for one in data.calls(1)}
    calls = [asked[one["prompt"]] for kind in KINDS for one in [one for one in right if one["name"] == kind][:2]]
    expected = {
        "calls": [
            {
                "prompt": one.prompt, "name": one.name, "arguments": one.arguments, "prompt_tokens": len(asked_ids(tokenizer, one.prompt)),
                "prompt_tokens_with_result": len(result_ids(tokenizer, one)),
            }
            for one in calls
        ],
        "words": [{"prompt": prompt, "prompt_tokens": len(asked_ids(tokenizer, prompt))} for prompt in quiet[:3]],
    }  # fmt: skip
    args.out.write_text(json.dumps(expected, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
