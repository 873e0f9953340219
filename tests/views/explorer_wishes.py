"""Wishes of the explorer's tests, on tiny models."""

import lrc_tl as lrc

TEXT = "w5 w7 w20"
OBJECTS = ("w30", "w31 w32", "w33")
WISH = {
    "number": 2, "text": TEXT, "subject": "w7", "remove": "w30", "add": "w31 w32", "place": "subject",
    "layers": "all", "first_layer": 0, "last_layer": 1, "strength": 0.5, "n_tokens": 4, "view": "edit",
}  # fmt: skip


def concepts_of(model, *, layer=1):
    """Mean directions of three objects, one of two tokens."""
    prompts = [
        lrc.Prompt(text=f"w{n} w20", subject=f"w{n}", object=OBJECTS[n % 3], relation="said") for n in range(12)
    ]
    return lrc.mean_concepts(model, prompts, layer=layer)
