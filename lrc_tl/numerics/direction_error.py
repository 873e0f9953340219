"""How far the directions of a sketched weight are from those of the whole weight: an estimate without the latter.

A sketch shows a block bidiagonal corner of the weight, exactly, and leaves out the rest. Its start is random and
prefers no direction, so what the rest looks like depends on the singular values alone. They are fitted: a
diagonal matrix is sketched again and again until its sketch has the singular values seen. That sketch is then
continued, and the continuation, turned at random, is put behind the corner: the solutions with and without it
differ by about as much as the sketched from the exact ones.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.typechecking import checked
from lrc_tl.numerics.precision import HOST
from lrc_tl.numerics.sketching import BlockKrylov

BOUND_FACTOR = 2.7
"""Bound over estimate: what held in 95 % of the calibration cases (`benchmarks/low_rank_error.py`)."""
_FITTING_ROUNDS = 5
_CONTINUATIONS = 3
_TURNS = 3


@checked
def angles(first: Float[Tensor, "*batch d"], second: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """Angle between the vectors of each row in radians, 0 to pi; precise also where it is tiny.

    A zero vector has the angle pi / 2 to every other.
    """
    first, second = (rows.double() for rows in (first, second))
    first, second = (rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-300) for rows in (first, second))
    radians: Tensor = 2 * torch.atan2((first - second).norm(dim=-1), (first + second).norm(dim=-1))
    return radians


@checked
def direction_errors(
    sketch: BlockKrylov, targets: Float[Tensor, "concept d_object"], *, rank: int, seed: int = 0
) -> Float[Tensor, " concept"]:
    """Upper bound, right in most cases, of the angle between the sketched and the exact solution for each target.

    In radians, float64, on the CPU, at most pi / 2. Both solutions are those of `Factors.solve` at `rank`. It
    cannot see singular values that the weight has more often than the sketch is wide.
    """
    n_all = min(sketch.left.shape[0], sketch.image.shape[0])
    if sketch.rank >= n_all:
        return torch.zeros(len(targets), dtype=torch.float64, device=HOST)
    values = fitted_spectrum(sketch, seed=seed)
    corner = _bidiagonal(sketch)
    n_rows, n_columns = corner.shape
    targets = targets.cpu().double()
    known = targets @ sketch.left.cpu().double()
    beyond = (targets.pow(2).sum(1) - known.pow(2).sum(1)).clamp_min(0)
    without = _solve(corner, known, rank)
    generator = torch.Generator(device=HOST).manual_seed(seed)
    n_rounds = min(sketch.n_rounds + max(3, sketch.n_rounds), -(-n_all // sketch.width))
    errors = []
    for number in range(_CONTINUATIONS):
        again = simulated(values, sketch.width, n_rounds, seed=seed + _FITTING_ROUNDS + number)
        rest = _bidiagonal(again)[n_rows:, n_rows:]
        shared = n_columns - n_rows
        for _ in range(_TURNS):
            drawn = torch.randn(shared, shared, generator=generator, dtype=torch.float64, device=HOST)
            turn = torch.linalg.qr(drawn).Q
            whole = torch.zeros(n_rows + rest.shape[0], n_rows + rest.shape[1], dtype=torch.float64, device=HOST)
            whole[:n_rows, :n_columns] = corner
            whole[n_rows:, n_rows:] = torch.cat([rest[:, :shared] @ turn, rest[:, shared:]], 1)
            spread = (beyond / (n_all - n_rows)).sqrt()[:, None]
            noise = torch.randn(len(targets), len(rest), generator=generator, dtype=torch.float64, device=HOST)
            solution = _solve(whole, torch.cat([known, spread * noise], 1), rank)
            missing = solution.shape[1] - without.shape[1]
            errors.append(angles(torch.nn.functional.pad(without, (0, missing)), solution))
    bound: Tensor = (BOUND_FACTOR * torch.stack(errors).pow(2).mean(0).sqrt()).clamp_max(torch.pi / 2)
    return bound


@checked
def fitted_spectrum(sketch: BlockKrylov, *, seed: int = 0) -> Float[Tensor, " d"]:
    """Singular values, largest first, of a matrix whose sketch of that width and depth looks like this one.

    Those beyond the rank of the sketch fall geometrically, with the energy that the sketch has left out, or as
    fast as the ones that it has found well, whichever is more.
    """
    sketched = sketch.factors.s.cpu().double()
    n_all = min(sketch.left.shape[0], sketch.image.shape[0])
    residual = sketch.first_residual
    energy = max(sketch.first_energy + residual - float(sketched.pow(2).sum()), 1e-3 * residual)
    head, least = sketched, 0.0
    for number in range(_FITTING_ROUNDS):
        values = _with_tail(head, n_all, max(energy, least))
        again = simulated(values, sketch.width, sketch.n_rounds, seed=seed + number)
        seen = again.factors.s
        head = (head * (sketched / seen).nan_to_num(1.0).clamp(0.5, 2)).sort(descending=True).values
        missed = float(values.pow(2).sum()) - again.first_energy
        if missed > 0:
            energy *= min(max(residual / missed, 0.25), 4.0)
        n_sure = int((seen > 0.9 * values[: len(seen)]).double().cumprod(0).sum())
        least = _energy_of_line(head, n_sure, n_all) if n_sure >= 4 else least
    return _with_tail(head, n_all, max(energy, least))


@checked
def simulated(values: Float[Tensor, " d"], width: int, n_rounds: int, *, seed: int) -> BlockKrylov:
    """The sketch of the diagonal matrix of `values` from random vectors."""
    generator = torch.Generator(device=HOST).manual_seed(seed)
    start = torch.randn(len(values), width, generator=generator, dtype=values.dtype, device=values.device)
    sketch = BlockKrylov(lambda rows: rows * values, lambda rows: rows * values, start)
    for _ in range(n_rounds):
        sketch.grow()
    return sketch


def _with_tail(head: Tensor, n_all: int, energy: float) -> Tensor:
    """`head`, then geometrically falling values with the sum of squares `energy`, none above the last of it."""
    n_tail = n_all - len(head)
    top = max(float(head[-1]), 1e-300)
    places = torch.arange(1, n_tail + 1, dtype=head.dtype, device=head.device)
    if energy >= n_tail * top**2:
        return torch.cat([head, head.new_full((n_tail,), top)])
    low, high = 0.0, 1.0
    for _ in range(50):
        ratio = (low + high) / 2
        low, high = (ratio, high) if float((top**2 * ratio ** (2 * places)).sum()) < energy else (low, ratio)
    return torch.cat([head, top * low**places])


def _energy_of_line(head: Tensor, n_sure: int, n_all: int) -> float:
    """Sum of squares beyond `head` if the values go on falling as they do in the second half of the sure ones."""
    log = head[n_sure // 2 : n_sure].clamp_min(1e-300).log()
    places = torch.arange(len(log), dtype=log.dtype, device=log.device) - (len(log) - 1) / 2
    slope = min(float((places * log).sum() / places.pow(2).sum()), -1e-6)
    further = torch.arange(len(head) - n_sure + 1, n_all - n_sure + 1, dtype=log.dtype, device=log.device)
    return float((head[n_sure - 1] * torch.exp(slope * further)).pow(2).sum())


def _bidiagonal(sketch: BlockKrylov) -> Tensor:
    """The weight in the bases of the sketch: outputs found by inputs found and those of the next round."""
    return sketch.image.cpu().double().T @ sketch.right.cpu().double()


def _solve(matrix: Tensor, targets: Tensor, rank: int) -> Tensor:
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    solution: Tensor = (targets @ u[:, :rank] / s[:rank].clamp_min(1e-300)) @ vh[:rank]
    return solution
