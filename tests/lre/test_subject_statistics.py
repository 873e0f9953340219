"""Statistics of subjects: what is counted, what is taken out, what is refused, what a file and the cache give."""

import dataclasses

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.lre.statistics_cache import cached_statistics, statistics_folder
from lrc_tl.lre.subject_statistics import LayerStatistics, SubjectStatistics

LAYERS = (0, 1, 2)


def prompts_of(subjects, templates=("w1 w2 {} w3", "w4 {} w5 w6")):
    return [
        lrc.Prompt(text=template.replace("{}", subject), subject=subject, object="w9", relation="r")
        for subject in subjects
        for template in templates
    ]


SUBJECTS = tuple(f"w{number}" for number in range(10, 40))


@pytest.fixture(scope="module")
def prompts():
    return prompts_of(SUBJECTS)


@pytest.fixture(scope="module")
def statistics(word_model, prompts):
    return SubjectStatistics.fit(word_model, background=prompts)


def test_each_prompt_gives_the_residual_at_its_last_subject_token(word_model, prompts, statistics):
    assert statistics.layers == LAYERS
    for layer in LAYERS:
        expected = torch.stack(
            [lrc.subject_activations(word_model, [prompt], layer=layer)[0].cpu() for prompt in prompts]
        )
        torch.testing.assert_close(statistics[layer].samples, expected, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(statistics[layer].mean, expected.double().mean(0), rtol=1e-5, atol=1e-4)
    assert statistics[1].n_samples == 60
    assert statistics[1].n_sources == 30
    assert [statistics.sources[number] for number in statistics[0].source_of] == [p.subject for p in prompts]


def test_the_covariance_is_that_of_the_samples_shrunk_by_ledoit_and_wolf(statistics):
    from reference.wiener import ledoit_wolf

    expected, shrinkage = ledoit_wolf(statistics[2].samples.double().numpy())
    assert statistics[2].shrinkage == pytest.approx(shrinkage, rel=1e-8)
    torch.testing.assert_close(statistics[2].covariance.dense(), torch.from_numpy(expected), rtol=1e-8, atol=1e-10)


def test_texts_that_are_equal_up_to_the_subject_are_run_once(word_model, monkeypatch):
    from lrc_tl.lre import background

    templates = ("w1 {} w2 w3", "w1 {} w4", "w5 {}", "w1 {} w2 w9")
    prompts = prompts_of(SUBJECTS, templates)
    asked = []
    really = background.residuals_at_positions

    def counted(model, sequences, layers, *, ran):
        asked.extend(sequences)
        return really(model, sequences, layers, ran=ran)

    monkeypatch.setattr(background, "residuals_at_positions", counted)
    statistics = SubjectStatistics.fit(word_model, layers=[2], background=prompts)
    assert len(asked) == len(set(asked)) == 2 * len(SUBJECTS)
    samples = statistics[2].samples
    assert torch.equal(samples[0::4], samples[1::4])
    assert torch.equal(samples[0::4], samples[3::4])
    expected = torch.cat([lrc.subject_activations(word_model, [prompt], layer=2) for prompt in prompts[:12]])
    torch.testing.assert_close(samples[:12], expected.cpu(), rtol=1e-5, atol=1e-4)


def test_under_steering_from_the_end_of_the_text_prompts_keep_their_ends(word_model, prompts):
    direction = lrc.ConceptDirection.from_unscaled(
        torch.ones(12), relation="r", object_name="o", hook_name="blocks.0.hook_resid_post"
    )
    with direction.steer(word_model, strength=0.5, where=-2):
        statistics = SubjectStatistics.fit(word_model, layers=[1], background=prompts)
        expected = torch.cat([lrc.subject_activations(word_model, [prompt], layer=1) for prompt in prompts[:6]])
    torch.testing.assert_close(statistics[1].samples[:6], expected.cpu(), rtol=1e-5, atol=1e-4)


def test_plain_texts_give_every_token_but_special_ones(word_model):
    texts = [f"w1 w2 w{number} w3 w4 w{number + 1} <eos> w7" for number in range(10, 20)]
    statistics = SubjectStatistics.fit(word_model, layers=[1], background=texts)
    _, cache = word_model.run_with_cache(texts[3], return_type=None)
    residual = cache["blocks.1.hook_resid_post"][0]
    rows = statistics[1].samples[statistics[1].source_of == 3]
    assert statistics[1].n_samples == 70
    torch.testing.assert_close(rows, residual[[1, 2, 3, 4, 5, 6, 8]].cpu(), rtol=1e-5, atol=1e-5)


def test_without_subjects_is_what_a_fit_without_them_gives(word_model, prompts, statistics):
    removed = ("w10", "W33 ", "w12", "not there")
    less = statistics.without(removed)
    refitted = SubjectStatistics.fit(
        word_model, background=[p for p in prompts if p.subject not in ("w10", "w33", "w12")]
    )
    assert less.sources == refitted.sources
    assert "w33" in statistics.sources
    for layer in LAYERS:
        assert less[layer].n_samples == 54
        assert torch.equal(less[layer].source_of, refitted[layer].source_of)
        torch.testing.assert_close(less[layer].mean, refitted[layer].mean, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(
            less[layer].covariance.dense(), refitted[layer].covariance.dense(), rtol=1e-5, atol=1e-6
        )


def test_statistics_that_hold_none_of_the_subjects_stay_as_they_are(statistics):
    assert statistics.without(["w1", "nobody"]) is statistics


def test_texts_that_name_a_subject_are_taken_out_whole(word_model):
    texts = [f"w1 w2 w{number} w3 w4 w5" for number in range(10, 25)]
    less = SubjectStatistics.fit(word_model, layers=[0], background=texts).without(["w12", "w4 w5 w6"])
    assert less.sources == tuple(text for text in texts if "w12" not in text)


def test_layers_may_count_from_the_end(word_model, prompts):
    assert SubjectStatistics.fit(word_model, layers=[-1, 0], background=prompts).layers == (0, 2)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"background": []}, ValueError, "the background is empty"),
        ({"background": ["w1 w2", " "]}, ValueError, r"background\[1\] is an empty text"),
        ({"background": "w1 w2"}, TypeError, "background is one string"),
        ({"background": [3]}, TypeError, r"background\[0\] is 3"),
        ({"background": ["w1 w2 w3"]}, ValueError, "3 background samples at layer 0; a covariance needs 50"),
        ({"layers": []}, ValueError, "no layers to fit statistics at"),
        ({"layers": [1, -2]}, ValueError, "name a layer twice"),
        ({"layers": [7]}, ValueError, "layer 7"),
    ],
)
def test_what_gives_no_statistics_is_refused(word_model, prompts, options, error, text):
    with pytest.raises(error, match=text):
        SubjectStatistics.fit(word_model, **{"background": prompts, **options})


