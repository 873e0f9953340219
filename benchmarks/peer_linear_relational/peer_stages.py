"""The stages of the paper's protocol made of linear-relational's own pieces. Runs in its environment.

It has no benchmark and no baselines: the filter is its PromptValidator, directions come from its Trainer (SVM and
means from scikit-learn and NumPy on activations that it extracts), predictions from its ConceptMatcher and edits
from its CausalEditor, with its own batch sizes. Its validation keeps gradients on; it is called without them.
"""

import time

import numpy as np
import torch
from linear_relational import CausalEditor, Concept, ConceptMatcher, Prompt, PromptValidator, Trainer
from linear_relational.CausalEditor import ConceptSwapRequest
from linear_relational.ConceptMatcher import ConceptMatchQuery
from linear_relational.lib.extract_token_activations import extract_token_activations
from linear_relational.lib.token_utils import find_final_word_token_index, find_prompt_answer_data
from sklearn.svm import LinearSVC

EDITS_AT_ONCE = 12  # the editor's own batch size; it would keep the probabilities of all requests at once


class Stages:
    """One relation after another: `filter`, `fit_methods`, then `predict` and `swap` with the last concepts."""

    WORKS = ("filter", "fit_methods", "predict", "swap")

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.concepts = {}  # method -> {object: Concept}

    def filter(self, request):
        """`{"lists": [[prompt]]}` -> `known`: for each prompt of each list whether it is answered."""
        known = []
        for texts in request["lists"]:
            prompts = _prompts(texts)
            with torch.no_grad():
                kept = PromptValidator(self.model, self.tokenizer).filter_prompts(prompts)
            kept_ids = {id(prompt) for prompt in kept}
            known.append([id(prompt) in kept_ids for prompt in prompts])
        return {"known": known}

    def fit_methods(self, request):
        """Directions of every method, kept here; `methods` -> the seconds of each.

        `{"prompts": [known training prompt], "lre": [numbers of those for the LREs], "methods": {name: {layer,
        aggregation} or null for a baseline}, "subject_layer", "rank", "seed", "save": path or null}`; the file
        gets weights, biases and directions.
        """
        prompts = _prompts(request["prompts"])
        trainer = Trainer(self.model, self.tokenizer)
        self.concepts, arrays, seconds = {}, {}, {}
        activations = None
        for method, options in request["methods"].items():
            started = time.perf_counter()
            if options is None:
                if activations is None:
                    activations = self._subjects(prompts, request["subject_layer"])
                names = [one["object"] for one in request["prompts"]]
                made = _baseline(method, activations, names, request["subject_layer"], request["seed"])
            else:
                lre = trainer.train_lre(
                    relation="benchmark",
                    subject_layer=request["subject_layer"],
                    object_layer=options["layer"],
                    prompts=[prompts[number] for number in request["lre"]],
                    object_aggregation=options["aggregation"],
                    validate_prompts=False,
                    verbose=False,
                )
                made = trainer.train_relation_concepts_from_inv_lre(
                    lre.invert(request["rank"]),
                    prompts,
                    validate_prompts=False,
                    name_concept_fn=lambda relation, name, method=method: f"{method}: {name}",
                    verbose=False,
                )
                arrays[f"weight {method}"] = lre.weight.detach().numpy()
                arrays[f"bias {method}"] = lre.bias.detach().numpy()
            self.concepts[method] = {concept.object: concept for concept in made}
            for concept in made:
                arrays[f"direction {method} {concept.object}"] = concept.vector.numpy()
            seconds[method] = time.perf_counter() - started
        if request["save"]:
            np.savez(request["save"], **arrays)
        return {"methods": seconds}

    def _subjects(self, prompts, layer):
        """Residuals at the subjects, float64."""
        name = f"model.layers.{layer}"
        with torch.no_grad():
            found = extract_token_activations(
                self.model,
                self.tokenizer,
                layers=[name],
                texts=[prompt.text for prompt in prompts],
                token_indices=[
                    find_final_word_token_index(self.tokenizer, prompt.text, prompt.subject) for prompt in prompts
                ],
            )
        return torch.stack([row[name][0] for row in found]).double().numpy()

    def _everything(self):
        return [concept for own in self.concepts.values() for concept in own.values()]

    def predict(self, request):
        """`{"prompts": [prompt]}` -> `predicted`: method -> objects; `positions` of the subjects."""
        matcher = ConceptMatcher(self.model, self.tokenizer, self._everything())
        found = matcher.query_bulk([ConceptMatchQuery(one["text"], one["subject"]) for one in request["prompts"]])
        predicted = {
            method: [_best(own, result.concept_results) for result in found]
            for method, own in self.concepts.items()
        }
        return {
            "predicted": predicted,
            "positions": [
                find_final_word_token_index(self.tokenizer, one["text"], one["subject"])
                for one in request["prompts"]
            ],
        }

    def swap(self, request):
        """`{"edits": [prompt with target], "beta": b}` -> `log_probs`: method -> [[object's, target's]].

        Objects of several tokens are teacher-forced and stand for their least probable token; two objects of one
        token share the run of the text alone.
        """
        editor = CausalEditor(self.model, self.tokenizer, self._everything())
        runs, readings = {}, []
        for method in self.concepts:
            for number, edit in enumerate(request["edits"]):
                for column, name in enumerate((edit["object"], edit["target"])):
                    answer = find_prompt_answer_data(self.tokenizer, edit["text"], " " + name)
                    text = edit["text"] if answer.num_answer_tokens == 1 else answer.full_prompt
                    run = runs.setdefault((method, number, text), len(runs))
                    readings.append((method, number, column, run, answer))
        asked = [
            ConceptSwapRequest(
                text=text,
                subject=request["edits"][number]["subject"],
                remove_concept=self.concepts[method][request["edits"][number]["object"]].name,
                add_concept=self.concepts[method][request["edits"][number]["target"]].name,
            )
            for method, number, text in runs
        ]
        by_run = {}
        for reading in readings:
            by_run.setdefault(reading[3], []).append(reading)
        log_probs = {method: [[0.0, 0.0] for _ in request["edits"]] for method in self.concepts}
        for start in range(0, len(asked), EDITS_AT_ONCE):
            found = editor.swap_subject_concepts_and_predict_all_token_probs_bulk(
                asked[start : start + EDITS_AT_ONCE], magnitude_multiplier=request["beta"]
            )
            for offset, probs in enumerate(found):
                for method, number, column, _, answer in by_run[start + offset]:
                    places = list(answer.output_answer_token_indices)
                    least = probs[places, answer.answer_tokens].double().min()
                    log_probs[method][number][column] = float(least.clamp(min=1e-300).log())
        return {"log_probs": log_probs}


def _prompts(texts):
    return [
        Prompt(text=one["text"], answer=" " + one["object"], subject=one["subject"], object_name=one["object"])
        for one in texts
    ]


def _best(concepts, results):
    return max(concepts, key=lambda name: results[concepts[name].name].score)


def _baseline(method, activations, names, layer, seed):
    """A unit direction for each object, as lrc_tl's baseline of that name."""
    labels, made = np.array(names), []
    for name in dict.fromkeys(names):
        if method == "mean":
            vector = activations[labels == name].mean(0)
        else:
            machine = LinearSVC(
                fit_intercept=False, class_weight="balanced", dual="auto", random_state=seed, max_iter=20_000
            )
            vector = machine.fit(activations, labels == name).coef_[0]
        vector = torch.from_numpy(vector / np.linalg.norm(vector)).float()
        made.append(
            Concept(layer=layer, vector=vector, object=name, relation="benchmark", name=f"{method}: {name}")
        )
    return made
