"""Draws of TransformerLens from a generator of one call, which no other thread and no global seed can disturb."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class OwnDraws(TorchFunctionMode):
    """Inside the block `torch.multinomial` draws from a generator with this seed, in this thread alone.

    TransformerLens samples tokens from torch's global generator, which all threads share: two threads that sample
    would get parts of each other's stream, and each would move that of the caller.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.multinomial:
            weights = args[0] if args else given["input"]
            given["generator"] = self._on(weights.device)
        return func(*args, **given)

    def _on(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device=device).manual_seed(self._seed)
        return self._generators[device]
