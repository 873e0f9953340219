"""Memory and seconds of every step at the width of real models, and whether they could be told beforehand.

    .venv/bin/python benchmarks/scale_rehearsal.py

Randomly initialised models of Llama's shape: d_model 4096, 2 and 4 layers, a small vocabulary, bfloat16 and
float32, on the CPU. Each model runs in a process of its own, which is refused beforehand, with the numbers,
where it does not fit into what is free. Seconds are those of all cores together. Of the exact pair some rows
are computed, as many at a time as a fit takes, and the seconds scaled to all rows. The step from 2 layers to 4
is extrapolated to 32. Writes `results/scale_rehearsal.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"
ITEM = {"float32": 4, "bfloat16": 2}
VOCABULARY = 512
ROWS = 128
"""Of a Jacobian that are computed, in one reverse pass, as in a fit on a CPU."""
BATCH = 64 * 2**20
"""Bytes of tokens and small things that a step may take beside what is counted."""


def layer_weights(given: Any) -> int:
    """Weights of one layer of Llama's shape, with a quarter of the heads for keys and values."""
    return int(2.5 * given.d_model**2 + 3 * given.d_model * given.d_mlp)


def model_bytes(given: Any, n_layers: int, dtype: str) -> int:
    """Bytes of the weights."""
    return int(ITEM[dtype] * (n_layers * layer_weights(given) + 2 * VOCABULARY * given.d_model))


def free_bytes() -> int:
    """What the machine says is available."""
    return _kibibytes(Path("/proc/meminfo"), "MemAvailable")


def _kibibytes(path: Path, name: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in path.read_text().splitlines() if line.startswith(name))


