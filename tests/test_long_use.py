"""Many generations and fits in one process: memory flat, nothing left behind, the user's own state as it was."""

import gc
import subprocess
import sys
import warnings

import pytest
import torch
from left_behind import left_on
from long_use import Measured, open_files, run_long_use
from test_activations import random_prompts

import lrc_tl as lrc
from lrc_tl.models.hooked_model import hooked_transformer


def test_fifty_generations_and_ten_fits_leave_memory_and_files_as_they_were(word_model, tmp_path):
    before = left_on(word_model)
    measured = run_long_use(word_model, random_prompts(6, seed=5), n_generations=50, n_fits=10, folder=tmp_path)
    assert isinstance(measured, Measured)
    assert left_on(word_model) == before
    assert measured.files_after <= measured.files_before
    assert list(tmp_path.iterdir()) == []
    # Of what was alive after the first tenth; torch and Python keep a little for themselves.
    assert measured.tensors_after <= measured.tensors_before
    assert measured.traced_growth_bytes < 300_000


def test_what_a_user_has_set_is_as_it_was_after_everything(word_model):
    prompts = random_prompts(4, seed=5)
    seen = []
    own = word_model.hook_dict["blocks.1.hook_resid_post"].register_forward_hook(lambda *given: seen.append(1))
    state = torch.get_rng_state()
    default, threads, gradients = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    dtypes = [weight.dtype for weight in word_model.parameters()]
    weights = [weight.clone() for weight in word_model.parameters()]
    flags = [weight.requires_grad for weight in word_model.parameters()]
    modes = [module.training for module in word_model.modules()]
    side = word_model.tokenizer.padding_side
    filters = list(warnings.filters)
    try:
        for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with mode():
                inside = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
                lre = lrc.LinearRelationalEmbedding.fit(
                    word_model, prompts, subject_layer=0, object_layer=2, progress=False
                )
                concepts = lre.concepts(word_model, prompts, rank=3)
                direction = next(iter(concepts.values()))
                lrc.filter_known(word_model, prompts, progress=False)
                lrc.generate(
                    word_model, "w1 w2", steering=direction, strengths=[0.1], temperature=1.0, n_samples=2, seed=1
                )
                with direction.steer(word_model, 0.1):
                    word_model.generate("w1 w2", max_new_tokens=2, do_sample=False, verbose=False)
                assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == inside
    finally:
        own.remove()
    assert seen  # the user's hook ran, and was there until the user took it off
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()) == (
        default, threads, gradients,
    )  # fmt: skip
    assert [weight.dtype for weight in word_model.parameters()] == dtypes
    assert all(torch.equal(now, before) for now, before in zip(word_model.parameters(), weights, strict=True))
    assert [weight.requires_grad for weight in word_model.parameters()] == flags
    assert [module.training for module in word_model.modules()] == modes
    assert word_model.tokenizer.padding_side == side
    assert list(warnings.filters) == filters


LOADED = """
import sys
from transformer_lens import HookedTransformer
theirs = set(sys.modules)
import lrc_tl as lrc
lrc.LinearRelationalEmbedding, lrc.ConceptSet, lrc.load_relation, lrc.load_model, lrc.filter_known, lrc.generate
print("\\n".join(sorted({name.split(".")[0] for name in set(sys.modules) - theirs})))
"""
HEAVY = {
    "matplotlib", "plotly", "dask", "distributed", "pyarrow", "IPython", "ipywidgets", "anywidget", "gguf",
    "concept_erasure", "sklearn",
}  # fmt: skip


@pytest.mark.skipif(hooked_transformer() is None, reason="compares with what HookedTransformer loads")
def test_the_main_job_loads_no_library_of_plots_sweeps_or_notebooks_beyond_transformer_lens():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADED], capture_output=True, text=True, check=True, timeout=300
    )
    loaded = set(done.stdout.split())
    assert "lrc_tl" in loaded
    assert not loaded & HEAVY


def test_open_files_are_counted(tmp_path):
    gc.collect()
    before = open_files()
    with (tmp_path / "a").open("w"):
        assert open_files() == before + 1
    assert open_files() == before
