"""Memory and seconds of every step at the width of real models, and whether they could be told beforehand.

    .venv/bin/python benchmarks/scale_rehearsal.py

Randomly initialised models of Llama's shape: d_model 4096, 2 and 4 layers, a small vocabulary, bfloat16 and
float32, on the CPU. Each model runs in a process of its own, which is refused beforehand, with the numbers,
where it does not fit into what is free. Seconds are those of all cores together. What is predicted comes from
`lrc.lre.fit_cost` and the sizes that the plan of a sweep counts with, divided by the measured rate of products.
The step from 2 layers to 4 is extrapolated to 32. Writes `results/scale_rehearsal.json` and the section "Scale" of
`results/robustness.md`.
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
BEGIN, END = "<!-- scale: begin -->", "<!-- scale: end -->"


def model_bytes(given: Any, n_layers: int, dtype: str) -> int:
    """Bytes of the weights of Llama's shape, with a quarter of the heads for keys and values."""
    of_layer = int(2.5 * given.d_model**2 + 3 * given.d_model * given.d_mlp)
    return ITEM[dtype] * (n_layers * of_layer + 2 * VOCABULARY * given.d_model)


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


def run_model(given: argparse.Namespace, n_layers: int, dtype_name: str) -> dict[str, Any]:
    """Every step on one model, in this process."""
    import torch

    import lrc_tl as lrc
    from lrc_tl.lre.costs import dual_cost
    from lrc_tl.models.sizes import model_sizes

    torch.set_num_threads(given.threads)
    model = built(given, n_layers, dtype_name)
    sizes = model_sizes(model)
    prompts = [
        lrc.Prompt(
            text=f"w{n} w{n + 1} w{n + 2} is w7 w8", subject=f"w{n} w{n + 1} w{n + 2}", object=f"w{n % 2 + 300}",
            relation="rehearsal",
        )
        for n in range(10, 10 + given.prompts)
    ]  # fmt: skip
    background = [f"w{n} w{n + 1} w{n + 2} w9 w10 w{n % 50}" for n in range(10, 10 + given.background)]
    pair = {"subject_layer": 0, "object_layer": n_layers - 1}
    layers = {"subject_layers": [0], "object_layers": [n_layers - 1]}
    solver = lrc.LowRank(rank=given.rank)
    direction = lrc.ConceptDirection.from_unscaled(
        torch.ones(given.d_model), relation="rehearsal", object_name="w9", hook_name="blocks.0.hook_resid_post"
    )
    rate = cpu_rate(given.d_model, getattr(torch, dtype_name))
    n_background, n_text = 6 * len(background), 6 * len(prompts)
    exact = lrc.lre.fit_cost(model, prompts[:1], **layers)
    low = lrc.lre.fit_cost(model, prompts, **layers, solver=solver)
    dual = dual_cost(sizes)
    reading = sizes.pass_operations(n_tokens=2 * n_text) + sizes.reading_operations(n_passes=4)
    steps: dict[str, Any] = {}

    def step(name: str, work: Callable[[], object], operations: int, n_bytes: int) -> None:
        steps[name] = {
            **measured(work), "cpu_seconds_predicted": operations / rate, "bytes_predicted": n_bytes,
        }  # fmt: skip
        print(name, steps[name], file=sys.stderr, flush=True)

    def statistics() -> Any:
        return lrc.SubjectStatistics.fit(model, layers=[0], background=background, progress=False)

    embedding = lrc.LinearRelationalEmbedding
    step("low-rank fit", lambda: embedding.fit(model, prompts, **pair, solver=solver, progress=False),
         low.operations + low.reading, low.n_bytes)  # fmt: skip
    step("SubjectStatistics", statistics,
         sizes.pass_operations(n_tokens=n_background, n_layers=1) + sizes.reading_operations(n_passes=2),
         sizes.pass_bytes(n_tokens=n_background))  # fmt: skip
    settings = lrc.FitSettings(background=statistics(), noise=0.1, max_lre_prompts=len(prompts), solver=solver)
    held = given.d_model**2 * 4
    step(
        "lrc-map, low-rank",
        lambda: lrc.fit_concepts(
            model, prompts, method="lrc-map-given", **pair, settings=settings, progress=False
        ),
        low.operations + low.reading + dual.operations + reading, max(low.n_bytes, held + dual.n_bytes),
    )  # fmt: skip
    step("exact pair, one prompt", lambda: embedding.fit(model, prompts[:1], **pair, progress=False),
         exact.operations + exact.reading, exact.n_bytes)  # fmt: skip
    n_new, texts = 8, [prompt.text for prompt in prompts]
    step(
        "steered generation",
        lambda: lrc.generate(model, texts, steering=direction, strengths=[0.1], max_new_tokens=n_new),
        sizes.pass_operations(n_tokens=n_text + n_new * len(texts), n_logits=n_new * len(texts))
        + sizes.reading_operations(n_passes=n_new + 1),
        2 * sizes.pass_bytes(n_tokens=n_text, n_logits=len(texts)),
    )
    return {
        "n_layers": n_layers, "dtype": dtype_name, "product_rate": rate, "steps": steps,
        "model_bytes": sum(weight.numel() * weight.itemsize for weight in model.parameters()),
        "model_bytes_predicted": sizes.weight_bytes,
    }  # fmt: skip


