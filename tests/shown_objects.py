"""One of every object that shows itself, from plain data, and what a display says once its markup is read."""

from html.parser import HTMLParser

import pandas as pd
import torch
from test_protocol_result import RESULT
from test_sweep_result import made_up_result
from tiny_directions import FINGERPRINT, named

import lrc_tl as lrc
from lrc_tl.directions.prompt_lens import PromptLens
from lrc_tl.directions.readouts import Readout, Word
from lrc_tl.directions.token_scores import ConceptScores, TokenScores
from lrc_tl.evaluation.causality import CausalityResult, Edit
from lrc_tl.evaluation.classification import Classification
from lrc_tl.evaluation.collateral import SideEffects
from lrc_tl.evaluation.summary import Evaluation
from lrc_tl.passes.known_prompts import DroppedPrompt, KnownPrompts
from lrc_tl.steering.generation import Generated
from lrc_tl.tuning.strength_result import Limits, StrengthCalibration, StrengthPoint

HOSTILE = "<script>alert('x')</script> & \"q\" 🗾 日本 שלום ‮evil"
"""Markup, quotes, an emoji, other scripts, and a mark that turns the direction of what follows."""


DRAWN = "data:image/svg+xml;base64,"
"""How an image begins that is in the markup itself."""


class Seen(HTMLParser):
    """What a reader sees of markup: text, what shows on hover, and the tags that there are."""

    def __init__(self, markup):
        super().__init__()
        self.text, self.hovers, self.tags, self.opened, self.cells, self.styles = [], [], set(), [], [], []
        self.rows = []
        self.feed(markup)
        self.close()
        assert not self.opened, self.opened

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.add(tag)
        assert not [name for name in given if name.startswith("on") or name == "href"]
        assert given.get("src", DRAWN).startswith(DRAWN)
        if "title" in given:
            self.hovers.append(given["title"])
        self.styles.append(given.get("style", ""))
        self.opened.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cells.append("")
            self.rows[-1].append(len(self.cells) - 1)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.opened and self.opened[-1] == tag:
            self.opened.pop()

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag

    def handle_data(self, data):
        if "style" in self.opened:
            return
        self.text.append(data)
        if "td" in self.opened or "th" in self.opened:
            self.cells[-1] += data

    @property
    def text_rows(self):
        """Of each row of a table its first cell, and how many cells follow."""
        return [(self.cells[row[0]], len(row) - 1) for row in self.rows if row]

    @property
    def whole(self):
        return "".join(self.text)


def seen(value):
    return Seen(value if isinstance(value, str) else value._repr_html_())


def concept_set(names, *, calibrated=True):
    directions = {name: named(number, name, fingerprint=FINGERPRINT) for number, name in enumerate(names)}
    if calibrated:
        first = next(iter(directions))
        directions[first] = directions[first].calibrated(threshold=12.5, slope=0.5, intercept=-2.0)
    return lrc.ConceptSet(directions, settings={"rank": 128, "object_layer": 12, "beta": 0.005})


def causality_result():
    generator = torch.Generator().manual_seed(0)
    clean = -3 * torch.rand(20, 2, generator=generator)
    edited = clean + torch.tensor([-1.0, 1.0]) * torch.rand(20, 1, generator=generator) * 3
    return CausalityResult(
        beta=0.005, clean=clean, edited=edited, edit_share=0.008, generated=torch.arange(20) % 3 == 0
    )


def evaluation(names):
    actual = tuple(names[number % len(names)] for number in range(16))
    prompt = lrc.Prompt(text="Lyon is in", subject="Lyon", object=names[0])
    return Evaluation(
        classification=Classification(
            candidates=tuple(names), actual=actual, predicted=actual, places=(1,) * 13 + (2, 3, 0)
        ),
        causality_result=causality_result(),
        edits=(Edit(prompt=prompt, target=names[1]),) * 20,
        seed=0,
        elsewhere=SideEffects(
            beta=0.005,
            kl=torch.full((60,), 0.2, dtype=torch.float64),
            kept=torch.ones(60, dtype=torch.bool),
            log_prob_change=torch.zeros(60),
        ),
    )


def strength_point(strength, rate, kl, broken=()):
    return StrengthPoint(
        strength=strength, success_rate=rate, wrong_way=0.0, mean_margin=1.0, kl=kl, perplexity_ratio=1 + kl,
        repetition=0.0, reached=rate >= 0.6, broken=tuple(broken),
    )  # fmt: skip


def strength_calibration():
    return StrengthCalibration(
        strength=0.01,
        points=(
            strength_point(0.001, 0.0, 0.001),
            strength_point(0.003, 0.25, 0.01),
            strength_point(0.01, 0.75, 0.1),
            strength_point(0.03, 1.0, 0.9, ["kl"]),
            strength_point(0.1, 0.5, float("inf"), ["kl", "perplexity_ratio"]),
        ),
        unsteered=strength_point(0.0, 0.0, 0.0),
        wanted=0.6,
        limits=Limits(kl=0.5),
        operation="Swap",
        unit="share",
        hook_name="blocks.7.hook_resid_post",
        success="object_named",
        n_edits=8,
        n_neutral_texts=4,
        grid=(0.001, 0.003, 0.01, 0.03, 0.1),
        refinements=0,
        seed=0,
        fingerprint=FINGERPRINT,
    )


