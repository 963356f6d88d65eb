#!/usr/bin/env python3
"""Write CLINC150's texts as `slm route train` and `slm route eval` read them: JSON lines of text, label and expert.

A text that is out of scope has no label. The folder given with --data is the `data` folder of `clinc/oos-eval`. With --mistyped, that
share of the texts with a label comes once more, with typing errors in about 5 % of the letters.

  python texts.py --data oos-eval/data --split train --mistyped 0.5 > train.jsonl
  slm route train assistant --data train.jsonl -f ..
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from names import DOMAINS
from typing_errors import mistyped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder of clinc/oos-eval")
    parser.add_argument("--split", choices=["train", "val"], default="train")
    parser.add_argument("--mistyped", type=float, default=0.0, help="share of texts that come again with typing errors (default: %(default)s)")
    args = parser.parse_args()
    read = lambda name: json.loads((args.data / name).read_text(encoding="utf-8"))
    whole = read("data_full.json") if (args.data / "data_full.json").exists() else {}
    pairs = (whole.get(args.split) or read(f"{args.split}.json")) + whole.get(f"oos_{args.split}", [])
    domains = read("domains.json")
    expert = {intent: name for name, domain in DOMAINS.items() for intent in domains[domain]}
    rng = random.Random(3)
    for text, label in pairs:
        scope = {"label": None} if label == "oos" else {"label": label, "expert": expert[label]}
        print(json.dumps({"text": text, **scope}))
        if label != "oos" and args.mistyped and rng.random() < args.mistyped:
            print(json.dumps({"text": mistyped(text, 0.05, rng), **scope}))


if __name__ == "__main__":
    main()
