"""A bundle and users for the tests of ``genrec bench``, and the command itself."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from genrec.bundle import save_bundle
from genrec.cli.main import main
from genrec.native_model import NativeConfig, NativeModel
from genrec.tasks import TaskDefaults
from index.item_index import SEMANTIC_ID
from tests.toy import toy_histories, toy_index


def genrec(*arguments: object, check: int = 0) -> tuple[str, str]:
    """What a command prints on standard output and on standard error."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    argv = ["genrec", *map(str, arguments)]
    with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "argv", argv):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert (code or 0) == check, err.getvalue()
    return out.getvalue(), err.getvalue()


def random_bundle(path: Path) -> Path:
    """A bundle whose model has random weights: what it prefers is nobody's business here."""
    built = toy_index()
    torch.manual_seed(0)
    model = NativeModel(NativeConfig(built.level_sizes, hidden_size=16, layers=1, heads=2), built.codes)
    save_bundle(
        path,
        built,
        model.save,
        family="native",
        tasks={SEMANTIC_ID: TaskDefaults(beam=7)},
        trained_events=np.zeros(0, np.uint64),
        facts={},
    )
    return path


def write_interactions(file: Path) -> Path:
    """The toy's users as a file of sequences."""
    histories = toy_histories()
    lines = [
        " ".join([user, *(f"i{row}" for row in histories.events(number))])
        for number, user in enumerate(histories.user_ids)
    ]
    file.write_text("\n".join(lines) + "\n")
    return file
