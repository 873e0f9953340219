"""`contrast_concepts` beside repeng and steering-vectors: the same texts, model and layers.

    peer=$(benchmarks/contrast/make_environment.sh)
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/contrast/contrast_peers.py --peer-python "$peer"

On the packaged SmolLM2, at six layers: cosines of the directions, the text steered along theirs and along ours by
as much, and CPU seconds, of one layer and of all six, each in turn. Writes
`benchmarks/results/contrast_peers.json`.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lrc_tl as lrc
from lrc_tl.models.packaged import PACKAGED, packaged_folder
from lrc_tl.storage.json_results import write_result

RESULT = Path(__file__).parents[1] / "results" / "contrast_peers.json"
WORKER = Path(__file__).parent / "peer_worker.py"
MODEL = "packaged:smollm2-135m"
SAME_AS = {
    "steering-vectors mean": "mean-difference",
    "steering-vectors pca": "pair-pca",
    "repeng pca_center": "pair-pca",
    "repeng pca_diff": "pair-pca-centred",
}
"""The peer's method, and ours that should give the same direction."""
BEGINNINGS = (
    "I think that", "The weather today is", "My friends and I", "When I woke up this morning, I",
    "This book is", "At work everyone", "The best part of the day", "I looked out of the window and",
    "My plans for the week are", "The meal was", "My family says that I", "Music makes me",
    "The news about the project", "On the way home I", "In the garden there", "My neighbour told me that",
)  # fmt: skip
FORM = "Act as if you are extremely {}. {}"
PAIRS = [[FORM.format(mood, beginning) for mood in ("happy", "sad")] for beginning in BEGINNINGS]
PROMPTS = ("The weather today is", "My friends and I")
STEERED_LAYER, FACTORS, N_TOKENS = 15, (1.5, -1.5), 20
LAYERS = (2, 7, 12, 15, 20, 28)
"""Below the last: transformers gives that behind the final norm, where repeng reads it."""
REPEATS = 2


class Peer:
    """The worker in the other environment."""

    def __init__(self, python: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [python, str(WORKER), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions = self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """No more requests."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def ours(model: lrc.models.HookedModel, method: str, layers: Sequence[int]) -> list[lrc.ConceptDirection]:
    """Directions towards the first of each pair, one call per layer."""
    positive, negative = zip(*PAIRS, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of layers where the texts cannot be told apart
        return [
            lrc.contrast_concepts(
                model, positive=positive, negative=negative, layer=layer, paired=True, method=method
            )["positive"]
            for layer in layers
        ]


def cpu_seconds(job: Callable[[], Any]) -> float:
    """Of this process, all threads."""
    started = time.process_time()
    job()
    return time.process_time() - started


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    started = time.perf_counter()
    model = lrc.load_model(MODEL)
    peer = Peer(given.peer_python, packaged_folder(PACKAGED[MODEL]))
    layers = list(LAYERS)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        theirs: dict[str, np.ndarray] = {}
        for work, method in SAME_AS.items():
            path = Path(scratch) / f"{work}.npy"
            seconds: dict[str, list[float]] = {"theirs_all": [], "ours_all": [], "theirs_one": [], "ours_one": []}
            for _ in range(REPEATS):
                ask = {"work": work, "pairs": PAIRS}
                seconds["theirs_one"].append(
                    peer.ask(**ask, layers=[STEERED_LAYER], save=str(path))["cpu_seconds"]
                )
                seconds["ours_one"].append(cpu_seconds(lambda method=method: ours(model, method, [STEERED_LAYER])))
                seconds["theirs_all"].append(peer.ask(**ask, layers=layers, save=str(path))["cpu_seconds"])
            started_all = time.process_time()
            directions = ours(model, method, layers)
            seconds["ours_all"].append(time.process_time() - started_all)
            theirs[work] = np.load(path)
            units = theirs[work] / np.linalg.norm(theirs[work], axis=1, keepdims=True)
            cosines = [float(unit @ each.vector.numpy()) for unit, each in zip(units, directions, strict=True)]
            rows.append({
                "peer": work, "ours": method, "cosines": cosines,
                "lengths": [float(value) for value in np.linalg.norm(theirs[work], axis=1)],
                "our_lengths": [each.norm for each in directions],
                "cpu_seconds": {name: statistics.median(values) for name, values in seconds.items()},
            })  # fmt: skip
            print(
                work,
                method,
                f"cosines {min(cosines):.6f} to {max(cosines):.6f}",
                rows[-1]["cpu_seconds"],
                flush=True,
            )
        # Ours along our own direction; theirs along theirs, with their own hooks.
        place = layers.index(STEERED_LAYER)
        direction = ours(model, "mean-difference", [STEERED_LAYER])[0]
        vector = Path(scratch) / "vector.npy"
        np.save(vector, theirs["steering-vectors mean"][place])
        steered = []
        ask = {
            "work": "generate",
            "vectors": str(vector),
            "layer": STEERED_LAYER,
            "prompts": PROMPTS,
            "n": N_TOKENS,
        }
        plain = peer.ask(**ask, **{"with": None, "factor": 0.0})["texts"]
        plain_ours = [each.text for each in lrc.generate(model, list(PROMPTS), max_new_tokens=N_TOKENS)]
        for factor in FACTORS:
            edit = direction.add(strength=factor * direction.norm, unit="absolute")
            own = [
                each.text for each in lrc.generate(model, list(PROMPTS), steering=edit, max_new_tokens=N_TOKENS)
            ]
            for library in ("steering-vectors", "repeng"):
                texts = peer.ask(**ask, **{"with": library, "factor": factor})["texts"]
                steered.append({"library": library, "factor": factor, "theirs": texts, "ours": own,
                                "same": texts == own})  # fmt: skip
                print(library, factor, texts == own, own, flush=True)
    peer.end()
    fingerprint = lrc.models.ModelFingerprint.of(model)
    write_result(
        given.out,
        kind="contrast_peers",
        results={
            "directions": rows, "steered": steered, "unsteered": {"theirs": plain, "ours": plain_ours},
            "peer_versions": peer.versions,
        },
        settings={
            "model": MODEL, "form": FORM, "beginnings": list(BEGINNINGS), "layers": layers,
            "steered_layer": STEERED_LAYER, "repeats": REPEATS, "threads": torch.get_num_threads(),
        },
        model=fingerprint.to_dict(),
        seconds=time.perf_counter() - started,
    )  # fmt: skip


if __name__ == "__main__":
    main()
