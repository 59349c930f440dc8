"""Fine-tuning: any base becomes a bundle like any other; a killed run goes on as if nothing had been."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from genrec.bundle import load_bundle
from genrec.decoders.onnx_export import export_bundle
from genrec.evaluation.protocol import evaluate
from genrec.recommender import Recommender
from genrec.training import trainer_run
from genrec.training.adapters import LoraSettings
from genrec.training.base_model import PRESETS, load_base
from genrec.training.finetune import checkpoint_directory, finetune_bundle
from genrec.training.finetune_settings import FinetuneSettings
from genrec.training.pretrain import TrainProgress
from genrec.training.trainer_run import last_checkpoint
from index.errors import TrainingError
from index.item_index import ItemIndex
from tests.genrec.tiny_checkpoints import checkpoint
from tests.toy import toy_histories, toy_index

T5 = {"model_type": "t5", "d_model": 32, "d_ff": 64, "d_kv": 8, "num_heads": 4, "num_layers": 2}
SCRATCH = {"steps": 12, "validations": 2, "validation_users": 8, "batch_size": 8, "checkpoint_every": 5}


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return toy_index()


def config_file(directory: Path, **changes: Any) -> str:
    path = directory / "t5.json"
    path.write_text(json.dumps({**T5, **changes}))
    return str(path)


def test_a_causal_model_by_adapters_on_all_tasks_in_prose(index: ItemIndex, tmp_path: Path) -> None:
    """Pretrained shape: LoRA, titles and codes, evaluated, exported after the merge, loaded without torch's model."""
    base = checkpoint(tmp_path / "base", "gpt2", n_positions=256)
    before = load_file(base / "model.safetensors")
    settings = FinetuneSettings(str(base), lora=LoraSettings(rank=4), **SCRATCH)  # type: ignore[arg-type]
    result = finetune_bundle(index, toy_histories(), tmp_path / "out", settings=settings)
    assert result.steps == 12
    assert result.trained < result.parameters / 2
    assert {name: set(by) for name, by in result.validation.items()} == {
        "semantic_id": {"catalog", "vocabulary"},
        "title": {"catalog", "vocabulary"},
    }
    bundle = load_bundle(tmp_path / "out", verify=True)
    assert bundle.family == "causal_lm"
    assert not checkpoint_directory(tmp_path / "out").exists()

    recommender = Recommender.of_bundle(bundle)
    for mode in ("semantic_id", "title"):
        answer = recommender.recommend(["i0", "i4"], k=40, mode=mode, exclude_seen=False)  # type: ignore[arg-type]
        assert {item.item_id for item in answer.items} == set(index.catalog.item_ids)
    measured = evaluate(recommender, bundle.trained_events(), toy_histories(), users=30, baselines=False)
    assert measured.systems["genrec"]["validity"] == 1.0

    model = bundle.artifact.files / "model"
    after, old = load_file(model / "model.safetensors"), len(before["transformer.wte.weight"])
    np.testing.assert_array_equal(after["transformer.wte.weight"][:old], before["transformer.wte.weight"])
    np.testing.assert_array_equal(after["transformer.ln_f.weight"], before["transformer.ln_f.weight"])
    changed = "transformer.h.0.attn.c_attn.weight"
    assert not np.array_equal(after[changed], before[changed])
    assert (model / "adapter" / "adapter_model.safetensors").stat().st_size < 100_000

    report = export_bundle(tmp_path / "out", checks=1)
    assert report.worst.share < 1e-3
    asked: dict[str, Any] = {"history": ["i0", "i4"], "k": 5, "mode": "title"}
    exported = Recommender.load(tmp_path / "out", decoder="onnx").recommend(**asked)
    expected = recommender.recommend(**asked)
    assert [item.score for item in exported.items] == pytest.approx(
        [item.score for item in expected.items], abs=1e-3
    )


def test_an_encoder_decoder_from_a_config_learns_what_comes_next(index: ItemIndex, tmp_path: Path) -> None:
    """TIGER's shape, small: users walk from item i to i + 4."""
    settings = FinetuneSettings(
        config_file(tmp_path, dropout_rate=0.0, num_layers=1),
        steps=120,
        batch_size=32,
        learning_rate=1e-2,
        validations=1,
        validation_users=20,
    )
    seen: list[TrainProgress] = []
    finetune_bundle(index, toy_histories(), tmp_path / "out", settings=settings, progress=seen.append)
    assert seen[-1].done == 1.0
    assert seen[-1].validation is not None
    recommender = Recommender.load(tmp_path / "out")
    assert recommender.default_mode == "semantic_id"
    for start in range(0, 20, 3):
        answer = recommender.recommend([f"i{start}", f"i{start + 4}", f"i{start + 8}"], k=5)
        assert f"i{start + 12}" in [item.item_id for item in answer.items]