def test_prompts_and_texts_together_are_refused(word_model, prompts):
    with pytest.raises(TypeError, match="the background mixes prompts and plain texts"):
        SubjectStatistics.fit(word_model, background=[*prompts, "w1"])


def test_too_few_samples_after_taking_subjects_out_are_refused(statistics):
    with pytest.raises(ValueError, match="40 background samples"):
        statistics.without(SUBJECTS[:10])


def test_a_layer_without_statistics_is_named_with_those_that_there_are(word_model, prompts):
    statistics = SubjectStatistics.fit(word_model, layers=[1], background=prompts)
    with pytest.raises(KeyError, match=r"no statistics of layer 2, but of \[1\]"):
        statistics[2]


def test_layers_of_different_samples_do_not_make_statistics(statistics):
    less = statistics.without(["w10"])
    with pytest.raises(ValueError, match="the layers 0 and 1 are of other samples or models"):
        SubjectStatistics([statistics[0], less[1]])
    with pytest.raises(ValueError, match="layer 0 was given twice"):
        SubjectStatistics([statistics[0], statistics[0]])
    with pytest.raises(ValueError, match="at least one layer"):
        SubjectStatistics([])


def test_samples_that_do_not_vary_are_refused(statistics):
    layer = statistics[0]
    with pytest.raises(ValueError, match="all 60 background samples at layer 0 are equal"):
        dataclasses.replace(layer, samples=layer.samples[:1].expand(60, -1))


def test_a_file_gives_back_the_samples_bit_for_bit(word_model, statistics, tmp_path):
    path = tmp_path / "statistics.safetensors"
    statistics.save(path)
    loaded = SubjectStatistics.load(path, model=word_model)
    assert loaded.layers == statistics.layers
    assert loaded.sources == statistics.sources
    for layer in LAYERS:
        assert torch.equal(loaded[layer].samples, statistics[layer].samples)
        assert torch.equal(loaded[layer].source_of, statistics[layer].source_of)
        assert loaded[layer].fingerprint == statistics[layer].fingerprint


def test_statistics_of_another_model_are_refused(word_model, statistics, tmp_path):
    path = tmp_path / "statistics.safetensors"
    other = dataclasses.replace(statistics.fingerprint, d_model=99)
    SubjectStatistics(dataclasses.replace(layer, fingerprint=other) for layer in statistics.values()).save(path)
    with pytest.raises(lrc.errors.FingerprintMismatch, match="d_model 99"):
        SubjectStatistics.load(path, model=word_model)


