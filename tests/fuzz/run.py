"""Damaged inputs of every kind: `python tests/fuzz/run.py --inputs 100000 [--seed n] [--json FILE]` (`make fuzz`).

Exit code 1, with the seed of each input and its error, where one is read with anything but an error of ours.
"""

import argparse
import json
import random
import shutil
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path[:0] = map(str, (TESTS / "fuzz", TESTS / "experiments", TESTS / "storage", TESTS, TESTS.parent))

from guards import Hang, Watch, limit_memory, own_folder  # noqa: E402
from targets import ROOT, TARGETS  # noqa: E402


def raised_by_ours(error):
    """Whether the frame that raised it is one of ours, or of the standard library's JSON on its behalf."""
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).is_relative_to(ROOT)


def fuzz(name, n_inputs, seed, place, watch):
    """How the inputs of one target ended, and what is a defect."""
    target = TARGETS[name]
    given = place / "given"
    shutil.rmtree(given)
    given.mkdir()
    whole = target.make(given)
    ends, defects = Counter(), []
    started = time.process_time()
    for number in range(n_inputs):
        draw = random.Random(f"{seed} {name} {number}")
        target.damage(whole, given, draw)
        watch.seen.clear()
        try:
            with watch.reading():
                target.read(given)
            ends["read"] += 1
        except target.errors as error:
            text = str(error)
            plain = type(error).__module__ == "builtins"
            if not text or "\x1b" in text or len(text) > 20_000 or (plain and not raised_by_ours(error)):
                defects.append((number, repr(error)[:300], traceback.format_exc()))
            ends["refused"] += 1
        except Hang:
            defects.append((number, "hangs", traceback.format_exc()))
        except Exception as error:
            defects.append((number, f"{type(error).__name__}: {error}"[:300], traceback.format_exc()))
        if watch.seen:
            defects.append((number, f"touches {watch.seen[0]}", ""))
        if (place / "outside").read_text() != "untouched":
            defects.append((number, "wrote outside of its folder", ""))
    return {
        "target": name,
        "inputs": n_inputs,
        "read": ends["read"],
        "refused": ends["refused"],
        "defects": len(defects),
        "cpu_seconds": round(time.process_time() - started, 1),
    }, defects


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a target")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    place = own_folder()
    watch = Watch(place / "given", TESTS.parent)
    rows, failed = [], False
    try:
        limit_memory()
        for name, target in TARGETS.items():
            if options.only not in (None, name):
                continue
            n_inputs = max(1, round(options.inputs * target.share / 100_000))
            row, defects = fuzz(name, n_inputs, options.seed, place, watch)
            rows.append(row)
            print(json.dumps(row), flush=True)
            kinds = {}
            for number, what, trace in defects:
                kinds.setdefault(what[:60], []).append((number, what, trace))
            for found in kinds.values():
                number, what, trace = found[0]
                failed = True
                print(f"DEFECT {name}, seed {options.seed}, input {number} ({len(found)} alike): {what}\n{trace}")
    finally:
        shutil.rmtree(place)
    print(json.dumps({name: sum(row[name] for row in rows) for name in ("inputs", "read", "refused", "defects")}))
    if options.json is not None:
        options.json.write_text(
            json.dumps({"seed": options.seed, "targets": rows}, indent=2) + "\n", encoding="utf-8"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