def generated(word):
    tokens = (" Tokyo", ",", "\n", word, " sea")
    return Generated(
        prompt=f"My favourite city is {word}",
        strength=0.03,
        text="".join(tokens),
        token_ids=torch.arange(5),
        log_probs=-torch.ones(5),
        scores=torch.tensor([[41.5], [2.0], [-13.25], [7.5], [float("nan")]]),
        kl=torch.tensor([2.5, 0.01, 0.0, 0.5, 0.125]),
        tokens=tokens,
        instead=(" Paris", ",", "\n", " of", " sea"),
        unsteered=f" Paris, the city of {word}",
    )


def settings():
    tried = pd.DataFrame(
        {
            "subject_layer": [7, 7, 8], "object_layer": [12, 12, 13], "rank": [64, 128, 64],
            "accuracy": [0.5, 0.75, 0.625], "mean_reciprocal_rank": [0.6, 0.8, 0.7],
        }
    )  # fmt: skip
    edits = pd.DataFrame(
        {
            "rank": [128] * 3, "beta": [0.001, 0.003, 0.01], "hard_success": [0.1, 0.7, 0.4],
            "causality": [0.2, 0.8, 1.0],
        }
    )  # fmt: skip
    return lrc.tuning.Settings(
        subject_layer=7, object_layer=12, rank=128, beta=0.003, accuracy=0.75, causality=0.8, hard_success=0.7,
        kl_elsewhere=0.31, perplexity_ratio=1.1, within_limits=True, n_statements=60, n_validation=14,
        validation_shots=0, tried=tried, tried_edits=edits,
    )  # fmt: skip


def lre(word):
    generator = torch.Generator().manual_seed(1)
    factors = torch.linalg.qr(torch.randn(2, 40, 40, generator=generator, dtype=torch.float64))[0]
    spectrum = torch.logspace(2, -1, 40, dtype=torch.float64)
    return lrc.LinearRelationalEmbedding(
        weight=factors[0] @ torch.diag(spectrum) @ factors[1],
        bias=torch.zeros(40, dtype=torch.float64),
        subject_layer=7,
        object_layer=12,
        object_aggregation="mean",
        n_prompts=8,
        prompts_hash="0" * 16,
        relation=word,
        fingerprint=FINGERPRINT,
    )


def statistics(word):
    samples = torch.randn(60, 12, generator=torch.Generator().manual_seed(2))
    return lrc.SubjectStatistics(
        lrc.lre.LayerStatistics(
            layer=layer, samples=samples * layer, kind="subjects", sources=(word, "b"),
            source_of=torch.arange(60) % 2, fingerprint=FINGERPRINT,
        )
        for layer in (1, 2)
    )  # fmt: skip


def known(word):
    asked = [lrc.Prompt(text=f"s{n} is in", subject=f"s{n}", object=(word, "France")[n % 2]) for n in range(9)]
    return KnownPrompts(
        prompts=tuple(asked[:6]),
        dropped=tuple(DroppedPrompt(prompt=prompt, answer=f"the {word}") for prompt in asked[6:]),
        answers=tuple(prompt.object for prompt in asked[:6]),
    )


def readout(word):
    words = [Word(text, number, 3.0 - number) for number, text in enumerate((word, " Tokyo", "\n"))]
    return Readout(label=f"r: {word}, logit lens", top=tuple(words), bottom=tuple(words[::-1]))


def prompt_lens(word, tokens):
    words = tuple(tuple((f"{token}{layer}", word) for token in tokens) for layer in range(2))
    shape = 2, len(tokens), 2
    return PromptLens(
        label=f"attribute lens of {word!r} (0 to 1)",
        tokens=tokens,
        layers=(0, 1),
        words=words,
        ids=torch.arange(4 * len(tokens)).reshape(shape),
        probabilities=torch.linspace(0, 1, 4 * len(tokens)).reshape(shape),
        special=(0,),
    )


def shown_objects(word="Japan"):
    """By name. `word` stands in every text that may come from outside."""
    plain = word.replace("\u202e", "")  # what names of directions may hold
    tokens = ("<bos>", "She", " flew", " from", " Osaka", "\n", "  to", word, "\t", ".")
    names = (plain, "France", "Italy", "Peru", "Chad")
    pairs = {f"{n} {plain}": names[n % 5] for n in range(25)}
    scores = torch.linspace(-20, 30, 10)
    return {
        "ConceptDirection": concept_set(names)[plain],
        "ConceptSet": concept_set(names),
        "Ranking": lrc.directions.Ranking([(word, 20.5), ("France", 3.25), ("Peru", -7.75)]),
        "TokenScores": TokenScores(label=f"r: {word}", tokens=tokens, scores=scores, special=(0,)),
        "ConceptScores": ConceptScores(
            label="city in country at blocks.7.hook_resid_post",
            tokens=tokens,
            concepts=names,
            scores=scores[:, None] * torch.tensor([1.0, -0.5, 0.25, 0.1, 0.0]),
            special=(0,),
        ),
        "Readout": readout(word),
        "PromptLens": prompt_lens(word, tokens),
        "LinearRelationalEmbedding": lre(word),
        "KnownPrompts": known(word),
        "Relation": lrc.Relation.from_pairs("city in country", pairs, templates=["{} is a city in", "In {}:"]),
        "Settings": settings(),
        "Evaluation": evaluation(names),
        "CausalityResult": causality_result(),
        "StrengthCalibration": strength_calibration(),
        "Generated": generated(word),
        "Continuations": lrc.steering.Continuations([generated(word), generated("France")]),
        "SubjectStatistics": statistics(word),
        "ModelFingerprint": FINGERPRINT,
        "ProtocolResult": RESULT,
        "SweepResult": made_up_result((word, "r1")),
        "SweepComparison": made_up_result((word, "r1")).compare({"method": "lrc", "rank": 2}, "svm"),
    }
