"""The transformers library as genrec uses it: models loaded without its bars and advice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


def load_model(auto_class: Any, path_or_name: str | Path, device: str | torch.device | None) -> Any:
    """A model by one of the Auto classes: float32 on a CPU, else in the precision it was saved in."""
    on_cpu = device is None or torch.device(device).type == "cpu"
    with quiet_transformers():
        return auto_class.from_pretrained(path_or_name, dtype=torch.float32 if on_cpu else "auto")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and no advice of the library inside: genrec reports what it does itself."""
    from transformers.utils import logging as module

    logging: Any = module  # its switches carry no types
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
