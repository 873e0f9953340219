"""What both comparisons with linear-relational need: its process, peak memory and relative errors."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lrc_tl as lrc

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"


class Peer:
    """The other library, answering requests in its own process."""

    def __init__(self, python: str, folder: Path) -> None:
        command = [python, str(HERE / "peer_worker.py"), str(folder)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # it walks through sets of strings
        )
        self.about = self._answer()

    def ask(self, work: str, **fields: Any) -> dict[str, Any]:
        """The answer to one request; see `peer_worker.py`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"work": work, **fields}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer's process ended with code {self._process.wait()}; its errors are above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def plain(prompts: Sequence[lrc.Prompt]) -> list[dict[str, str]]:
    """Prompts as the peer's process takes them."""
    return [{"text": one.text, "subject": one.subject, "object": one.object} for one in prompts]


def relative(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """Norm of the difference over the norm of the peer's."""
    reference = torch.from_numpy(theirs).reshape(ours.shape)
    return float((ours - reference).norm() / reference.norm())


def forget_peak() -> None:
    """Count the most memory from here on (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
