"""One part of the quality benchmark: one system with one seed, in a process of its own, kept as two files.

``<system>-<seed>.json`` holds figures and costs, ``<system>-<seed>.npz`` what every case was recommended. A part
whose files are there and were asked the same of (data, code, budget) is not run again: a killed benchmark goes on. A
process of its own makes memory and CPU time those of one system. What a killed part had spent and shown is kept
beside its checkpoint (``<system>-<seed>.spent``). ``benchmarks/quality.py`` starts it::

    python -m benchmarks.quality_parts '{"dataset": "beauty", "system": "genrec", …}'
"""

from __future__ import annotations

import hashlib
import io
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality_curve import SELECTED, Curve, say
from benchmarks.quality_data import DATA_SETS, Opened, open_data_set
from genrec.bench.machine import CompanyWatch
from genrec.bench.report import last_line
from genrec.bundle import load_bundle
from genrec.evaluation.protocol import (
    Evaluation,
    Part,
    baseline_fits,
    evaluate,
    evaluate_baselines,
    held_out,
)
from genrec.evaluation.segments import Segments
from genrec.recommender import Recommender
from index.artifact import replace_file
from index.build import IndexSettings, build_index, training_part
from index.item_index import ItemIndex, load_index

GENREC, SASREC, TIGER = "genrec", "sasrec-ce", "tiger"
TRAINED = (GENREC, SASREC, TIGER)
FREE = ("popularity", "bm25-last", "text-last", "cooccurrence", "cooccurrence+text")
INDEX = "index"
INDEXED = (GENREC, "bm25-last", "text-last", "cooccurrence+text")
"""Systems that read the index; TIGER builds one of its own."""
ROOT = Path(__file__).parent.parent
CODE = ("genrec", "index", *(f"benchmarks/quality_{name}.py" for name in ("curve", "data", "parts")))
"""What figures come from: packages, and how their parts are asked."""


@dataclass(frozen=True)
class Asked:
    """What a part is asked. All but the places decides whether a kept part still counts."""

    dataset: str
    data: Path = field(metadata={"place": True})
    work: Path = field(metadata={"place": True})
    minutes: float
    steps: int | None = None  # instead of minutes: repeatable on a busy machine
    threads: int = 2
    part: Part = "test"
    users: int | None = None
    text_encoder: str = "auto"
    tiger_base: str = "t5-tiger"

    @property
    def budget(self) -> dict[str, float | int | None]:
        return {"minutes": None if self.steps else self.minutes, "steps": self.steps}

    def question(self, data_fingerprint: str) -> dict[str, Any]:
        """What a kept part must have been asked."""
        said = {one.name: getattr(self, one.name) for one in fields(self) if not one.metadata.get("place")}
        return {**said, "data": data_fingerprint, "code": code_fingerprint()}


@dataclass(frozen=True)
class Result:
    """What a part came to. ``seconds["after"]`` are those of ``seconds["train"]`` behind the last step."""

    evaluation: Evaluation | None = None  # None: an index is no system
    seconds: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    steps: int = 0
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # validation by minutes
    facts: dict[str, Any] = field(default_factory=dict)
    cpu_before: float = 0.0  # CPU seconds before a kill
    is_resumed: bool = False


def code_fingerprint() -> str:
    """sha256 over :data:`CODE`: figures of other code are figures of another system."""
    whole = hashlib.sha256()
    for name in CODE:
        place = ROOT / name
        for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
            whole.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return whole.hexdigest()


def files_of(asked: Asked, system: str, seed: int) -> tuple[Path, Path]:
    stem = asked.work / f"{system}-{seed}"
    return stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.npz")


def is_done(asked: Asked, system: str, seed: int, data_fingerprint: str) -> bool:
    record, lists = files_of(asked, system, seed)
    if not record.is_file() or not (lists.is_file() or system == INDEX):
        return False
    return bool(json.loads(record.read_text("utf-8"))["asked"] == asked.question(data_fingerprint))