def built(given: Any, n_layers: int, dtype: str) -> Any:
    """The model, made in its own dtype so that no float32 copy is held beside it."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformer_lens.model_bridge import TransformerBridge

    import lrc_tl as lrc

    words = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "<unk>"])}
    words |= {f"w{number}": len(words) + number for number in range(VOCABULARY - 4)}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=given.d_model, intermediate_size=given.d_mlp,
        num_hidden_layers=n_layers, num_attention_heads=given.d_model // 128,
        num_key_value_heads=given.d_model // 512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        max_position_embeddings=512,
    )  # fmt: skip
    torch.manual_seed(0)
    hf_model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=getattr(torch, dtype), attn_implementation="eager"
    )
    folder = Path(given.folder)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(
        str(folder), hf_model=hf_model, tokenizer=tokenizer, device="cpu", dtype=getattr(torch, dtype)
    )
    bridge.cfg.default_prepend_bos = False
    return lrc.load_model(bridge)


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of all cores, and the peak of memory beyond what was taken before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "cpu_seconds": time.process_time() - cpu,
        "seconds": time.perf_counter() - started,
        "bytes_beside_model": _kibibytes(Path("/proc/self/status"), "VmHWM") - before,
    }


def product_rate(d_model: int, dtype: Any) -> float:
    """Floating-point operations a second of all cores in products of this width, rows as in a reverse pass."""
    import torch

    left, right = torch.randn(4 * ROWS, d_model).to(dtype), torch.randn(d_model, d_model).to(dtype)
    left @ right
    started, n = time.process_time(), 5
    for _ in range(n):
        left @ right
    return n * 2 * left.shape[0] * d_model**2 / (time.process_time() - started)


def run_model(given: argparse.Namespace, n_layers: int, dtype_name: str) -> dict[str, Any]:
    """Every step on one model, in this process."""
    import torch

    import lrc_tl as lrc
    from lrc_tl.lre.jacobian_products import JacobianProducts

    torch.set_num_threads(given.threads)
    dtype = getattr(torch, dtype_name)
    model = built(given, n_layers, dtype_name)
    prompts = [
        lrc.Prompt(
            text=f"w{n} w{n + 1} w{n + 2} is w7 w8", subject=f"w{n} w{n + 1} w{n + 2}", object=f"w{n % 2 + 300}",
            relation="rehearsal",
        )
        for n in range(10, 10 + given.prompts)
    ]  # fmt: skip
    background = [f"w{n} w{n + 1} w{n + 2} w9 w10 w{n % 50}" for n in range(10, 10 + given.background)]
    pair = {"subject_layer": 0, "object_layer": n_layers - 1}
    solver = lrc.LowRank(rank=given.rank)
    tokens = lrc.relations.tokenize_prompt(model, prompts[0])
    direction = lrc.ConceptDirection.from_unscaled(
        torch.ones(given.d_model), relation="rehearsal", object_name="w9", hook_name="blocks.0.hook_resid_post"
    )
    n_after = len(tokens.input_ids) - tokens.subject_position
    rate = product_rate(given.d_model, dtype)
    steps: dict[str, Any] = {}

    def rows_of_a_jacobian() -> None:
        products = JacobianProducts(model, tokens, [(0, n_layers - 1)])
        products.reverse(n_layers - 1, torch.eye(given.d_model)[:ROWS])

    def statistics() -> Any:
        return lrc.SubjectStatistics.fit(model, layers=[0], background=background, progress=False)

    some = measured(rows_of_a_jacobian)
    one_row = 2 * n_after * (n_layers - 1) * layer_weights(given)
    steps["exact pair, one prompt"] = {
        "cpu_seconds": some["cpu_seconds"] * given.d_model / ROWS,
        "cpu_seconds_predicted": given.d_model * one_row / rate,
        # The Jacobian, the mean of them, and the rows under way.
        "bytes_beside_model": some["bytes_beside_model"] + 2 * given.d_model**2 * 4,
        "bytes_predicted": 2 * given.d_model**2 * 4
        + ROWS * ITEM[dtype_name] * n_after * (4 * given.d_mlp + 8 * given.d_model) + BATCH,
    }  # fmt: skip
    steps["low-rank fit"] = measured(
        lambda: lrc.LinearRelationalEmbedding.fit(model, prompts, **pair, solver=solver, progress=False)
    )
    steps["SubjectStatistics"] = measured(statistics)
    settings = lrc.FitSettings(background=statistics(), noise=0.1, max_lre_prompts=len(prompts), solver=solver)
    steps["lrc-map, low-rank"] = measured(
        lambda: lrc.fit_concepts(model, prompts, method="lrc-map", **pair, rank=given.rank, settings=settings,
                                 progress=False)
    )  # fmt: skip
    steps["steered generation"] = measured(
        lambda: lrc.generate(
            model, [p.text for p in prompts], steering=direction, strengths=[0.1], max_new_tokens=8
        )
    )
    return {
        "n_layers": n_layers, "dtype": dtype_name, "product_rate": rate, "steps": steps,
        "model_bytes": sum(weight.numel() * weight.itemsize for weight in model.parameters()),
        "model_bytes_predicted": model_bytes(given, n_layers, dtype_name),
    }  # fmt: skip


def at_depth(two: float, four: float, n_layers: int) -> float:
    """What grows by the same amount per layer, at another depth."""
    return four + (four - two) / 2 * (n_layers - 4)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d-model", type=int, default=4096)
    parser.add_argument("--d-mlp", type=int, default=11008)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=list(ITEM))
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--background", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULTS / "scale_rehearsal.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        n_layers, dtype = given.one.split(":")
        with tempfile.TemporaryDirectory() as folder:
            given.folder = folder
            print(json.dumps(run_model(given, int(n_layers), dtype)))
        return
    started, models, refused = time.perf_counter(), [], []
    for dtype in given.dtypes:
        for n_layers in given.layers:
            needed = int(1.1 * model_bytes(given, n_layers, dtype)) + 12 * given.d_model**2 * 4
            if needed > (free := free_bytes()):
                refused.append(f"{n_layers} layers, {dtype}: needs {needed:,} bytes, {free:,} are free")
                print(f"refused: {refused[-1]}", flush=True)
                continue
            command = [sys.executable, __file__, *sys.argv[1:], "--one", f"{n_layers}:{dtype}"]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            models.append(json.loads(run.stdout.splitlines()[-1]))
            print(json.dumps(models[-1]), flush=True)
            _write(given, models, refused, started)


def _write(given: argparse.Namespace, models: list[Any], refused: list[str], started: float) -> None:
    """After every model, so that a run that is cut short leaves what it has."""
    by = {(row["dtype"], row["n_layers"]): row for row in models}
    extrapolated = {
        dtype: {
            step: {
                key: at_depth(two, by[dtype, 4]["steps"][step][key], 32) for key, two in numbers.items()
                if key in ("cpu_seconds", "bytes_beside_model")
            }
            for step, numbers in by[dtype, 2]["steps"].items()
        } | {"model_bytes": model_bytes(given, 32, dtype)}
        for dtype in given.dtypes if {(dtype, 2), (dtype, 4)} <= set(by)
    }  # fmt: skip
    write_result(
        given.out,
        kind="scale_rehearsal",
        results={"models": models, "refused": refused, "extrapolated_to_32_layers": extrapolated},
        settings={key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()},
        model=None,
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
