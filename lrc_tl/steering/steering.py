"""What a direction does to a residual stream, where, when and how strongly.

`Steering` says at which hook points, positions and steps an operation acts; `steer` puts steerings on a model.
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.markup.brief import brief_fields
from lrc_tl.models.fingerprint import ModelFingerprint, fingerprints_once
from lrc_tl.models.hooked_model import HookedModel, block_hook, hook_layer, layer_and_point, require_hook
from lrc_tl.models.hooking import Block, Session
from lrc_tl.numerics.precision import unit_of, wide_of
from lrc_tl.passes.chunk import Chunk
from lrc_tl.passes.tracking import track_positions
from lrc_tl.steering.along_vector import check_vector
from lrc_tl.steering.clean_scores import CleanScores, run_clean_passes
from lrc_tl.steering.operations import (
    FromClean,
    Operation,
    rescaled,
)
from lrc_tl.steering.places import Where, select

Hook: TypeAlias = Callable[..., Tensor]


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How strongly an operation acts over generation: the prompt is step 0, the k-th generated token step k.

    `"linear_decay"` goes from 1 in the prompt to 0 at step `steps`; `"warm_up"` from 0 in the prompt to 1 at step
    `steps`; `"first"` is 1 up to step `steps`, then 0.

    >>> Schedule(kind="linear_decay", steps=4).factor(torch.arange(6))
    tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000, 0.0000])

    Raises:
        ValueError: `steps` is below 1.
    """

    kind: Literal["linear_decay", "warm_up", "first"]
    steps: int

    def __post_init__(self) -> None:
        if self.kind not in ("linear_decay", "warm_up", "first") or not self.steps >= 1:
            raise ValueError(
                f"schedule {self.kind!r} over {self.steps} steps; allowed are 'linear_decay', 'warm_up' and "
                "'first' over 1 step or more"
            )

    def factor(self, step: Tensor) -> Tensor:
        """Factor of what is added, for each step, from 0 to 1."""
        share = step.to(torch.float32) / self.steps
        if self.kind == "first":
            return (share <= 1).float()
        return (1 - share if self.kind == "linear_decay" else share).clamp(0, 1)


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Gate:
    """Steer only where a probe fires: `v.h > threshold`, or `<` with `above=False`.

    The score is read at the same position, before the operation acts, at `hook_name`: in the operation's layer or
    an earlier one.

    Raises:
        ValueError: `threshold` is not finite, or `vector` is not a unit vector.
    """

    vector: Float[Tensor, " d_model"]
    hook_name: str
    threshold: float
    above: bool = True

    __repr__ = brief_fields

    def __post_init__(self) -> None:
        check_vector(self.vector, "the gate's vector")
        if not math.isfinite(self.threshold):
            raise ValueError(f"the gate's threshold is {self.threshold}; it must be a finite number")

    def fires(self, h: Tensor) -> Tensor:
        """Bool for residuals of shape `batch pos d_model`, shape `batch pos`."""
        wide = wide_of(h)
        score = wide @ unit_of(self.vector, wide)
        return score > self.threshold if self.above else score < self.threshold


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Steering:
    """One operation with its hook point, positions and steps. It does nothing until it is put `on` a model."""

    operation: Operation
    hook_name: str
    layers: Literal["own", "all"] | int | Sequence[int] = "own"
    """`"own"` is the layer of `hook_name`. The same vectors act at every layer, each on what those before left, so
    that an even number of reflections undoes itself; with `value="clean"` it does not."""
    where: Where = "all"
    bos: bool = False
    """Whether `where="all"` and `"prompt"` include beginning-of-sequence tokens."""
    when: Schedule | None = None
    gate: Gate | None = None
    keep_norm: bool = False
    """Rescale each steered residual to the length that it had."""
    fingerprint: ModelFingerprint | None = None
    """The model that the vectors were made on; None: not recorded, and not checked."""

    __repr__ = brief_fields

    def __post_init__(self) -> None:
        if isinstance(self.layers, int):
            object.__setattr__(self, "layers", (self.layers,))
        elif not isinstance(self.layers, str):
            # A generator could be read only once.
            object.__setattr__(self, "layers", as_tuple(self.layers, "layers"))

    @numbers_checked
    def at(
        self,
        *,
        where: Where | None = None,
        bos: bool | None = None,
        layers: Literal["own", "all"] | int | Sequence[int] | None = None,
        when: Schedule | None = None,
        gate: Gate | None = None,
        keep_norm: bool | None = None,
    ) -> "Steering":
        """The same steering in another place; what is not given stays."""
        given = {"where": where, "bos": bos, "layers": layers, "when": when, "gate": gate, "keep_norm": keep_norm}
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(self, **changed)

    def on(self, model: HookedModel) -> Block:
        """`steer(model, [self])`."""
        return steer(model, [self])

    def require_model(self, model: HookedModel) -> None:
        """Refuse a model that it cannot act in.

        Raises:
            LookupError: the model has no such hook point.
            FingerprintMismatch: the vectors were made on another model.
            ValueError: a layer outside the model, a vector of another width, or a gate from a later layer.
        """
        names = self.hook_names(model)
        for name in (self.hook_name, *names):
            require_hook(model, name)
        widths = {"the steering's vector": self.operation.vector}
        if self.gate is not None:
            require_hook(model, self.gate.hook_name)
            first = hook_layer(names[0])
            if hook_layer(self.gate.hook_name) > first:
                raise ValueError(
                    f"the gate reads {self.gate.hook_name}, later than the operation at layer {first}; gate on "
                    "the same layer or an earlier one"
                )
            widths["the gate's vector"] = self.gate.vector
        for name, vector in widths.items():
            if vector.shape[0] != model.cfg.d_model:
                raise ValueError(
                    f"{name} has width {vector.shape[0]}, but the model's d_model is {model.cfg.d_model}; use a "
                    "direction that was trained on this model"
                )
        if self.fingerprint is not None:
            self.fingerprint.require_model(model, what="the steering's vectors were made")

    def hook_names(self, model: HookedModel) -> list[str]:
        """Where it acts in a model of this many layers, earliest first; `require_model` checks that it can.

        Raises:
            ValueError: a layer outside the model, or a hook point that is in no layer.
        """
        own_layer, point = layer_and_point(self.hook_name)
        n_layers = int(model.cfg.n_layers)
        if isinstance(self.layers, str | int):
            if self.layers not in ("own", "all"):
                raise ValueError(f"layers is {self.layers!r}; give 'own', 'all' or layer numbers")
            layers = [own_layer] if self.layers == "own" else list(range(n_layers))
        else:
            outside = [layer for layer in self.layers if not -n_layers <= layer < n_layers]
            if outside or not self.layers:
                raise ValueError(
                    f"layers {list(self.layers)} are not all in the model; allowed: {-n_layers} to {n_layers - 1}"
                )
            layers = sorted({layer % n_layers for layer in self.layers})
        return [block_hook(layer, point) for layer in layers]

    def hooks(self, model: HookedModel) -> list[tuple[str, Hook]]:
        """`(hook_name, fn)` pairs for `add_hook`, `hooks` or `run_with_hooks`, acting on every position they see.

        Such a function cannot know where a chunk stands, so nothing that depends on it is allowed, and it acts on
        the beginning-of-sequence token and on padding too: say so with `bos=True`.

        Raises:
            ValueError: the steering depends on positions, steps, a gate or the clean run.
            LookupError, FingerprintMismatch, ValueError: as `require_model`.
        """
        self._require_no_clean_run()
        if (
            not isinstance(self.where, str)
            or self.where != "all"
            or not self.bos
            or self.when is not None
            or self.gate is not None
        ):
            raise ValueError(
                "a plain hook does not know which positions it is given; use steer or lrc.generate for `where`, "
                "`when` and `gate`, and bos=True to steer the beginning-of-sequence token too"
            )
        self.require_model(model)
        return [(name, self.everywhere) for name in self.hook_names(model)]

    def everywhere(self, residual: Tensor, hook: Any) -> Tensor:
        """The operation as a plain hook: at every position it is given, whatever `where` says.

        Raises:
            ValueError: the operation needs scores of the clean run.
        """
        self._require_no_clean_run()
        return self._apply(residual, factor=None, mask=None)

    @checked
    def relative_size(self, acts: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """`|h' - h| / |h|`: how far each of these residuals would be moved, as a share of its length.

        Wherever `where` says, at the full strength of a schedule; in float32 or wider. An operation that writes
        along another vector than it reads must go the further the more the two differ, and this says how far.
        Amounts by row need residuals of shape `batch pos d_model`, or one for each row.

        Raises:
            ValueError: residuals of another width than the vectors.
        """
        width = self.operation.vector.shape[0]
        if acts.shape[-1] != width:
            raise ValueError(
                f"the activations have width {acts.shape[-1]}, the steering's vector {width}; they must be equal"
            )
        self._require_no_clean_run()
        rows = wide_of(acts if acts.ndim > 2 else acts.reshape(-1, 1, width))
        shift = self.operation.shift(rows)
        if self.keep_norm:
            shift = rescaled(rows + shift, rows) - rows
        size: Tensor = shift.norm(dim=-1) / rows.norm(dim=-1)
        return size.reshape(acts.shape[:-1])

    def _require_no_clean_run(self) -> None:
        if isinstance(self.operation, FromClean):
            raise ValueError(
                'value="clean" needs to know which tokens a pass runs, and a plain hook does not; use steer, '
                "Steering.on or lrc.generate"
            )

    def _apply(
        self, residual: Tensor, *, factor: Tensor | None, mask: Tensor | None, clean: Tensor | None = None
    ) -> Tensor:
        wide = wide_of(residual)
        operation = self.operation
        shift = operation.shift(wide, clean=clean) if isinstance(operation, FromClean) else operation.shift(wide)
        steered = wide + (shift if factor is None else factor.to(wide)[:, None] * shift)
        if self.keep_norm:
            steered = rescaled(steered, wide)
        steered = steered.to(residual.dtype)
        return steered if mask is None else torch.where(mask[..., None], steered, residual)


class _Active(threading.local):
    """One steering on one model: its hooks, and its mask and factor for the current pass.

    It is local to the thread, as the positions are.
    """

    def __init__(self, steering: Steering, chunk_of: Callable[[Tensor], Chunk], clean: CleanScores | None) -> None:
        self._steering = steering
        self._clean = clean
        self._chunk_of = chunk_of
        self._chunk: Chunk | None = None
        self._mask: Tensor | None = None
        self._factor: Tensor | None = None
        self._empty = self._whole = False
        self._fired: tuple[Chunk, Tensor] | None = None

    def read_gate(self, residual: Tensor, hook: Any) -> None:
        assert self._steering.gate is not None
        self._fired = self._chunk_of(residual), self._steering.gate.fires(residual)

    def at(self, name: str) -> Callable[[Tensor, Any], Tensor]:
        """The hook at one of the steering's hook points."""

        def act(residual: Tensor, hook: Any) -> Tensor:
            return self._act(name, residual)

        return act

    def _act(self, name: str, residual: Tensor) -> Tensor:
        chunk = self._chunk_of(residual)
        if chunk is not self._chunk:
            self._plan(chunk)
        assert self._mask is not None
        mask = self._mask
        if self._steering.gate is not None:
            if self._fired is None or self._fired[0] is not chunk:
                raise ValueError(
                    f"the gate at {self._steering.gate.hook_name} was not run in this pass before the operation; "
                    "gate on a hook point before the operation's, and start the pass at or before its layer"
                )
            mask = mask & self._fired[1].to(mask.device)
        elif self._empty:
            return residual
        clean = None if self._clean is None or self._empty else self._clean.at(name, residual, chunk)
        on_all = self._whole and self._steering.gate is None
        return self._steering._apply(
            residual,
            factor=self._factor_on(residual),
            mask=None if on_all else mask.to(residual.device),
            clean=clean,
        )

    def _factor_on(self, residual: Tensor) -> Tensor | None:
        return None if self._factor is None else self._factor.to(residual.device)

    def _plan(self, chunk: Chunk) -> None:
        steering = self._steering
        self._mask = select(steering.where, chunk, bos=steering.bos)
        self._empty, self._whole = not bool(self._mask.any()), bool(self._mask.all())
        if steering.when is not None:
            chunk.generated(why="a schedule")
            assert chunk.prompt_width is not None
            step = (chunk.columns - chunk.prompt_width + 1).clamp_min(0)
            self._factor = steering.when.factor(step)
        self._chunk = chunk


def _clean_scores(steering: Steering, names: Sequence[str]) -> CleanScores | None:
    operation = steering.operation
    if not isinstance(operation, FromClean):
        return None
    return CleanScores(operation, names, where=steering.where, bos=steering.bos)


def steer(model: HookedModel, steerings: Steering | Sequence[Steering]) -> Block:
    """One steering or several are on inside the block, in the order given, and gone outside, whatever happens.

    Right for single prompts and left-padded batches, with and without a key-value cache, in `generate`,
    `run_with_hooks` and plain forward passes. Other hooks on the model are left alone. Blocks may be left in any
    order. They act in the context (`contextvars`) that entered them, so not in other threads that were started
    plainly, and not on copies of the model.

    Steerings with `value="clean"` take one extra pass for each block, over every prompt that is run, up to the
    last layer that they steer, without gradients. No steering and no hook at the model's hook points acts in it
    or sees it.

    Raises:
        FingerprintMismatch: the vectors were made on another model.
        LookupError: the model has no such hook point.
        ModelError: while the model runs, `value="clean"` on one that drops activations at random.
        ValueError: nothing to steer with, a steering that does not fit the model, or, while the model runs, a
            place that cannot be known or does not exist, or a prompt of which no clean pass can be run.
    """

    given = [steerings] if isinstance(steerings, Steering) else steerings
    steerings = as_tuple(given, "steerings", Steering)

    def put_on(session: Session) -> None:
        if not steerings:
            raise ValueError("no steerings; give at least one")
        with fingerprints_once():
            for steering in steerings:
                steering.require_model(model)
        names = [steering.hook_names(model) for steering in steerings]
        gates = [steering.gate.hook_name for steering in steerings if steering.gate is not None]
        layers = sorted({hook_layer(name) for name in [*gates, *(name for group in names for name in group)]})
        measured = [_clean_scores(steering, group) for steering, group in zip(steerings, names, strict=True)]
        from_clean = [scores for scores in measured if scores is not None]
        begins = run_clean_passes(model, from_clean) if from_clean else None
        chunk_of = track_positions(session, model, layers=layers, begins=begins)
        hooks: list[tuple[str, Callable[..., Tensor | None]]] = []
        for steering, group, clean in zip(steerings, names, measured, strict=True):
            active = _Active(steering, chunk_of, clean)
            if steering.gate is not None:
                hooks.append((steering.gate.hook_name, active.read_gate))
            hooks.extend((name, active.at(name)) for name in group)
        session.add_hooks(model, hooks)

    return Block(put_on)
