"""Ways to read, by name: one vector for each object from the same training facts, in plain float64 algebra."""

from collections.abc import Iterator, Mapping

import torch
from facts import Facts, Place, means_of
from torch import Tensor

from lrc_tl.lre.subject_statistics import LayerStatistics
from lrc_tl.methods.baselines import baseline_concepts
from lrc_tl.numerics.covariance import Covariance

NOISES = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
SHRINKAGES = (0.1, 0.3, 0.6)
Rows = Iterator[tuple[str, Tensor]]


def unit(rows: Tensor) -> Tensor:
    """Rows of unit length."""
    return rows / rows.norm(dim=-1, keepdim=True)


def less_mean(rows: Tensor) -> Tensor:
    """Rows less their mean."""
    return rows - rows.mean(0)


class Solver:
    """`W^T (W Sigma W^T + noise tau M)^-1 (m_o - m)` for all noises, from one decomposition; M is I by default."""

    def __init__(self, weight: Tensor, targets: Tensor, sigma: Tensor, metric: Tensor | None = None) -> None:
        targets = less_mean(targets)
        self.tau = float((weight @ sigma * weight).sum()) / len(weight)
        if metric is not None:
            whiten = torch.linalg.inv(torch.linalg.cholesky(metric / metric.trace() * len(metric)))
            weight, targets = whiten @ weight, targets @ whiten.T
        self.values, basis = torch.linalg.eigh(weight @ sigma @ weight.T)
        self.targets, self.weight = targets @ basis, basis.T @ weight

    def read(self, noise: float) -> Tensor:
        """One reading vector for each object."""
        return (self.targets / (self.values + noise * self.tau)) @ self.weight


def pseudo_inverse(weight: Tensor, targets: Tensor, *, ridge: float = 0.0, rank: int | None = None) -> Tensor:
    """The subject-side vectors of targets, with a ridge or a rank."""
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    along = targets @ u
    if rank is not None:
        return (along[:, :rank] / s[:rank]) @ v[:rank]
    return (along * s / (s**2 + (ridge * s[0]) ** 2)) @ v


def sigma_of(statistics: LayerStatistics, shrinkage: float | None = None) -> Tensor:
    """The covariance at Ledoit and Wolf's shrinkage, or another one."""
    if shrinkage is None:
        return statistics.covariance.dense()
    return Covariance.of_samples(statistics.samples, shrinkage=shrinkage).dense()


