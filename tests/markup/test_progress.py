"""One bar: for those who look at a terminal, never for a file, never when it is not wanted, gone afterwards."""

import contextlib
import inspect
import io
import re
import threading

import pytest
import torch
from public_names import public_objects
from tiny_models import D_MODEL

import lrc_tl as lrc
from lrc_tl.markup.progress import ProgressBar

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


def jobs(model):
    edits = lrc.evaluation.counterfactual_edits(PROMPTS)
    differences = torch.eye(D_MODEL)[[0] * len(edits)]
    fits = {"subject_layer": 0, "object_layer": 2}
    low_rank = {"solver": lrc.LowRank(rank=2, oversample=0, power_iterations=0)}
    fit, swap = lrc.LinearRelationalEmbedding.fit, lrc.swap_at_subject(model, concepts())
    pairs = lrc.evaluation.unrelated_statements(edits, PROMPTS, n=3)
    limits = lrc.Limits(repetition=None)
    return {
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


def test_every_public_function_that_takes_progress_takes_it_alike():
    functions = {name: value for name, value in public_objects().items() if inspect.isfunction(value)}
    functions["fit"] = lrc.LinearRelationalEmbedding.fit
    parameters = {
        name: inspect.signature(function).parameters["progress"]
        for name, function in functions.items()
        if "progress" in inspect.signature(function).parameters
    }
    assert {"filter_known", "evaluate", "calibrate_strength", "select_settings", "run_protocol"} < set(parameters)
    for name, parameter in parameters.items():
        assert (parameter.default, parameter.kind) == (True, inspect.Parameter.KEYWORD_ONLY), name


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