class Killed(Exception):
    """Stands for the power cut."""


def kill_at(step: int) -> Any:
    def progress(at: TrainProgress) -> None:
        if at.step == step:
            raise Killed

    return progress


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)], ids=["whole", "lora"])
def test_a_killed_run_resumes_to_the_same_weights(
    index: ItemIndex, tmp_path: Path, lora: LoraSettings | None
) -> None:
    """Killed in the middle of a checkpoint too: the one before it counts."""
    base = config_file(tmp_path, dropout_rate=0.1, num_layers=1)
    settings = FinetuneSettings(base, lora=lora, **SCRATCH)  # type: ignore[arg-type]
    histories = toy_histories()
    finetune_bundle(index, histories, tmp_path / "whole", settings=settings)
    with pytest.raises(Killed):
        finetune_bundle(index, histories, tmp_path / "cut", settings=settings, progress=kill_at(11))
    checkpoints = checkpoint_directory(tmp_path / "cut")
    assert last_checkpoint(checkpoints) == checkpoints / "checkpoint-10"
    (checkpoints / "checkpoint-11").mkdir()
    (checkpoints / "checkpoint-11" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(TrainingError, match="seed 3 where it has 0"):
        finetune_bundle(index, histories, tmp_path / "cut", settings=replace(settings, seed=3), resume=True)
    budget = checkpoints / "checkpoint-10" / trainer_run.BUDGET
    budget.write_text(json.dumps({**json.loads(budget.read_text()), "seconds": 5000.0}))
    seen: list[TrainProgress] = []
    result = finetune_bundle(
        index, histories, tmp_path / "cut", settings=settings, progress=seen.append, resume=True
    )
    assert seen[0].step == 11
    assert 5000 < result.seconds < 5000 + 600, "what went before the kill was forgotten"
    cut = load_bundle(tmp_path / "cut")
    assert cut.artifact.manifest["model"]["seconds"] == round(result.seconds, 1)
    assert result.steps == 12
    one, other = (
        load_file(load_bundle(tmp_path / name).artifact.files / "model" / "model.safetensors")
        for name in ("whole", "cut")
    )
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_titles_alone_need_no_codes(index: ItemIndex, tmp_path: Path) -> None:
    """GenRec: titles in prose, a title for an answer, the vocabulary left as it is."""
    base = checkpoint(tmp_path / "base", "qwen3", max_position_embeddings=256)
    settings = FinetuneSettings(str(base), tasks={"title": 1.0}, loss_on="all", **{**SCRATCH, "steps": 3})  # type: ignore[arg-type]
    finetune_bundle(index, toy_histories(), tmp_path / "out", settings=settings)
    bundle = load_bundle(tmp_path / "out")
    assert "history" not in bundle.artifact.manifest["model"]
    weights = load_file(bundle.artifact.files / "model" / "model.safetensors")
    size = len(load_file(base / "model.safetensors")["model.embed_tokens.weight"])
    assert len(weights["model.embed_tokens.weight"]) == size
    assert len(Recommender.of_bundle(bundle).recommend(["i3"], k=5).items) == 5


def test_a_budget_in_minutes_ends_in_time_and_validates(index: ItemIndex, tmp_path: Path) -> None:
    settings = FinetuneSettings(
        config_file(tmp_path), minutes=0.05, validation_users=10, validations=3, batch_size=8
    )
    seen: list[TrainProgress] = []
    result = finetune_bundle(
        index, toy_histories(), tmp_path / "out", settings=settings, progress=seen.append
    )
    assert result.steps >= 1
    assert seen[-1].done == 1.0
    assert [at.validation for at in seen if at.validation is not None]


def test_minutes_are_kept_for_the_last_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by hand: ten minutes, validations of one, which may take no more than a tenth of the time."""
    now = [1000.0]
    monkeypatch.setattr(trainer_run.time, "monotonic", lambda: now[0])
    settings = trainer_run.RunSettings(
        None, 10.0, 1e-3, 0, warmup=0.1, weight_decay=0.0, clip_norm=1.0, accumulate=1, validations=20, patience=2,
        checkpoint_every=100, on_cpu=True,
    )  # fmt: skip
    budget = trainer_run.Budget(settings, now[0], validates=True, progress=None)
    assert budget.done == 0.0
    now[0] += 60
    assert budget.done == pytest.approx(0.1)
    assert budget.validation_due()
    now[0] += 60
    assert not budget.validated({"ndcg@10": 0.5}, seconds=60.0)
    assert budget.done == pytest.approx(120 / 540), "a validation's time is kept free at the end"
    now[0] += 300
    assert not budget.validation_due(), "nine validations' time has not gone by"
    now[0] += 235
    assert budget.done > 1.0
    assert budget.validation_due()
    assert not budget.validated({"ndcg@10": 0.4}, seconds=60.0)
    assert budget.validated({"ndcg@10": 0.3}, seconds=60.0), "two without a better one"
    again = trainer_run.Budget(settings, now[0], validates=True, progress=None)
    stored = json.loads(json.dumps(budget.state()))
    now[0] += 10_000  # switched off over night
    again.restore(stored)
    assert again.done == pytest.approx(budget.done - 10_000 / 540)
    with pytest.raises(TrainingError, match="validation figures with ndcg@10"):
        budget.validated({"recall@10": 0.4}, seconds=1.0)


class TestBases:
    def test_tiger_has_the_paper_s_size(self) -> None:
        base = load_base("t5-tiger", 1024, seed=0, needs_text=False)
        assert base.is_encoder_decoder
        assert (base.token_offset, base.start, base.model.config.decoder_start_token_id) == (1, 0, 0)
        assert len(base.model.get_input_embeddings().weight) == 1025  # type: ignore[arg-type]
        assert 4e6 < sum(p.numel() for p in base.model.parameters()) < 14e6
        assert PRESETS["t5-tiger"]["num_layers"] == 4

    def test_new_rows_are_spread_as_the_old_ones(self, tmp_path: Path) -> None:
        base = load_base(str(checkpoint(tmp_path, "llama")), 50, seed=0, needs_text=False)
        for module in (base.model.get_input_embeddings(), base.model.get_output_embeddings()):
            old, new = module.weight[: base.token_offset], module.weight[base.token_offset :]
            assert torch.unique(new, dim=0).shape[0] == 50
            assert 0.8 < float(new.detach().std() / old.detach().std()) < 1.25

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"model_type": "no-such-model"}, "a model that transformers knows"),
            ({}, "a model that transformers knows"),
            (None, "expected a model directory, a bundle, a name known to Hugging Face"),
        ],
    )
    def test_no_model(self, tmp_path: Path, content: dict[str, Any] | None, message: str) -> None:
        if content is not None:
            (tmp_path / "config.json").write_text(json.dumps(content))
        base = str(tmp_path if content is not None else tmp_path / "nowhere")
        with pytest.raises(TrainingError, match=message):
            load_base(base, 3, seed=0, needs_text=False)

    def test_pickled_weights(self, tmp_path: Path) -> None:
        directory = checkpoint(tmp_path, "gpt2")
        (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
        with pytest.raises(TrainingError, match=r"weights in safetensors .* got pickled ones"):
            load_base(str(directory), 3, seed=0, needs_text=False)

    def test_a_model_without_a_tokenizer(self, tmp_path: Path) -> None:
        directory = checkpoint(tmp_path, "gpt2")
        (directory / "tokenizer.json").unlink()
        (directory / "tokenizer_config.json").unlink()
        load_base(str(directory), 3, seed=0, needs_text=False)
        with pytest.raises(TrainingError, match="expected a tokenizer beside the model"):
            load_base(str(directory), 3, seed=0, needs_text=True)

    def test_too_few_positions(self, index: ItemIndex, tmp_path: Path) -> None:
        base = checkpoint(tmp_path / "base", "gpt2", n_positions=16)
        settings = FinetuneSettings(str(base), steps=1)
        with pytest.raises(TrainingError, match="room for a history in the 16 positions"):
            finetune_bundle(index, toy_histories(), tmp_path / "out", settings=settings)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": None}, "one of steps, minutes and epochs, got none"),
        ({"minutes": 1.0}, "one of steps, minutes and epochs"),
        ({"steps": 0}, "steps above 0"),
        ({"batch_size": 0}, "batch_size above 0"),
        ({"tasks": {"song": 1.0}}, "tasks of semantic_id, .* got song"),
        ({"tasks": {"title": 0.0}}, "weights above 0"),
        ({"tasks": {"title_of_code": 1.0}}, "a task that answers requests"),
        ({"form": "verse"}, "form of compact, prose"),
        ({"loss_on": "prompts"}, "loss on answers or all"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        FinetuneSettings(**{"base": "t5-tiger", "steps": 5, **wrong})
