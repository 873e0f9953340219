"""Answers for linear-relational, one request a line. Runs in its own environment.

    peer_worker.py MODEL_FOLDER

First prints its versions; then for each request the seconds it took and its peak memory, as one line of JSON:
`{"work": "fit", "prompts": [{text, subject, object}], "pairs": [[s, o]], "save": path or null}`, or
`{"work": "activations", "prompts": [{text, position}], "n_layers": n, "save": path}`, or a stage of the protocol
(`peer_stages.py`). Its attention is eager, the faster choice here, and its key-value cache is copied before each
forward pass, without which Jacobians are wrong, until `{"work": "cache", "copied": false}`.
"""

import copy
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from linear_relational import Prompt, Trainer
from linear_relational.lib.extract_token_activations import extract_token_activations
from peer_stages import Stages
from transformers import AutoModelForCausalLM, AutoTokenizer

COPIED = {"cache": True}


def copy_cache(module, arguments, options):
    """A forward pass appends to the cache it is given, and the library gives the same one twice."""
    if COPIED["cache"] and options.get("past_key_values") is not None:
        options["past_key_values"] = copy.deepcopy(options["past_key_values"])
    return arguments, options


def peak_rss_bytes():
    """The most memory held resident so far (Linux); getrusage would count what the parent process held."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no line VmHWM")


def forget_peak():
    """Count the most memory from here on (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def read_activations(model, tokenizer, request):
    """Residuals after every layer at one position of each text; the library leaves gradients on."""
    layers = [f"model.layers.{layer}" for layer in range(request["n_layers"])]
    started = time.perf_counter()
    with torch.no_grad():
        found = extract_token_activations(
            model,
            tokenizer,
            layers=layers,
            texts=[one["text"] for one in request["prompts"]],
            token_indices=[one["position"] for one in request["prompts"]],
            device=torch.device("cpu"),
        )
    seconds = time.perf_counter() - started
    stacked = torch.stack([torch.stack([row[layer][0] for layer in layers]) for row in found])
    np.save(request["save"], stacked.numpy())
    return {"seconds": seconds, "peak_rss_bytes": peak_rss_bytes()}


def main():
    """Answer requests until the input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # the library prints
    folder = sys.argv[1]
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "right"
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager")
    model.eval().requires_grad_(False)
    model.register_forward_pre_hook(copy_cache, with_kwargs=True)
    trainer = Trainer(model, tokenizer)
    stages = Stages(model, tokenizer)

    def answer(**fields):
        print(json.dumps(fields), file=answers, flush=True)

    names = ("linear-relational", "torch", "transformers")
    loading = peak_rss_bytes()
    forget_peak()
    answer(
        peak_rss_bytes_loading=loading,
        versions={name: version(name) for name in names},
        threads=torch.get_num_threads(),
    )
    for line in sys.stdin:
        request = json.loads(line)
        forget_peak()
        if request["work"] == "cache":
            COPIED["cache"] = request["copied"]
            answer()
            continue
        if request["work"] in Stages.WORKS:
            started = time.perf_counter()
            found = getattr(stages, request["work"])(request)
            answer(seconds=time.perf_counter() - started, peak_rss_bytes=peak_rss_bytes(), **found)
            continue
        if request["work"] == "activations":
            answer(**read_activations(model, tokenizer, request))
            continue
        prompts = [Prompt(text=one["text"], answer=" " + one["object"], subject=one["subject"])
                   for one in request["prompts"]]  # fmt: skip
        started = time.perf_counter()
        found = {
            f"{subject}-{object_}": trainer.train_lre(
                relation="benchmark",
                subject_layer=subject,
                object_layer=object_,
                prompts=prompts,
                validate_prompts=False,
                verbose=False,
            )
            for subject, object_ in request["pairs"]
        }
        seconds = time.perf_counter() - started
        if request["save"]:
            arrays = {}
            for pair, lre in found.items():
                arrays[f"weight-{pair}"] = lre.weight.detach().numpy()
                arrays[f"bias-{pair}"] = lre.bias.detach().numpy()
            np.savez(request["save"], **arrays)
        answer(seconds=seconds, peak_rss_bytes=peak_rss_bytes())


if __name__ == "__main__":
    main()