def run_part(asked: Asked, system: str, seed: int) -> None:
    """Run one part and keep it; it ends the program where the code was changed meanwhile."""
    watch = CompanyWatch()
    opened = open_data_set(DATA_SETS[asked.dataset], asked.data)
    question = asked.question(opened.fingerprint)  # of the code that runs: hours later another may lie there
    asked.work.mkdir(parents=True, exist_ok=True)
    if system == INDEX:
        result = _index(asked, opened, seed)
    elif system == GENREC:
        result = _genrec(asked, opened, seed)
    elif system == SASREC:
        result = _sasrec(asked, opened, seed)
    elif system == TIGER:
        result = _tiger(asked, opened, seed)
    else:
        result = _free(asked, opened, system)
    if asked.question(opened.fingerprint) != question:
        sys.exit(
            f"expected the code that {system}, seed {seed} began with, got other code at its end: figures would be "
            "of neither, so they are not kept; run the same command again, and change no file while it runs\n"
        )
    used = resource.getrusage(resource.RUSAGE_SELF)
    record: dict[str, Any] = {
        "system": system,
        "seed": seed,
        "asked": question,
        "seconds": result.seconds,
        "company": watch.company().as_json(),
        "cpu_seconds": round(result.cpu_before + used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024),  # Linux counts in KiB
        "parameters": result.parameters,
        "steps": result.steps,
        "resumed": result.is_resumed,
        "curves": result.curves,
        "facts": result.facts,
    }
    json_file, lists_file = files_of(asked, system, seed)
    found = result.evaluation
    if found is not None:
        record |= {
            "systems": found.systems,
            "calibration": {name: one.to_dict() for name, one in found.calibration.items()},
            "rank_seconds": found.seconds,
            "cases": found.users,
            "sparse_users": found.sparse_users,
            "cold_targets": found.cold_targets,
        }
        replace_file(lists_file, _packed(asked, opened, found))
    replace_file(json_file, (last_line(record) + "\n").encode())  # last: it says that the part is done
    _spent_place(asked, system, seed).unlink(missing_ok=True)


def _packed(asked: Asked, opened: Opened, found: Evaluation) -> bytes:
    """The first ten of every list, with the targets and segments they are held against."""
    cases, training = held_out(opened.histories, opened.about.split, asked.part, asked.users)
    segments = Segments.of(cases, training, len(opened.catalog))
    target = io.BytesIO()
    arrays = {f"list:{name}": one.rows[:, :10] for name, one in found.lists.items()}
    np.savez_compressed(target, target=cases.target, **segments.named(), **arrays)  # type: ignore[arg-type]
    return target.getvalue()


def _index(asked: Asked, opened: Opened, seed: int) -> Result:
    began = time.monotonic()
    settings = IndexSettings(text_encoder=asked.text_encoder, holdout=opened.about.holdout, seed=seed)
    index = build_index(opened.catalog, opened.histories, settings, _told)
    index.save(_index_place(asked, seed))
    return Result(seconds={"train": round(time.monotonic() - began, 1)})


def _index_place(asked: Asked, seed: int) -> Path:
    return asked.work / f"index-{seed}"


def _genrec(asked: Asked, opened: Opened, seed: int) -> Result:
    """What ``genrec train`` and ``genrec evaluate`` do, with the defaults of both."""
    import torch

    from genrec.training.pretrain import TrainSettings
    from genrec.training.train_bundle import checkpoint_path, train_bundle

    torch.set_num_threads(asked.threads)
    out = asked.work / f"genrec-{seed}"
    is_resumed = checkpoint_path(out).exists()
    curve = Curve(_spent_place(asked, GENREC, seed), is_resumed)
    trained = train_bundle(
        load_index(_index_place(asked, seed)),
        opened.histories,
        out,
        settings=TrainSettings(**asked.budget, seed=seed),  # type: ignore[arg-type]
        progress=curve,
        stage=_told,
        resume=is_resumed,
    )
    seconds = curve.seconds()
    found = _evaluated(asked, opened, out)
    facts = {"normalize": trained.normalize, "validation": trained.validation}
    curves = {GENREC: curve.points}
    return Result(
        found, seconds, trained.parameters, trained.steps, curves, facts, curve.before.cpu, is_resumed
    )


def _evaluated(asked: Asked, opened: Opened, out: Path) -> Evaluation:
    bundle = load_bundle(out)
    return evaluate(
        Recommender.of_bundle(bundle),
        bundle.trained_events(),
        opened.histories,
        split=opened.about.split,
        part=asked.part,
        users=asked.users,
        baselines=False,
        progress=_told,
    )


