"""Steering by scores of the clean run, the slow way: one row alone, the whole sequence each time, all by hand."""

import torch

BOS = 1


class ByHand:
    """One steering: `does` at `layers`, reading with `scale v.h - offset` and writing along `write`.

    `chosen(place, n_prompt, token)` says which tokens are steered, all but the beginning of sequence if not given;
    `factor(step)` says how strongly, the prompt being step 0, and `fires(place)` whether a gate is open.
    """

    def __init__(
        self, does, layers, read, *, write=None, scale=1.0, offset=0.0, chosen=None, factor=None, fires=None
    ):
        self.does, self.layers, self.read = does, sorted(layers), read
        self.write = read if write is None else write
        self.scale, self.offset = scale, offset
        self.chosen = chosen or (lambda place, n_prompt, token: token != BOS)
        self.factor = factor or (lambda step: 1.0)
        self.fires = fires or (lambda place: True)

    def score(self, residual):
        return self.scale * (residual @ self.read.to(residual)) - self.offset

    def edited(self, residual, clean):
        score = self.score(residual)
        change = {"reflect": -clean - score, "clamp": clean - score, "ablate": -clean}[self.does]
        write = self.write.to(residual)
        return change / (self.scale * float(self.read.to(write) @ write)) * write


def hook_name(layer):
    return f"blocks.{layer}.hook_resid_post"


def clean_residuals(model, ids):
    """By layer, what a pass without hooks has."""
    kept = {}
    names = [hook_name(layer) for layer in range(model.cfg.n_layers)]
    hooks = [(name, lambda residual, hook, name=name: kept.update({name: residual[0].clone()})) for name in names]
    with model.hooks(fwd_hooks=hooks):
        model(torch.tensor([ids]))
    return [kept[name] for name in names]


def logits_by_hand(model, ids, n_prompt, steerings, *, others=()):
    """Logits of one pass over `ids`; `others` are hooks that act before the steerings, on their own layers."""
    clean = clean_residuals(model, ids[:n_prompt])
    first = {}

    def hook_on(layer):
        def edit(residual, hook):
            residual = residual.clone()
            for number, steering in enumerate(steerings):
                if layer not in steering.layers:
                    continue
                for place in range(residual.shape[1]):
                    here = residual[0, place].clone()
                    if layer == steering.layers[0]:
                        first[number, place] = steering.score(here)
                    in_prompt = place < n_prompt
                    score = steering.score(clean[layer][place]) if in_prompt else first[number, place]
                    if steering.chosen(place, n_prompt, ids[place]) and steering.fires(place):
                        factor = steering.factor(max(0, place - n_prompt + 1))
                        residual[0, place] = here + factor * steering.edited(here, score)
            return residual

        return edit

    layers = sorted({layer for steering in steerings for layer in steering.layers})
    hooks = [*others, *((hook_name(layer), hook_on(layer)) for layer in layers)]
    with model.hooks(fwd_hooks=hooks):
        return model(torch.tensor([ids]))[0]


def generated_by_hand(model, start, steerings, *, n_new, others=()):
    """Greedy tokens, and the logits that each came from."""
    ids, n_prompt, kept = list(start), len(start), []
    for _ in range(n_new):
        kept.append(logits_by_hand(model, ids, n_prompt, steerings, others=others)[-1])
        ids.append(int(kept[-1].argmax()))
    return ids[n_prompt:], torch.stack(kept)
