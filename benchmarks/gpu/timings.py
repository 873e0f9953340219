"""Seconds of fits, their peers and steering on one model."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

import lrc_tl as lrc

from .comparisons import Layers, relative_error
from .models import Shape, made_up_prompts
from .peers import (
    fit_tflop,
    lens_matrix,
    matrix_product_tflops,
    plain_jacobian,
    seconds,
)

PLAIN_ROWS = 32
"""Rows that the row-by-row Jacobian is timed on; all others take as long."""
NEW_TOKENS = 32


def timings(
    model: Any, shape: Shape, *, device: str, dtype: torch.dtype, n_prompts: int
) -> Iterator[dict[str, Any]]:
    """One row for each operation, as they are measured; what fails says so in its row."""
    layers = Layers.of(shape.n_layers)
    rate = matrix_product_tflops(device, dtype, size=min(8192, 4 * shape.d_model))
    yield {"operation": "matrix products", "tflop_per_second": rate}
    prompts = made_up_prompts(64)
    few = prompts[:n_prompts]
    quiet: dict[str, Any] = {"progress": False}
    pair: dict[str, Any] = {"subject_layer": layers.subject, "object_layer": layers.object}
    last = shape.n_layers - 1

    def measured(name: str, run: Callable[[], Any], *, per: int, tflop: float | None = None) -> dict[str, Any]:
        return _measured(name, run, device, per=per, tflop=tflop, rate=rate)

    yield measured(
        "exact fit, one pair",
        lambda: lrc.LinearRelationalEmbedding.fit(model, few, **pair, **quiet),
        per=n_prompts,
        tflop=fit_tflop(shape, few, model, layers.subject, [layers.object]),
    )
    tokens = lrc.relations.tokenize_prompt(model, few[0])
    n_rows = min(PLAIN_ROWS, shape.d_model)
    for vectorize in (False, True):
        row = measured(
            f"plain autograd, {'vmap over rows' if vectorize else 'row by row'}, {n_rows} rows",
            lambda vectorize=vectorize: plain_jacobian(
                model, tokens, layers.subject, layers.object, n_rows=n_rows, vectorize=vectorize
            ),
            per=1,
        )
        if "seconds" in row:
            row["seconds_all_rows"] = row["seconds"] * shape.d_model / n_rows
        yield row
    yield measured(
        "exact fit, one layer to the last",
        lambda: lrc.LinearRelationalEmbedding.fit(
            model, few, subject_layer=layers.subject, object_layer=last, **quiet
        ),
        per=n_prompts,
        tflop=fit_tflop(shape, few, model, layers.subject, [last]),
    )
    yield measured(
        "JacobianLens.fit, that layer to the last, all positions",
        lambda: lens_matrix(model, [few[0].text], layers.subject, skip=4, dim_batch=64),
        per=1,
    )
    yield _same_matrix(model, layers.subject, few[0])
    subjects = [layers.subject - 1, layers.subject]
    yield measured(
        "grid, two subject layers by two object layers",
        lambda: lrc.fit_layer_grid(
            model, few, subject_layers=subjects, object_layers=[layers.object, last], **quiet
        ),
        per=n_prompts,
        tflop=fit_tflop(shape, few, model, subjects[0], [layers.object, last]),
    )
    rank = max(8, 3 * shape.d_model // 64)
    yield measured(
        f"low-rank fit, rank {rank}",
        lambda: lrc.LinearRelationalEmbedding.fit(model, few, **pair, solver=lrc.LowRank(rank=rank), **quiet),
        per=n_prompts,
    )
    yield measured(
        "subject statistics, a quarter of the depth",
        lambda: lrc.SubjectStatistics.fit(model, layers=[layers.subject], background=prompts, **quiet),
        per=len(prompts),
    )
    yield from _steering(model, prompts, layers, measured)


def profile_of_a_fit(model: Any, n_prompts: int) -> str:
    """A table of the operations that take most time on the device in one exact fit."""
    layers = Layers.of(int(model.cfg.n_layers))
    on_gpu = torch.cuda.is_available() and torch.device(model.cfg.device).type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        pair: dict[str, Any] = {"subject_layer": layers.subject, "object_layer": layers.object}
        lrc.LinearRelationalEmbedding.fit(model, made_up_prompts(n_prompts), **pair, progress=False)
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    return str(profiler.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60))


def _steering(
    model: Any, prompts: list[lrc.Prompt], layers: Layers, measured: Callable[..., dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    concepts = lrc.mean_concepts(model, prompts, layer=layers.subject)
    steering = concepts[prompts[0].object].add(strength=0.05).at(layers=range(layers.subject, layers.object + 1))
    texts = [prompt.text for prompt in prompts[:16]]
    ids = model.to_tokens(texts[0])

    def plain() -> Any:
        return model.generate(
            ids, max_new_tokens=NEW_TOKENS, do_sample=False, verbose=False, stop_at_eos=False, return_type="tokens"
        )

    def steered() -> Any:
        with steering.on(model):
            return plain()

    yield measured(f"generation, {NEW_TOKENS} tokens", plain, per=NEW_TOKENS)
    yield measured(f"steered generation, {NEW_TOKENS} tokens", steered, per=NEW_TOKENS)
    yield measured(
        "lrc.generate, 16 texts of 8 new tokens",
        lambda: lrc.generate(model, texts, steering=steering, max_new_tokens=8),
        per=16 * 8,
    )
    yield measured(
        "evaluate, 32 facts at one beta",
        lambda: lrc.evaluate(model, concepts, prompts[:32], beta=0.1, edits_per_object=2, progress=False),
        per=32,
    )


def _measured(
    name: str, run: Callable[[], Any], device: str, *, per: int, tflop: float | None, rate: float
) -> dict[str, Any]:
    """Seconds of each of `per` parts, and with `tflop` (of all parts) the share of the device's `rate`."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    try:
        whole = seconds(run, device, repeats=2)
    except Exception as error:  # the others are worth having
        return {"operation": name, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    row: dict[str, Any] = {"operation": name, "seconds": whole / per}
    if tflop is not None:
        row |= {"tflop": tflop / per, "share_of_rate": tflop / whole / rate}
    if on_gpu:
        row["peak_gigabytes_beyond_model"] = (torch.cuda.max_memory_allocated(device) - before) / 1e9
    return row


def _same_matrix(model: Any, layer: int, prompt: lrc.Prompt) -> dict[str, Any]:
    """How far our Jacobian and the lens's lie apart where both are of one position, a subject at the end."""
    name = "our Jacobian and JacobianLens's, one position"
    try:
        end = prompt.text.index(prompt.subject) + len(prompt.subject)
        text, following = prompt.text[:end], prompt.text[end:].split()[0]
        own = lrc.Prompt(text=text, subject=prompt.subject, object=following, relation="made up")
        tokens = lrc.relations.tokenize_prompt(model, own)
        ours = lrc.lre.subject_object_jacobian(model, tokens, subject_layer=layer, object_layer=-1)
        skip = len(tokens.text_ids) - 1  # the lens leaves out the last position, so `following` stands behind
        lens, _ = lens_matrix(model, [f"{text} {following}"], layer, skip=skip, dim_batch=64)
    except Exception as error:
        return {"operation": name, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {"operation": name, "relative_error": relative_error(ours.jacobian, lens)}
