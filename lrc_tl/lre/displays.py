"""How an LRE and statistics of subjects show themselves in a notebook."""

from typing import TYPE_CHECKING

from lrc_tl.markup.curves import sparkline
from lrc_tl.markup.fragments import display, joined, note, number
from lrc_tl.markup.tables import pairs, table

if TYPE_CHECKING:
    from lrc_tl.lre.embedding import LinearRelationalEmbedding
    from lrc_tl.lre.subject_statistics import SubjectStatistics


def lre_html(self: "LinearRelationalEmbedding") -> str:
    """The display of an LRE: layers, prompts, its numerical rank and the spectrum down to it."""
    rank = self.numerical_rank
    values = self.svd.s[:rank].tolist()
    spectrum = None
    if values:
        said = f"singular values 1 to {rank}, on a logarithmic axis: {number(values[0])} to {number(values[-1])}"
        spectrum = joined([sparkline(values, logarithmic=True), note(said)])
    errors = self.direction_errors
    return display(
        f"LRE of {self.relation}",
        pairs(
            {
                "layers": f"{self.subject_layer} → {self.object_layer}",
                "object": f"{self.object_aggregation} of its tokens"
                if self.object_aggregation == "mean"
                else "its first token",
                "prompts": self.n_prompts,
                "numerical rank": rank,
                "solver": self.solver
                if self.rank_limit is None
                else f"{self.solver}, up to rank {self.rank_limit}",
                "largest direction error": f"{max(errors.values()):.3g} radians (estimated)" if errors else None,
                "spectrum": spectrum,
                "model": self.fingerprint.name,
            }
        ),
    )


def lre_text(self: "LinearRelationalEmbedding") -> str:
    """One line: relation, layers, prompts and solver."""
    d_object, d_subject = self.weight.shape
    return (
        f"LinearRelationalEmbedding({self.relation!r}: layer {self.subject_layer} -> {self.object_layer}, "
        f"{d_subject} -> {d_object}, {self.object_aggregation}, {self.n_prompts} prompts, {self.solver})"
    )


def statistics_html(self: "SubjectStatistics") -> str:
    """The display of statistics: what the samples are of, and how far they spread at each layer."""
    rows = []
    for layer, statistics in self.items():
        mean = statistics.mean
        spread = float((statistics.samples.double() - mean).square().sum(1).mean().sqrt())
        rows.append([layer, float(mean.norm()), spread])
    first = next(iter(self.values()))
    return display(
        f"Subjects of {self.fingerprint.name}",
        pairs(
            {
                "samples": f"{first.n_samples} of {first.n_sources} {first.kind}",
                "layers": len(self),
                "width": first.samples.shape[1],
            }
        ),
        table(["layer", "length of the mean", "root mean square distance from it"], rows),
    )
