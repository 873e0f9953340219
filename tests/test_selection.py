"""Settings are chosen on training facts alone, and the choice is the best of what was tried."""

import pytest
import tiny_models

import lrc_tl as lrc


@pytest.fixture
def relation(word_model):
    return tiny_models.relation_known_by(word_model)


def test_the_choice_is_the_best_row_and_beta_of_what_was_tried(word_model, relation):
    settings = lrc.select_settings(
        word_model, relation, subject_layers=[0, 1], object_layers=[1, -1], ranks=[2, 4, 400], betas=[0.4, 0.1],
        shots=0, n_prompts=3, progress=False,
    )  # fmt: skip
    assert len(settings.tried) == 3 * 3  # not from layer 1 to itself
    assert set(settings.tried["rank"]) == {2, 4, 12}  # 400 is cut to the numerical rank
    means = settings.tried.groupby(["subject_layer", "object_layer"]).accuracy.mean()
    assert means[settings.subject_layer, settings.object_layer] == means.max()
    tried = settings.tried_edits
    assert sorted(zip(tried["rank"], tried.beta, strict=True)) == [(r, b) for r in (2, 4, 12) for b in (0.1, 0.4)]
    assert settings.accuracy + settings.causality == (tried.accuracy + tried.causality).max()
    chosen = tried[(tried["rank"] == settings.rank) & (tried.beta == settings.beta)].iloc[0]
    assert (chosen.accuracy, chosen.causality) == (settings.accuracy, settings.causality)
    assert settings.validation_shots == 0
    again = lrc.select_settings(
        word_model, relation, subject_layers=[0, 1], object_layers=[1, -1], ranks=[2, 4, 400], betas=[0.4, 0.1],
        shots=0, n_prompts=3, progress=False,
    )  # fmt: skip
    assert again.to_dict() == settings.to_dict()


def test_too_few_known_facts_are_refused(word_model):
    pairs = [(f"w{n}", f"w{n % 2 + 20} w1 w2 w3") for n in range(12)]
    unknown = lrc.Relation.from_pairs("unknown", pairs, templates=["{} w7"])
    with pytest.raises(ValueError, match="no known prompts"):
        lrc.select_settings(word_model, unknown, shots=0, progress=False)


def test_layers_without_a_pair_are_refused(word_model, relation):
    with pytest.raises(ValueError, match=r"no object layer of \[1\] lies above a subject layer of \[1\]"):
        lrc.select_settings(
            word_model, relation, subject_layers=[1], object_layers=[1], shots=0, n_prompts=2, progress=False
        )


def test_default_layers_lie_inside_any_model(word_model):
    from lrc_tl.selection import default_layers

    subject, object_ = default_layers(word_model)
    assert 0 <= min(subject) <= max(subject) < min(object_) <= max(object_) <= 2
