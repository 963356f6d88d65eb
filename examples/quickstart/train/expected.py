#!/usr/bin/env python3
"""Answer the utterances of prompts.json with each adapter; write expected.json.

The utterances were written for this example; none comes from the data set. An
utterance is kept when the expert is right both on the float32 base and on a
copy of it rounded to signed 4-bit integers (symmetric, blocks of 32 inputs,
embeddings untouched). Each entry records the answer's mean token probability
under both: end-to-end checks on a quantised base can rely on the kept ones.

  python expected.py --base HuggingFaceTB/SmolLM2-135M-Instruct
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from names import DOMAINS
from train import BASE, HERE, answer, load_base, prompt_ids


def round_to_int4(weight: torch.Tensor, block: int = 32) -> torch.Tensor:
    """Round to nearest, symmetric, one scale a block of inputs."""
    grouped = weight.reshape(weight.shape[0], -1, block)
    scale = grouped.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 7
    return ((grouped / scale).round().clamp(-8, 7) * scale).reshape(weight.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=BASE, help="Hub id or folder of the base model (default: %(default)s)")
    parser.add_argument("--gguf-file", help="GGUF file inside --base")
    parser.add_argument("--adapters", type=Path, default=HERE.parent / "adapters")
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts.json")
    parser.add_argument("--out", type=Path, default=HERE.parent / "expected.json")
    parser.add_argument("--only", choices=list(DOMAINS), nargs="+", help="experts (default: those that have prompts)")
    parser.add_argument("--keep", type=int, default=12, help="of each adapter, the surest under 4 bits (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    prompts: dict[str, list[tuple[str, str]]] = json.loads(args.prompts.read_text(encoding="utf-8"))
    args.only = args.only or list(prompts)
    base, tokenizer = load_base(args.base, args.gguf_file)
    answers = {}
    for precision in ("f32", "int4"):
        if precision == "int4":
            for module in base.model.layers.modules():
                if isinstance(module, torch.nn.Linear):
                    module.weight.data = round_to_int4(module.weight.data)
        for name in args.only:
            model = PeftModel.from_pretrained(base, args.adapters / name).eval()
            asked = [prompt_ids(tokenizer, utterance) for utterance, _ in prompts[name]]
            answers[name, precision] = answer(model, tokenizer, asked, limit=16)
            base = model.unload()

    kept: dict[str, list[dict[str, Any]]] = {}
    for name in args.only:
        rows = zip(prompts[name], answers[name, "f32"], answers[name, "int4"])
        kept[name] = []
        for (utterance, label), full, rounded in rows:
            if full.text == rounded.text == label:
                kept[name].append({
                    "prompt": utterance,
                    "answer": full.text,
                    "mean_token_probability": round(full.mean_probability, 4),
                    "mean_token_probability_int4": round(rounded.mean_probability, 4),
                })  # fmt: skip
            else:
                print(f"{name}: dropped {utterance!r}: {full.text!r}, int4 {rounded.text!r}, not {label!r}")
        floor = sorted((e["mean_token_probability_int4"] for e in kept[name]), reverse=True)[: args.keep]
        kept[name] = [e for e in kept[name] if e["mean_token_probability_int4"] >= floor[-1]] if floor else []
        print(f"{name}: kept {len(kept[name])} of {len(prompts[name])}")
    args.out.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
