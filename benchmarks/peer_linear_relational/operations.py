"""How many operations a Jacobian needs at least, and how many a second this machine does."""

import time
from typing import Any

import torch

import lrc_tl as lrc


def matrix_product_gflops() -> float:
    """The machine's float32 matrix products of the sizes in question, the best of five."""
    generator = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(512, 2048, generator=generator), torch.randn(2048, 640, generator=generator)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(20):
            rows @ weight
        best = min(best, time.perf_counter() - started)
    return 20 * 2 * 512 * 2048 * 640 / best / 1e9


def minimum_gflop(model: Any, tokens: lrc.relations.TokenizedPrompt, subject: int, object_: int) -> float:
    """Products that the reverse pass from one layer to another needs at least, for all d_model rows.

    An MLP takes the lesser of two ways: its weights for every row, or its Jacobian at each position, made once,
    and one product with that for every row. In the topmost layer only the object positions take part but for keys
    and values, in the lowest only the subject gives keys, values and a query; the attention over the positions
    itself is not counted.
    """
    cfg = model.cfg
    groups = cfg.n_key_value_heads or cfg.n_heads
    query = output = cfg.d_model * cfg.n_heads * cfg.d_head
    keys_values = 2 * cfg.d_model * groups * cfg.d_head
    weights = (3 if cfg.gated_mlp else 2) * cfg.d_model * cfg.d_mlp
    mlp = min(weights, cfg.d_model * cfg.d_mlp + cfg.d_model**2)
    n_after = tokens.object_positions[-1] - tokens.subject_position + 1
    n_objects = len(tokens.object_positions)
    below = (object_ - subject - 1) * n_after * (query + output + keys_values + mlp)
    top = n_objects * (query + output + mlp) + n_after * keys_values
    spared = (n_after - 1) * (query + keys_values)  # in the lowest layer, other positions than the subject's
    return 2 * cfg.d_model * (below + top - spared) / 1e9