class Ways:
    """All ways on the same facts, with what they share."""

    def __init__(self, facts: Facts) -> None:
        self.facts, self.names = facts, facts.names
        self.weights = {place: lre.weight.double() for place, lre in facts.lres.items()}
        self.biases = {place: lre.bias.double() for place, lre in facts.lres.items()}
        self.means = {place: means_of(acts, facts.labels, facts.names) for place, acts in facts.objects.items()}
        self.sigma = sigma_of(facts.prior)
        half_way, given, last = sorted({layer for layer, _ in facts.lres})
        self.half_way, self.given = (half_way, "mean"), (given, "mean")
        self.last, self.first = (last, "mean"), (last, "first_token")
        self.sets: Mapping[str, tuple[Place, ...]] = {
            "given": (self.given,),
            "given and last": (self.given, self.first),
            "half way, given and last": (self.half_way, self.given, self.first),
        }

    def in_spreads(self, rows: Tensor) -> Tensor:
        """Rows over the spread of their scores among the background's subjects, the mean over objects."""
        return rows / ((rows @ self.sigma) * rows).sum(1).clamp_min(0).sqrt().mean()

    def all(self) -> Rows:
        """Everything that is compared."""
        yield from self.paper()
        yield from self.duals()
        yield from self.other_covariances()
        yield from self.other_maps()
        yield from self.class_means()
        yield from self.baselines()

    def paper(self) -> Rows:
        """LREs inverted, with and without the bias."""
        weight, targets, bias = self.weights[self.given], self.means[self.given], self.biases[self.given]
        yield "lrc", unit(pseudo_inverse(weight, targets - bias, rank=64))
        yield "lrc, no bias", unit(pseudo_inverse(weight, targets, rank=64))
        yield "lrc, less the mean of all objects", unit(pseudo_inverse(weight, less_mean(targets), rank=64))
        yield "lrc-ridge", unit(pseudo_inverse(weight, targets - bias, ridge=0.2))
        yield "lrc-ridge, no bias", unit(pseudo_inverse(weight, targets, ridge=0.2))
        differences = pseudo_inverse(weight, less_mean(targets), ridge=0.2)
        yield "lrc-ridge, less the mean of all objects", unit(differences)
        yield "lrc-ridge, less the mean of all objects, lengths kept", differences
        parts = [
            unit(pseudo_inverse(self.weights[place], self.means[place] - self.biases[place], ridge=0.2))
            for place in self.sets["half way, given and last"]
        ]
        yield "lrc-combined", unit(torch.stack([less_mean(part) for part in parts]).sum(0))

    def duals(self) -> Rows:
        """`lrc-map` at each object layer, and of several together."""
        solvers = {p: Solver(self.weights[p], self.means[p], self.sigma) for p in self.weights}
        for noise in NOISES:
            reading = {place: solver.read(noise) for place, solver in solvers.items()}
            for (layer, aggregation), rows in reading.items():
                yield f"dual of {layer} ({aggregation}), noise {noise:g}", rows
                if noise == 10:
                    yield f"dual of {layer} ({aggregation}), noise {noise:g}, unit length", unit(rows)
            for name, places in self.sets.items():
                if len(places) > 1:
                    rows = torch.stack([self.in_spreads(reading[place]) for place in places]).sum(0)
                    yield f"duals of {name}, noise {noise:g}", rows

    def other_covariances(self) -> Rows:
        """Other backgrounds, shrinkages, and noise with the covariance within objects."""
        weight, targets = self.weights[self.given], self.means[self.given]
        own = Covariance.of_samples(self.facts.plain, shrinkage=0.1).dense()
        total = self.sigma / self.sigma.trace()
        sigmas = {
            "of the other relations": sigma_of(self.facts.others),
            "of the own relation": own,
            "half of the own relation": (total + own / own.trace()) / 2,
            "pooled within objects": self.pooled(),
            "identity": torch.eye(len(own), dtype=own.dtype),
            **{f"shrunk by {share:g}": sigma_of(self.facts.prior, share) for share in SHRINKAGES},
        }
        for name, sigma in sigmas.items():
            solver = Solver(weight, targets, sigma)
            for noise in (1.0, 10.0, 30.0):
                yield f"dual, covariance {name}, noise {noise:g}", solver.read(noise)
        acts = self.facts.objects[self.given].double()
        rows = torch.tensor([self.names.index(label) for label in self.facts.labels])
        within = acts - targets[rows]
        scatter = within.T @ within / len(within)
        identity = torch.eye(len(scatter), dtype=scatter.dtype) / len(scatter)
        spread = scatter / scatter.trace() if float(scatter.trace()) > 0 else identity  # one prompt of each object
        for share in (0.1, 0.5):
            metric = (1 - share) * spread + share * identity
            solver = Solver(weight, targets, self.sigma, metric)
            for noise in (1.0, 10.0, 100.0):
                yield (
                    f"dual, noise of the scatter within objects ({share:g} identity), noise {noise:g}",
                    solver.read(noise),
                )

    def pooled(self) -> Tensor:
        """Half the background's covariance, half that of this relation's subjects within objects, equal traces."""
        facts = self.facts
        rows = [row for row, name in enumerate(facts.plain_objects) if name in self.names]
        acts = facts.plain[rows].double()
        labels = [facts.plain_objects[row] for row in rows]
        means = means_of(acts, labels, self.names)
        within = acts - means[torch.tensor([self.names.index(label) for label in labels])]
        scatter = within.T @ within / len(within)
        sigma = sigma_of(facts.prior, 0.3)
        return (sigma / sigma.trace() + scatter / scatter.trace()) / 2 * sigma.trace()

    def other_maps(self) -> Rows:
        """An affine map by ridge regression on the same prompts in the place of the Jacobian."""
        subjects = less_mean(self.facts.few_shot.double())
        objects = less_mean(self.facts.objects[self.given].double())
        products = subjects @ subjects.T
        for share in (0.1, 1.0):
            ridge = share * products.trace() / len(products) * torch.eye(len(products)).double()
            weight = torch.linalg.solve(products + ridge, objects).T @ subjects
            solver = Solver(weight, self.means[self.given], self.sigma)
            for noise in (1.0, 10.0, 100.0):
                yield f"dual of a regressed map, ridge {share:g}, noise {noise:g}", solver.read(noise)

    def class_means(self) -> Rows:
        """The dual of class means, alone and beside duals of LREs."""
        facts = self.facts
        rows = [row for row, name in enumerate(facts.plain_objects) if name in self.names]
        sources = {
            "zero-shot": (facts.zero_shot, facts.labels),
            "zero-shot of all facts": (facts.plain[rows], [facts.plain_objects[row] for row in rows]),
            "few-shot": (facts.few_shot, facts.labels),
        }
        solvers = {p: Solver(self.weights[p], self.means[p], self.sigma) for p in self.weights}
        for what, (acts, labels) in sources.items():
            means = less_mean(means_of(acts, labels, self.names))
            for shrinkage in SHRINKAGES:
                reading = torch.linalg.solve(sigma_of(facts.prior, shrinkage), means.T).T
                yield f"class means, {what}, shrunk by {shrinkage:g}", reading
                for name, places in self.sets.items():
                    for noise in (10.0, 30.0):
                        parts = [self.in_spreads(solvers[place].read(noise)) for place in places]
                        duals = self.in_spreads(torch.stack(parts).sum(0))
                        for share in (0.15, 0.25, 0.4):
                            label = f"{name}, noise {noise:g}, {share:g} class means, {what}, {shrinkage:g}"
                            yield f"duals of {label}", duals + share * self.in_spreads(reading)

    def baselines(self) -> Rows:
        """Baselines from few-shot prompts, as the benchmark has them, and from zero-shot prompts."""
        facts = self.facts
        rows = [row for row, name in enumerate(facts.plain_objects) if name in self.names]
        sources = {
            "few-shot": (facts.few_shot, facts.labels),
            "zero-shot": (facts.zero_shot, facts.labels),
            "zero-shot of all facts": (facts.plain[rows], [facts.plain_objects[row] for row in rows]),
        }
        for what, (acts, labels) in sources.items():
            for method in ("mean", "mean-difference", "svm", "logistic"):
                made = baseline_concepts(
                    acts, labels, method=method, hook_name="blocks.0.hook_resid_post", relation="r", seed=0
                )
                yield f"{method}, {what}", torch.stack([made[name].vector for name in self.names]).double()