def _sasrec(asked: Asked, opened: Opened, seed: int) -> Result:
    """Trained on the same events for the same time with the same threads."""
    import torch

    from genrec.evaluation.sasrec import SASREC_SETTINGS, train_sasrec
    from genrec.training.pretrain import TrainSettings
    from genrec.training.train_bundle import validation_sample

    torch.set_num_threads(asked.threads)
    index, curve = load_index(_index_place(asked, 0)), Curve()
    trained = train_sasrec(
        training_part(opened.histories, opened.about.holdout),
        len(opened.catalog),
        settings=TrainSettings(**asked.budget, **SASREC_SETTINGS, seed=seed),  # type: ignore[arg-type]
        validation=validation_sample(opened.histories, opened.about.holdout, seed),
        progress=curve,
    )
    seconds = curve.seconds()
    found = _ranked(asked, opened, index, {SASREC: lambda training: trained.baseline})
    facts = {"shape": asdict(trained.shape), "settings": SASREC_SETTINGS}
    return Result(found, seconds, trained.baseline.parameters, trained.steps, {SASREC: curve.points}, facts)


def _tiger(asked: Asked, opened: Opened, seed: int) -> Result:
    """TIGER as published, by our trainer: codes of item texts alone, T5 over their tokens, the last twenty items."""
    import torch

    from genrec.training.finetune import checkpoint_directory, finetune_bundle
    from genrec.training.finetune_settings import FinetuneSettings
    from genrec.training.trainer_run import last_checkpoint

    torch.set_num_threads(asked.threads)
    began = time.monotonic()
    settings = IndexSettings(
        text_encoder=asked.text_encoder, holdout=opened.about.holdout, seed=seed, cooccurrence_weight=0.0
    )
    index = build_index(opened.catalog, opened.histories, settings, _told)
    indexed = round(time.monotonic() - began, 1)
    out = asked.work / f"tiger-{seed}"
    is_resumed = last_checkpoint(checkpoint_directory(out)) is not None
    curve = Curve(_spent_place(asked, TIGER, seed), is_resumed)
    trained = finetune_bundle(
        index,
        opened.histories,
        out,
        settings=FinetuneSettings(base=asked.tiger_base, **asked.budget, seed=seed),  # type: ignore[arg-type]
        progress=curve,
        stage=say,
        resume=is_resumed,
    )
    seconds = curve.seconds()
    found = _evaluated(asked, opened, out)
    return Result(
        _renamed(found, {GENREC: TIGER}),
        {"index": indexed, **seconds},
        trained.parameters,
        trained.steps,
        {TIGER: curve.points},
        {"validation": trained.validation},
        curve.before.cpu,
        is_resumed,
    )


def _free(asked: Asked, opened: Opened, system: str) -> Result:
    index = load_index(_index_place(asked, 0))
    began = time.monotonic()
    fit = baseline_fits(index)[system]
    model = fit(training_part(opened.histories, opened.about.holdout))
    seconds = round(time.monotonic() - began, 1)
    found = _ranked(asked, opened, index, {system: lambda training: model})
    return Result(found, {"train": seconds}, curves={system: [(0.0, _level(opened, index, fit, system))]})


def _level(opened: Opened, index: ItemIndex, fit: Any, system: str) -> float:
    """A training-free system on the validation cases that training looks at."""
    from genrec.training.train_bundle import VALIDATION_USERS

    found = evaluate_baselines(
        {system: fit},
        index,
        opened.histories,
        split=opened.about.split,
        part="validation",
        users=VALIDATION_USERS,
    )
    return found.systems[system][SELECTED]


def _ranked(asked: Asked, opened: Opened, index: ItemIndex, fits: Any) -> Evaluation:
    return evaluate_baselines(
        fits,
        index,
        opened.histories,
        split=opened.about.split,
        part=asked.part,
        users=asked.users,
        progress=_told,
    )


def _renamed(found: Evaluation, names: dict[str, str]) -> Evaluation:
    def moved(of: dict[str, Any]) -> dict[str, Any]:
        return {names.get(name, name): value for name, value in of.items()}

    return replace(
        found,
        systems=moved(found.systems),
        seconds=moved(found.seconds),
        calibration=moved(found.calibration),
        lists=moved(found.lists),
    )


def _spent_place(asked: Asked, system: str, seed: int) -> Path:
    return asked.work / f"{system}-{seed}.spent"


def _told(stage: str, done: int, total: int) -> None:
    if done in (0, total):
        say(f"{stage}: {done:,} of {total:,}")


def main() -> None:
    request = json.loads(sys.argv[1])
    system, seed = request.pop("system"), request.pop("seed")
    run_part(Asked(**{**request, "data": Path(request["data"]), "work": Path(request["work"])}), system, seed)


if __name__ == "__main__":
    main()
