from contextlib import contextmanager
from types import SimpleNamespace

import pytest

import lrc_tl as lrc


@pytest.fixture
def calls(monkeypatch):
    """The library with its model layer replaced; every call that would use a model is recorded."""
    made = {}

    class Direction:
        @contextmanager
        def steer(self, model, **options):
            made["steer"] = options
            model.steered = True
            yield
            model.steered = False

    class Concepts(dict):
        hook_name = "blocks.2.hook_resid_post"

        def save(self, path):
            path.write_text("saved")

        @classmethod
        def load(cls, path):
            made["load"] = path.read_text(), "load_model" in made
            return cls({"woof": Direction(), "meow": Direction()})

        def require_model(self, model):
            made["require_model"] = model

        def classify(self, model, text, *, subject):
            made["classify"] = text, subject
            return [("meow", 2.5), ("woof", -1.0)]

    class Embedding:
        @classmethod
        def fit(cls, model, prompts, **options):
            made["fit"] = prompts, options
            return cls()

        def concepts(self, model, prompts, *, rank, ridge):
            made["concepts"] = prompts, rank, ridge
            return Concepts.load(saved)

    class Model:
        steered = False
        cfg = SimpleNamespace(n_layers=6, d_model=8)

        def parameters(self):
            return iter(())

        named_parameters = parameters

        def generate(self, text, **options):
            made["generate"] = options
            return f"{text} {'loud' if self.steered else 'plain'} [b]"

    model = Model()

    def filter_known(model, prompts):
        made["filter_known"] = prompts
        dropped = (SimpleNamespace(prompt=prompts[0], answer="moo", reason="wanted 'woof', the model said 'moo'"),)

        def sample(n, *, seed):
            made["sample"] = n, seed
            return prompts[1:2]

        return SimpleNamespace(prompts=prompts[1:], dropped=dropped, sample=sample, require_nonempty=lambda: None)

    def load_model(name, *, device, dtype):
        made["load_model"] = name, device, dtype
        return model

    saved = SimpleNamespace(read_text=lambda: "")
    monkeypatch.setattr(lrc, "load_model", load_model)
    monkeypatch.setattr(lrc, "filter_known", filter_known)
    monkeypatch.setattr(lrc, "LinearRelationalEmbedding", Embedding)
    monkeypatch.setattr(lrc, "ConceptSet", Concepts)
    fingerprint = SimpleNamespace(to_dict=lambda: {"name": "m"})
    monkeypatch.setattr(
        lrc.models, "ModelFingerprint", SimpleNamespace(of=lambda given: given is model and fingerprint)
    )
    return made
