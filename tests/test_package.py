"""The package's public names, which are loaded on first use."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from public_names import TOP, WINGS, public_objects

import lrc_tl as lrc
from lrc_tl.storage.own_version import own_version

STUB = Path(lrc.__file__).with_suffix(".pyi")
NAMES = [
    "ConceptDirection",
    "ConceptSet",
    "ExperimentSettings",
    "FitSettings",
    "Limits",
    "LinearRelationalEmbedding",
    "LowRank",
    "Prompt",
    "ProtocolResult",
    "Relation",
    "Schedule",
    "SearchSpace",
    "Steering",
    "SubjectStatistics",
    "SweepResult",
    "SweepSettings",
    "built_in_relations",
    "calibrate_strength",
    "combine_concepts",
    "contrast_concepts",
    "edits_towards",
    "evaluate",
    "explore",
    "filter_known",
    "find_relation",
    "fit_baselines",
    "fit_concepts",
    "fit_erasure",
    "fit_layer_grid",
    "free_text_edits",
    "generate",
    "known_statements",
    "last_subject_token",
    "load_model",
    "load_relation",
    "load_relations",
    "mean_concepts",
    "plan_sweep",
    "run_protocol",
    "run_sweep",
    "select_settings",
    "steer",
    "subject_activations",
    "swap_at_subject",
    "write_control_vector",
]


def test_the_names_at_the_top_are_these_and_at_most_45():
    assert sorted(TOP) == sorted(NAMES)
    assert len(TOP) <= 45


def test_the_stub_is_the_list_of_names():
    imports = [
        node for node in ast.parse(STUB.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)
    ]
    assert sorted(alias.asname for node in imports for alias in node.names) == sorted(dir(lrc))


@pytest.mark.parametrize("name", [*WINGS, *public_objects()])
def test_every_public_name_can_be_reached_and_says_what_it_is(name):
    value = getattr(lrc, name) if name in WINGS else public_objects()[name]
    assert value is not None
    if inspect.ismodule(value) or inspect.isfunction(value) or inspect.isclass(value):
        assert value.__doc__


def test_the_version_is_that_of_the_installed_package():
    assert lrc.__version__ == own_version()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(
        AttributeError, match=r"lrc_tl.*has no attribute.*relation_prompt|No lrc_tl attribute relation_prompt"
    ):
        lrc.relation_prompt  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    ["import lrc_tl; lrc_tl.__version__", "import lrc_tl; lrc_tl.load_relation('animal_class').prompts()"],
)
def test_relations_and_prompts_need_no_torch(statement):
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