def test_a_file_of_another_kind_is_no_statistics(word_model, tmp_path):
    path = tmp_path / "lre.safetensors"
    lrc.LinearRelationalEmbedding.fit(
        word_model, prompts_of(["w10", "w11"]), subject_layer=0, object_layer=2, progress=False
    ).save(path)
    with pytest.raises(lrc.errors.ArtifactError, match="holds 'lre', not 'subject_statistics'"):
        SubjectStatistics.load(path)


class TestTheCache:
    @pytest.fixture(autouse=True)
    def folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("LRC_TL_CACHE", str(tmp_path))

    @staticmethod
    def passes(model, monkeypatch):
        """Numbers of layers that were read in passes from now on."""
        from lrc_tl.lre import statistics_cache

        asked = []
        really = statistics_cache.layer_statistics

        def counted(model, prompts, layers, *, progress):
            asked.append(tuple(layers))
            return really(model, prompts, layers, progress=progress)

        monkeypatch.setattr(statistics_cache, "layer_statistics", counted)
        return asked

    def test_only_layers_that_are_not_kept_are_read_again(self, word_model, prompts, statistics, monkeypatch):
        asked = self.passes(word_model, monkeypatch)
        cached_statistics(word_model, prompts, [1], progress=False)
        again = SubjectStatistics(cached_statistics(word_model, prompts, [0, 1, 2], progress=False))
        cached_statistics(word_model, prompts, [2, 0], progress=False)
        assert asked == [(1,), (0, 2)]
        for layer in LAYERS:
            torch.testing.assert_close(again[layer].samples, statistics[layer].samples, rtol=1e-6, atol=1e-7)

    def test_another_background_is_not_taken_from_it(self, word_model, prompts, monkeypatch):
        asked = self.passes(word_model, monkeypatch)
        cached_statistics(word_model, prompts, [1], progress=False)
        cached_statistics(word_model, prompts[:-1], [1], progress=False)
        assert asked == [(1,), (1,)]

    def test_a_damaged_file_is_said_and_made_anew(self, word_model, prompts, monkeypatch, capfd):
        asked = self.passes(word_model, monkeypatch)
        (kept,) = cached_statistics(word_model, prompts, [1], progress=False)
        path = statistics_folder(kept.fingerprint, prompts) / "layer-1.safetensors"
        path.write_bytes(path.read_bytes()[:-8])
        (anew,) = cached_statistics(word_model, prompts, [1], progress=False)
        assert "the statistics are made anew" in capfd.readouterr().err
        assert torch.equal(anew.samples, kept.samples)
        assert asked == [(1,), (1,)]
        assert SubjectStatistics.load(path).layers == (1,)

    def test_another_model_of_the_same_name_is_said_and_read_anew(self, word_model, prompts, capfd):
        (kept,) = cached_statistics(word_model, prompts, [1], progress=False)
        path = statistics_folder(kept.fingerprint, prompts) / "layer-1.safetensors"
        behaviour = {
            layer: [2 * number for number in numbers] for layer, numbers in kept.fingerprint.behaviour.items()
        }
        other = dataclasses.replace(kept.fingerprint, behaviour=behaviour)
        SubjectStatistics([dataclasses.replace(kept, fingerprint=other, samples=2 * kept.samples)]).save(path)
        (anew,) = cached_statistics(word_model, prompts, [1], progress=False)
        assert "of another model with the same name" in capfd.readouterr().err
        assert torch.equal(anew.samples, kept.samples)

    def test_under_steering_nothing_is_kept_or_taken(self, word_model, prompts, monkeypatch):
        (plain,) = cached_statistics(word_model, prompts, [1], progress=False)
        direction = lrc.ConceptDirection.from_unscaled(
            torch.ones(12), relation="r", object_name="o", hook_name="blocks.0.hook_resid_post"
        )
        with direction.steer(word_model, strength=0.5):
            (steered,) = cached_statistics(word_model, prompts, [1], progress=False)
        (again,) = cached_statistics(word_model, prompts, [1], progress=False)
        assert not torch.allclose(steered.samples, plain.samples)
        assert torch.equal(again.samples, plain.samples)


def test_layer_statistics_say_what_they_hold(statistics):
    assert repr(statistics[1]) == "LayerStatistics(layer 1: 60 samples of 30 subjects, width 12)"
    assert "60 samples of 30 subjects at the layers [0, 1, 2]" in repr(statistics)
    assert isinstance(statistics[1], LayerStatistics)
