"""What `import lrc_tl` and the names of the main job add to TransformerLens's own import, in CPU seconds.

python benchmarks/import_time.py [--runs 7]: both are measured by turns in fresh processes, so that a busy machine
slows both; the least of each counts.
"""

import argparse
import json
import subprocess
import sys

THEIRS = "import transformer_lens; getattr(transformer_lens, 'HookedTransformer', None)"
OURS = (
    "import lrc_tl as lrc; "
    "lrc.load_model, lrc.load_relation, lrc.filter_known, lrc.LinearRelationalEmbedding, lrc.ConceptSet, "
    "lrc.generate"
)
CLOCK = "import time; {}; started = time.process_time(); {}; print(time.process_time() - started)"


def seconds(before: str, timed: str) -> float:
    """CPU seconds of the second part, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", CLOCK.format(before, timed)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    measured: dict[str, list[float]] = {"transformer_lens": [], "lrc_tl beyond it": [], "import lrc_tl alone": []}
    for _ in range(options.runs):
        measured["transformer_lens"].append(seconds("pass", f"exec({THEIRS!r})"))
        measured["lrc_tl beyond it"].append(seconds(THEIRS, f"exec({OURS!r})"))
        measured["import lrc_tl alone"].append(seconds("pass", "import lrc_tl"))
    least = {name: round(min(values), 3) for name, values in measured.items()}
    print(json.dumps({**least, "share": round(least["lrc_tl beyond it"] / least["transformer_lens"], 3)}))


if __name__ == "__main__":
    main()
