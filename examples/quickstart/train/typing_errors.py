"""Typing errors, such as those of somebody in a hurry."""

from __future__ import annotations

import random

KEYS = "abcdefghijklmnopqrstuvwxyz"


def mistyped(text: str, share: float, rng: random.Random) -> str:
    """`text` with about `share` of its letters left out, doubled, exchanged with the next or replaced."""
    letters = list(text)
    at = 0
    while at < len(letters):
        if letters[at].isalpha() and rng.random() < share:
            kind = rng.choice(["drop", "double", "swap", "replace"])
            if kind == "drop":
                letters[at] = ""
            elif kind == "double":
                letters[at] *= 2
            elif kind == "swap" and at + 1 < len(letters):
                letters[at], letters[at + 1] = letters[at + 1], letters[at]
                at += 1
            else:
                letters[at] = rng.choice(KEYS)
        at += 1
    return "".join(letters)
