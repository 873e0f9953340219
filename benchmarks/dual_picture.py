"""A picture of the two vectors of a dual direction: subjects, what reads the object, and what writes it.

    .venv/bin/python benchmarks/dual_picture.py [--out FILE]

On the packaged Gemma, `city_in_country`: subject activations at layer 9 in the plane of the reading and the
writing vector of one object, in residual-stream units. Writes `benchmarks/results/dual_geometry.png`.
"""

import argparse
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import lrc_tl as lrc

SUBJECT_LAYER, N_LRE_PROMPTS = 9, 10
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "dual_geometry.png")
    arguments = parser.parse_args()
    model = lrc.load_model("packaged:gemma-3-270m")
    train, test = lrc.load_relation("city_in_country").split(seed=0)
    known = lrc.filter_known(model, train.prompts(shots=4, seed=0))
    statistics = lrc.SubjectStatistics.fit(model, layers=[SUBJECT_LAYER])
    statistics = statistics.without(fact.subject for fact in test.facts)
    lre = lrc.LinearRelationalEmbedding.fit(
        model, known.sample(N_LRE_PROMPTS, seed=0), subject_layer=SUBJECT_LAYER, object_layer=-1
    )
    concepts = lre.concepts(model, known.prompts, prior=statistics)
    plain = [prompt.without_examples() for prompt in known.prompts]
    subjects = lrc.subject_activations(model, plain, layer=SUBJECT_LAYER).double()
    name = Counter(prompt.object for prompt in known.prompts).most_common(1)[0][0]
    direction = concepts[name]
    reads, writes = direction.vector.double(), direction.write_vector.double()
    across = writes - (writes @ reads) * reads
    plane = torch.stack([across / across.norm(), reads], dim=1)  # x: what writing adds beside reading; y: reading
    mean = subjects.mean(0)
    background = statistics[SUBJECT_LAYER].samples.double() - statistics[SUBJECT_LAYER].mean
    has_object = torch.tensor([prompt.object == name for prompt in known.prompts])
    draw(
        arguments.out,
        name=name,
        background=background @ plane,
        others=(subjects[~has_object] - mean) @ plane,
        subjects=(subjects[has_object] - mean) @ plane,
        writes=writes @ plane,
        cosine=float(reads @ writes),
    )
    shares = {
        word: float((background @ vector).std()) for word, vector in (("reading", reads), ("writing", writes))
    }
    print(f"{name}: cosine {float(reads @ writes):.3f}, noise {concepts.settings['noise']}")
    print(f"spread of background subjects along the vectors: {shares}; wrote {arguments.out}")


def draw(out, *, name, background, others, subjects, writes, cosine):
    """One picture: the cloud of subjects, those with the object, and both vectors."""
    figure, axes = plt.subplots(figsize=(7.2, 4.6), dpi=150)
    for points, label, style in (
        (background, "subjects of all built-in relations", {"s": 4, "color": "0.8"}),
        (others, "cities of other countries", {"s": 16, "color": "tab:blue", "alpha": 0.7}),
        (subjects, f"cities of {name}", {"s": 26, "color": "tab:red"}),
    ):
        axes.scatter(points[:, 0], points[:, 1], label=label, linewidths=0, **style)
    across, along = (2.5 * float(others[:, axis].std()) for axis in (0, 1))
    arrow = {"arrowstyle": "-|>", "lw": 2.2, "shrinkA": 0, "shrinkB": 0}
    for (x, y), text, colour in (
        ((0.0, along), "reads", "black"),
        ((across, across * float(writes[1] / writes[0])), "writes", "tab:green"),
    ):
        axes.annotate("", xy=(x, y), xytext=(0, 0), arrowprops={**arrow, "color": colour})
        axes.annotate(text, xy=(x, y), xytext=(6, 6), textcoords="offset points", color=colour, weight="bold")
    stretched = float(background[:, 0].std() / background[:, 1].std())
    axes.set_xlabel("along the writing vector, less its part along the reading one")
    axes.set_ylabel(f"along the reading vector (stretched: spreads differ {stretched:.0f} times)", size=8)
    axes.set_title(
        f"Layer {SUBJECT_LAYER} of Gemma 3 270M: the dual pair of {name} (cosine {cosine:.2f})", size=10
    )
    axes.legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(out)


if __name__ == "__main__":
    main()