def cpu_rate(d_model: int, dtype: Any, *, n_products: int = 4) -> float:
    """`product_rate` by CPU time, which a busy machine changes less than the time on the clock."""
    import torch

    left, right = torch.ones(512, d_model, dtype=dtype), torch.ones(d_model, d_model, dtype=dtype)
    left @ right
    rates = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(n_products):
            left @ right
        rates.append(n_products * 2 * len(left) * d_model**2 / (time.process_time() - started))
    return max(rates)


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
                if key in ("cpu_seconds", "cpu_seconds_predicted", "bytes_predicted")
            }
            for step, numbers in by[dtype, 2]["steps"].items()
        } | {"model_bytes": model_bytes(given, 32, dtype)}
        for dtype in given.dtypes if {(dtype, 2), (dtype, 4)} <= set(by)
    }  # fmt: skip
    write_result(
        given.out,
        kind="scale_rehearsal",
        results={"models": models, "refused": refused, "extrapolated_to_32_layers": extrapolated},
        settings={key: value.name if isinstance(value, Path) else value for key, value in vars(given).items()},
        model=None,
        seconds=time.perf_counter() - started,
    )
    _into_robustness(given, models, refused, extrapolated)


def _into_robustness(given: argparse.Namespace, models: list[Any], refused: list[str], at_32: Any) -> None:
    """The section of `robustness.md`, put in the place of the one before."""
    lines = [
        "| layers, dtype | step | CPU s | predicted | beside the model, MiB | predicted |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in models:
        name = f"{row['n_layers']}, {row['dtype']} ({row['model_bytes'] / 2**20:,.0f} MiB)"
        lines += [f"| {name} | {step} | {_figures(numbers)} |" for step, numbers in row["steps"].items()]
    for dtype, steps in at_32.items():
        name = f"32, {dtype}, extrapolated ({steps['model_bytes'] / 2**20:,.0f} MiB)"
        lines += [f"| {name} | {step} | {_figures(of)} |" for step, of in steps.items() if step != "model_bytes"]
    rates = ", ".join(f"{row['product_rate'] / 1e9:,.0f} ({row['dtype']})" for row in models)
    text = (
        f"{BEGIN}\n\n## Scale\n\n`python benchmarks/scale_rehearsal.py {' '.join(sys.argv[1:])}`: random weights, "
        f"d_model {given.d_model}, threads: {given.threads}; products at {rates} x 10^9 operations a second.\n"
        "Predicted is what the library tells beforehand (`lrc.lre.fit_cost`, `ModelSizes`), over that rate."
        "\n\n" + "\n".join(lines)
    )
    text += "".join(f"\n\nRefused: {reason}" for reason in refused) + f"\n\n{END}"
    path = RESULTS / "robustness.md"
    before = path.read_text(encoding="utf-8")
    if BEGIN in before:
        after = before[: before.index(BEGIN)] + text + before[before.index(END) + len(END) :]
    else:
        after = before.rstrip() + "\n\n" + text + "\n"
    path.write_text(after, encoding="utf-8")


def _figures(numbers: dict[str, float]) -> str:
    # Peaks hardly grow with the depth, so that their noise cannot be extrapolated.
    sizes = [
        f"{numbers[name] / 2**20:,.0f}" if name in numbers else ""
        for name in ("bytes_beside_model", "bytes_predicted")
    ]
    seconds = [f"{numbers[name]:,.1f}" for name in ("cpu_seconds", "cpu_seconds_predicted")]
    return " | ".join([*seconds, *sizes])


if __name__ == "__main__":
    main()
