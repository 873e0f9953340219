"""One bar: for those who look at a terminal, never for a file, never when it is not wanted, gone afterwards."""

import contextlib
import inspect
import io
import re
import threading

import pytest
import torch
from public_names import public_function, taking_a_model
from tiny_models import D_MODEL

import lrc_tl as lrc
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.markup.terminal import shown_as

HOOK = "blocks.1.hook_resid_post"
PROMPTS = [
    lrc.Prompt(text=f"w{number + 10} w3 w41", subject=f"w{number + 10}", object=f"w{5 + number % 2}")
    for number in range(4)
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    """What a job writes to the error stream, where that is a terminal or not."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def run(job, *, terminal):
        stream = Terminal() if terminal else io.StringIO()
        with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(io.StringIO()) as out:
            job()
        assert out.getvalue() == ""
        return stream.getvalue()

    return run


def concepts():
    generator = torch.Generator().manual_seed(0)
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                torch.randn(D_MODEL, generator=generator, dtype=torch.float64), relation="r", object_name=name,
                hook_name=HOOK,
            )
            for name in ("w5", "w6")
        }
    )  # fmt: skip


TEXTS = ["w1 w2 w3", "w4 w5 w6 w7"]
EXEMPT = {
    "ConceptDirection.read": "one pass over one text",
    "ConceptDirection.readout": "one product with the unembedding",
    "ConceptDirection.steer": "runs nothing",
    "ConceptSet.classify": "one pass over one text",
    "ConceptSet.from_hub": "huggingface_hub shows its own bar",
    "ConceptSet.load": "one pass over one text, for the fingerprint",
    "ConceptSet.read": "one pass over one text",
    "ConceptSet.swap": "runs nothing",
    "ConceptSet.swap_steering": "runs nothing",
    "LinearRelationalEmbedding.load": "one pass over one text, for the fingerprint",
    "ModelFingerprint.of": "one pass over one text",
    "SearchSpace.layers": "runs nothing",
    "Steering.hook_names": "runs nothing",
    "Steering.hooks": "runs nothing",
    "Steering.on": "runs nothing",
    "SubjectStatistics.load": "one pass over one text, for the fingerprint",
    "SweepResult.of": "runs nothing",
    "at_subject": "runs nothing",
    "chat_prompt": "runs nothing",
    "chat_text": "runs nothing",
    "explore": "a widget, which shows what it is doing",
    "fit_cost": "runs nothing",
    "next_token_metric": "at most 64 residuals, seconds",
    "free_text_edits": "runs nothing",
    "hook_name": "runs nothing",
    "last_subject_token": "runs nothing",
    "plan_sweep": "runs nothing",
    "random_weights": "makes a block; it draws once when it is entered",
    "readout": "one product with the unembedding",
    "require_hook": "runs nothing",
    "steer": "runs nothing",
    "subject_object_jacobian": "one prompt in one reverse pass, which nothing counts; a fit counts its prompts",
    "subject_object_jacobians": "one prompt in one reverse pass, which nothing counts; a fit counts its prompts",
    "swap_at_subject": "runs nothing",
    "target_beats_object": "one edit; calibrate_strength counts edits",
    "token_mask": "runs nothing",
    "tokenize_prompt": "runs nothing",
}
"""Public entry points that take a model and no `progress`, with the reason; `require_model` compares fingerprints
alone."""


def test_every_public_entry_point_that_takes_a_model_takes_progress_or_has_a_reason_not_to():
    taking = {path for path in taking_a_model() if not path.endswith(".require_model")}
    functions = {path: public_function(path) for path in taking}
    without = {path for path, one in functions.items() if "progress" not in inspect.signature(one).parameters}
    assert without == set(EXEMPT)
    for path in taking - without:
        parameter = inspect.signature(functions[path]).parameters["progress"]
        assert (parameter.default, parameter.kind) == (True, inspect.Parameter.KEYWORD_ONLY), path


def jobs(model):
    edits = lrc.evaluation.counterfactual_edits(PROMPTS)
    differences = torch.eye(D_MODEL)[[0] * len(edits)]
    fits = {"subject_layer": 0, "object_layer": 2}
    low_rank = {"solver": lrc.LowRank(rank=2, oversample=0, power_iterations=0)}
    fit, swap = lrc.LinearRelationalEmbedding.fit, lrc.swap_at_subject(model, concepts())
    pairs = lrc.evaluation.unrelated_statements(edits, PROMPTS, n=3)
    limits = lrc.Limits(repetition=None)
    made, to_last = concepts(), fit(model, PROMPTS, subject_layer=0, object_layer=-1,
                                    object_aggregation="first_token", progress=False)  # fmt: skip
    return {
        "prompt_activations": lambda **o: lrc.passes.prompt_activations(model, PROMPTS, subject_layers=[0], **o),
        "subject_activations": lambda **o: lrc.subject_activations(model, PROMPTS, layer=0, **o),
        "object_activations": lambda **o: lrc.passes.object_activations(model, PROMPTS, layer=0, **o),
        "content_activations": lambda **o: lrc.passes.content_activations(model, TEXTS, layer=0, **o),
        "contrast_concepts": lambda **o: lrc.contrast_concepts(
            model, positive=["w1 w2", "w3 w2"], negative=["w1 w9", "w3 w9"], layer=0, **o
        ),
        "fit_baselines": lambda **o: lrc.fit_baselines(model, PROMPTS, layer=0, **o),
        "mean_concepts": lambda **o: lrc.mean_concepts(model, PROMPTS, layer=0, **o),
        "LinearRelationalEmbedding.concepts": lambda **o: to_last.concepts(model, PROMPTS, rank=2, **o),
        "read_texts": lambda **o: made.read_texts(model, TEXTS, **o),
        "ConceptSet.pool_texts": lambda **o: made.pool_texts(model, TEXTS, by="mean", **o),
        "ConceptDirection.pool_texts": lambda **o: made["w5"].pool_texts(model, TEXTS, by="mean", **o),
        "logit_lens": lambda **o: lrc.directions.logit_lens(model, TEXTS[0], **o),
        "attribute_lens": lambda **o: lrc.lre.attribute_lens(model, to_last, TEXTS[0], **o),
        "generate": lambda **o: lrc.generate(model, TEXTS, max_new_tokens=2, unsteered=True, **o),
        "lre_faithfulness": lambda **o: lrc.evaluation.lre_faithfulness(model, to_last, PROMPTS, **o),
        "lre_causality": lambda **o: lrc.evaluation.lre_causality(model, to_last, edits, PROMPTS, rank=2, **o),
        "selectivity": lambda **o: lrc.evaluation.selectivity(
            model, PROMPTS, PROMPTS, lambda model, prompts: lrc.mean_concepts(model, prompts, layer=0), **o
        ),
        "filter_known": lambda **o: lrc.filter_known(model, PROMPTS, **o),
        "fit": lambda **o: fit(model, PROMPTS, **fits, **o),
        "low rank fit": lambda **o: fit(model, PROMPTS, **fits, **low_rank, **o),
        "fit_layer_grid": lambda **o: lrc.fit_layer_grid(
            model, PROMPTS, subject_layers=[0, 1], object_layers=[2], solver=lrc.LowRank(rank=1, oversample=1), **o
        ),
        "fit_concepts": lambda **o: lrc.fit_concepts(model, PROMPTS, **fits, **o),
        "evaluate": lambda **o: lrc.evaluate(model, concepts(), PROMPTS, elsewhere=PROMPTS[:1], **o),
        "causality_curve": lambda **o: lrc.evaluation.causality_curve(model, edits, differences, betas=[0.1], **o),
        "side_effects": lambda **o: lrc.evaluation.side_effects(model, pairs, {"": differences}, betas=[0.1], **o),
        "calibrate_strength": lambda **o: lrc.calibrate_strength(
            model, swap, edits[:2], neutral_texts=["w1 w2 w3 w4 w5"], limits=limits, refinements=1, **o
        ),
    }


def test_everything_that_takes_long_shows_one_bar_on_a_terminal_and_is_silent_elsewhere(one_word_model, shown):
    for name, job in jobs(one_word_model).items():
        with_bar = shown(job, terminal=True)
        assert re.search(r"\d/\d", with_bar), name
        # Erased at the end: back to the line's start, and the line cleared.
        assert with_bar.rstrip().endswith("\x1b[2K"), name
        assert shown(job, terminal=False) == "", name
        assert shown(lambda job=job: job(progress=False), terminal=True) == "", name


def test_the_outermost_bar_decides_for_all_inside_its_block(one_word_model, shown):
    def inside(progress):
        with ProgressBar("outer", total=1, progress=progress):
            lrc.subject_activations(one_word_model, PROMPTS, layer=0)

    alone = shown(lambda: lrc.subject_activations(one_word_model, PROMPTS, layer=0), terminal=True)
    assert "activations" in alone
    text = shown(lambda: inside(True), terminal=True)
    assert "outer" in text
    assert "activations" not in text
    assert shown(lambda: inside(False), terminal=True) == ""
    assert "activations" in shown(lambda: lrc.subject_activations(one_word_model, PROMPTS, layer=0), terminal=True)


def test_other_threads_and_quiet_commands_show_no_bar(one_word_model, shown):
    def job():
        lrc.subject_activations(one_word_model, PROMPTS, layer=0)

    def in_a_thread():
        thread = threading.Thread(target=job)
        thread.start()
        thread.join(timeout=60)
        assert not thread.is_alive()

    def quietly():
        with shown_as(quiet=True):
            job()

    assert shown(in_a_thread, terminal=True) == ""
    assert shown(quietly, terminal=True) == ""


def test_a_fit_in_many_passes_has_one_bar_that_starts_again(one_word_model, shown):
    def fit():
        lrc.LinearRelationalEmbedding.fit(
            one_word_model, PROMPTS, subject_layer=0, object_layer=2,
            solver=lrc.LowRank(rank=1, oversample=0, power_iterations=0, min_cosine=0.9),
        )  # fmt: skip

    text = shown(fit, terminal=True)
    assert "pass 1: forward products" in text
    assert text.count("\n") <= 1
    assert shown(fit, terminal=False) == ""


def test_nothing_is_left_behind_after_an_error(shown):
    def job():
        with contextlib.suppress(KeyError), ProgressBar("job", total=3) as bar:
            bar.advance()
            raise KeyError

    text = shown(job, terminal=True)
    assert "1/3" in text
    assert text.rstrip().endswith("\x1b[2K")


def test_items_come_as_they_are_and_one_at_a_time():
    taken = []

    def items():
        for number in range(5):
            taken.append(number)
            yield number

    with ProgressBar("five", progress=False) as bar:
        through = bar.over(items(), total=5)
        assert next(through) == 0
        assert taken == [0]
        assert list(through) == [1, 2, 3, 4]


def test_a_bar_is_gone_when_a_job_fails_in_the_middle_of_its_items(one_word_model, shown, monkeypatch):
    """At once, not when the traceback is thrown away."""
    kept = []

    def job():
        monkeypatch.setattr("lrc_tl.evaluation.causality.wide_of", lambda logits: 1 / 0)
        edits = lrc.evaluation.counterfactual_edits(PROMPTS)
        differences = torch.eye(D_MODEL)[[0] * len(edits)]
        with pytest.raises(ZeroDivisionError) as caught:
            lrc.evaluation.causality_curve(one_word_model, edits, differences, betas=[0.1])
        kept.append(caught)

    assert shown(job, terminal=True).rstrip().endswith("\x1b[2K")
    for thread in threading.enumerate():
        if "Refresh" in type(thread).__name__:
            thread.join(timeout=60)
            assert not thread.is_alive()
