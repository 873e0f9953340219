"""Edits and steerings of tiny models for the choice of a strength."""

from tiny_steering import HOOK, unit

import lrc_tl as lrc

NO_LIMITS = lrc.Limits(kl=None, perplexity_ratio=None, repetition=None)
NEUTRAL = ("w30 w3 w17 w8 w21 w9 w40 w2", "w5 w6 w38 w11 w4 w25 w1")


def adding(seed=0, strength=0.0, **place):
    return lrc.Steering(operation=lrc.steering.Add(vector=unit(seed), strength=strength), hook_name=HOOK, **place)


def edit(number=0, target="w7"):
    text = f"w{number + 10} w3 w41"
    return lrc.evaluation.Edit(prompt=lrc.Prompt(text=text, subject=f"w{number + 10}", object="w5"), target=target)


def calibrate(model, success, *, edits=None, **options):
    options = {"limits": NO_LIMITS, "neutral_texts": NEUTRAL, **options}
    return lrc.calibrate_strength(model, adding(), edits or [edit()], success=success, **options)
