"""What a fit is measured against: plain autograd, TransformerLens's Jacobian lens, and matrix products."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import lrc_tl as lrc


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], Any], device: str, *, repeats: int = 3) -> float:
    """The least of `repeats` runs after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        synchronize(device)
        started = time.perf_counter()
        run()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def matrix_product_tflops(device: str, dtype: torch.dtype, *, size: int) -> float:
    """The measured rate of `size` x `size` products in this dtype, 10^12 operations a second."""
    generator = torch.Generator(device=device).manual_seed(0)
    left, right = torch.randn(2, size, size, generator=generator, device=device).to(dtype)
    n_products = 10

    def products() -> None:
        for _ in range(n_products):
            left @ right

    return n_products * 2 * size**3 / seconds(products, device) / 1e12


def fit_tflop(
    shape: Any, prompts: Sequence[lrc.Prompt], model: Any, subject: int, objects: Sequence[int]
) -> float:
    """Operations of the products with weights that a mean Jacobian to each object layer takes, over all prompts.

    Forward: every token through the layers up to the last object layer. Reverse: d_model rows, each through the
    tokens from the subject on, in the layers between. In an object layer only the object's tokens need what lies
    behind the keys and values. Attention over positions is not counted.
    """
    width, heads = shape.d_model, shape.d_model
    attention, mlp = 4 * width * heads, 3 * width * shape.d_mlp
    total = 0.0
    for prompt in prompts:
        tokens = lrc.relations.tokenize_prompt(model, prompt)
        n_all, n_after = len(tokens.input_ids), len(tokens.input_ids) - tokens.subject_position
        n_read = len(tokens.object_positions)
        total += 2 * n_all * (max(objects) + 1) * (attention + mlp)
        for object_layer in objects:
            whole = (object_layer - subject - 1) * n_after * (attention + mlp)
            top = n_after * attention / 2 + n_read * (attention / 2 + mlp)
            total += 2 * width * (whole + top)
    return total / 1e12


def hidden_state_function(
    model: Any, tokens: lrc.relations.TokenizedPrompt, subject_layer: int, object_layer: int
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """`F(s)`: the mean hidden state at the object, and `s`; by hooks on the plain Hugging Face model."""
    blocks = model.original_model.model.layers
    ids = torch.tensor([tokens.input_ids], device=model.cfg.device)
    seen: dict[str, Tensor] = {}

    @contextlib.contextmanager
    def hooked(layer: int, function: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        def hook(module: Any, inputs: Any, output: Any) -> Any:
            residual = output[0] if isinstance(output, tuple) else output
            changed = function(residual)
            if changed is None:
                return None
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = blocks[layer].register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def read(name: str) -> Callable[[Tensor], None]:
        def keep(residual: Tensor) -> None:
            seen[name] = residual

        return keep

    def function(subject: Tensor) -> Tensor:
        def replaced(residual: Tensor) -> Tensor:
            changed = residual.clone()
            changed[0, tokens.subject_position] = subject
            return changed

        with hooked(subject_layer, replaced), hooked(object_layer, read("object")):
            model.original_model(ids, use_cache=False)
        return seen["object"][0, list(tokens.object_positions)].mean(0)

    with torch.no_grad(), hooked(subject_layer, read("subject")):
        model.original_model(ids, use_cache=False)
    return function, seen["subject"][0, tokens.subject_position].clone()


def plain_jacobian(
    model: Any,
    tokens: lrc.relations.TokenizedPrompt,
    subject_layer: int,
    object_layer: int,
    *,
    n_rows: int,
    vectorize: bool,
) -> Tensor:
    """The first rows of d F / d s by `torch.autograd.functional.jacobian`, row by row or (vectorize) by vmap."""
    function, subject = hidden_state_function(model, tokens, subject_layer, object_layer)
    jacobian: Tensor = torch.autograd.functional.jacobian(
        lambda given: function(given)[:n_rows], subject, vectorize=vectorize
    )
    return jacobian


def lens_matrix(model: Any, texts: Sequence[str], layer: int, *, skip: int, dim_batch: int) -> tuple[Tensor, int]:
    """`JacobianLens.fit` of one layer to the last on these texts, and how many of them it took."""
    from transformer_lens.tools.analysis import JacobianLens

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lens = JacobianLens.fit(
            model, list(texts), corpus="made up", source_layers=[layer], dim_batch=dim_batch, max_seq_len=256,
            skip_first_positions=skip, show_progress=False,
        )  # fmt: skip
    return lens.jacobians[layer], lens.n_prompts
