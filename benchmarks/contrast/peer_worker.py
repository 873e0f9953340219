"""Answers for repeng and steering-vectors, one request a line. Runs in their own environment.

    peer_worker.py MODEL_FOLDER

First prints its versions; then for each request one line of JSON with the CPU seconds that it took:
`{"work": NAME, "pairs": [[positive, negative]], "layers": [l], "save": path}` writes the directions, one per
layer, to a NumPy file; NAME is one of `WORKS`. `{"work": "generate", "with": "repeng" | "steering-vectors" | null,
"vectors": path, "layer": l, "factor": x, "prompts": [...], "n": tokens}` answers with texts.
"""

import contextlib
import io
import json
import sys
import time
from importlib.metadata import version

import numpy as np
import torch
from repeng import ControlModel, ControlVector, DatasetEntry
from steering_vectors import SteeringVector, mean_aggregator, pca_aggregator, train_steering_vector
from transformers import AutoModelForCausalLM, AutoTokenizer

WORKS = ("steering-vectors mean", "steering-vectors pca", "repeng pca_diff", "repeng pca_center")
BATCH = 32
"""repeng's default; that of steering-vectors is 1, which is slower."""


def directions(model, tokenizer, request):
    """One direction per layer."""
    name, layers = request["work"], request["layers"]
    if name.startswith("repeng"):
        entries = [DatasetEntry(positive=one, negative=other) for one, other in request["pairs"]]
        vector = ControlVector.train(
            model, tokenizer, entries, hidden_layers=layers, method=name.split()[1], batch_size=BATCH
        )
        return np.stack([vector.directions[layer] for layer in layers])
    aggregator = mean_aggregator() if name.endswith("mean") else pca_aggregator()
    pairs = [tuple(pair) for pair in request["pairs"]]
    vector = train_steering_vector(model, tokenizer, pairs, layers=layers, aggregator=aggregator, batch_size=BATCH)
    return np.stack([vector.layer_activations[layer].numpy() for layer in layers])


def texts(model, tokenizer, request):
    """Greedy continuations, each by itself, with a vector added at every token of one layer."""
    layer, library = request["layer"], request["with"]
    vector = None if library is None else request["factor"] * np.load(request["vectors"])

    def continued(runner):
        made = []
        for prompt in request["prompts"]:
            given = tokenizer(prompt, return_tensors="pt")
            ids = runner.generate(**given, max_new_tokens=request["n"], do_sample=False)
            made.append(tokenizer.decode(ids[0, given["input_ids"].shape[1] :]))
        return made

    if library == "repeng":
        controlled = ControlModel(model, [layer])
        try:
            controlled.set_control(ControlVector(model_type="llama", directions={layer: vector}))
            return continued(controlled)
        finally:
            controlled.unwrap()
    if library == "steering-vectors":
        with SteeringVector({layer: torch.tensor(vector)}).apply(model):
            return continued(model)
    return continued(model)


def main():
    """Answer until there are no more requests."""
    folder = sys.argv[1]
    with contextlib.redirect_stdout(sys.stderr):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.padding_side = "right"
    names = ("repeng", "steering-vectors", "torch", "transformers", "numpy")
    print(json.dumps({name: version(name) for name in names}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = {}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            started = time.process_time()
            if request["work"] == "generate":
                answer["texts"] = texts(model, tokenizer, request)
            else:
                rows = directions(model, tokenizer, request)
            answer["cpu_seconds"] = time.process_time() - started
            if request["work"] != "generate":
                np.save(request["save"], rows)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
