"""genrec export: what it writes, when it refuses, and what a bundle then runs on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration
from typer.testing import CliRunner

from genrec.bundle import load_bundle, save_changed_index
from genrec.cli.main import app
from genrec.decoders import export_files, onnx_export
from genrec.decoders.body_graph import BodyGraph
from genrec.decoders.export_check import compare, require_equal
from genrec.decoders.exported import NATIVE
from genrec.decoders.native_decoder import NativeDecoder
from genrec.decoders.onnx_decoder import OnnxDecoder
from genrec.decoders.onnx_export import export_bundle
from genrec.decoders.onnx_native import OnnxNativeDecoder
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.recommender import Recommender
from genrec.search import Normalize
from genrec.wishes import Wishes
from index.artifact import open_artifact
from index.errors import DecoderError, IndexFormatError, MissingDependencyError, RequestError
from index.item_index import ItemIndex
from index.maintenance import remove_items
from tests.genrec import tiny_models
from tests.genrec.onnx_models import exported, language_bundle, native_bundle
from tests.toy import toy_index

ROOT = Path(__file__).resolve().parent.parent.parent
WRITERS = {"native": native_bundle, "qwen3": language_bundle}


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return toy_index()


@pytest.fixture(scope="module")
def finished(index: ItemIndex, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An exported bundle of either kind, int8 included. Tests that change one copy it first."""
    bundles = {}
    for name, write in WRITERS.items():
        bundles[name] = write(tmp_path_factory.mktemp(name) / "bundle", index)
        export_bundle(bundles[name], int8=True, gate=0.5)
    return bundles


@pytest.fixture(params=list(WRITERS))
def bundle(request: pytest.FixtureRequest, finished: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to do anything with."""
    return Path(shutil.copytree(finished[request.param], tmp_path / "bundle"))


@pytest.fixture
def plain(index: ItemIndex, tmp_path: Path) -> Path:
    """A bundle that was not exported."""
    return native_bundle(tmp_path / "plain", index)


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


class TestWhatIsWritten:
    def test_the_manifest_says_where_the_export_came_from(self, bundle: Path) -> None:
        opened = load_bundle(bundle, verify=True)
        facts = opened.export
        assert facts is not None
        assert facts.family == opened.family
        assert facts.opset == 23
        assert set(facts.versions) >= {"torch", "onnx", "onnxruntime"}
        assert facts.source == opened.model_hashes()
        assert any(name.endswith(".safetensors") for name in facts.source)
        assert "F32" in facts.source_dtype
        assert facts.graphs["float32"]["difference"] < 1e-5
        assert facts.graphs["float32"]["logits"] > 1000
        assert 0.5 <= facts.graphs["int8"]["overlap"] <= 1
        files = opened.artifact.manifest["files"]
        assert {"onnx/float32/body.onnx", "onnx/int8/body.onnx"} <= set(files)
        assert files["onnx/int8/body.onnx"]["bytes"] < files["onnx/float32/body.onnx"]["bytes"]

    def test_exporting_again_writes_the_same_bytes(self, bundle: Path) -> None:
        before = contents(open_artifact(bundle).files)
        export_bundle(bundle, int8=True, gate=0.5)
        assert contents(open_artifact(bundle, verify=True).files) == before

    def test_an_export_without_int8_replaces_one_with_it(self, bundle: Path) -> None:
        export_bundle(bundle)
        assert not list(open_artifact(bundle).files.rglob("int8/*"))
        with pytest.raises(IndexFormatError, match=r"the graph 'int8', got \['float32'\]; run: .* --int8"):
            load_bundle(bundle).decoder("onnx-int8")

    def test_nothing_is_pickled(self, bundle: Path) -> None:
        for name in contents(open_artifact(bundle).files / "onnx"):
            assert Path(name).suffix in {".onnx", ".npy"}
        for array in (open_artifact(bundle).files / "onnx").rglob("*.npy"):
            assert np.load(array, allow_pickle=False).dtype != object

    def test_weights_too_many_for_one_file_stand_beside_it(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A protocol buffer ends at 2 GiB."""
        monkeypatch.setattr("genrec.decoders.onnx_graph._ONE_FILE_BYTES", 0)
        expected = Recommender.load(bundle).recommend(["i1"], k=5)
        export_bundle(bundle, int8=True, gate=0.5)
        onnx = open_artifact(bundle).files / "onnx"
        assert (onnx / "float32" / "body.onnx.data").stat().st_size > 1000
        if (
            load_bundle(bundle).family != NATIVE
        ):  # whose small matrices of bytes are below what the writer moves out
            assert (onnx / "int8" / "body.onnx.data").stat().st_size > 1000
        assert Recommender.load(bundle, verify=True).recommend(["i1"], k=5) == expected
        assert len(Recommender.load(bundle, "onnx-int8").recommend(["i1"], k=5).items) == 5

    def test_the_report_counts_bytes(self, plain: Path) -> None:
        said: list[str] = []
        report = export_bundle(plain, checks=1, stage=said.append)
        onnx = open_artifact(plain).files / "onnx"
        assert report.files == {name: len(content) for name, content in contents(onnx).items()}
        assert "comparing with torch" in said
        assert report.overlap is None

    def test_an_index_that_changes_takes_the_export_along(self, bundle: Path) -> None:
        """The graphs know codes, not items: items may go and come."""
        opened = load_bundle(bundle)
        changed = remove_items(opened.index, ["i3", "i5"])
        save_changed_index(opened.artifact, changed, bundle)
        answers = [Recommender.load(bundle, name).recommend(["i1"], k=38) for name in ("onnx", "torch")]
        ids = [[item.item_id for item in answer.items] for answer in answers]
        assert ids[0] == ids[1]
        assert not {"i3", "i5"} & set(ids[0])


class TestWhatRuns:
    def test_answers_equal_those_of_torch(self, bundle: Path) -> None:
        onnx, torch_one = Recommender.load(bundle), Recommender.load(bundle, "torch")
        assert isinstance(onnx.decoder, OnnxNativeDecoder | OnnxDecoder)
        assert isinstance(torch_one.decoder, NativeDecoder | TorchDecoder)
        histories = [[], ["i1"], ["i1", "i5", "i9"], [f"i{n}" for n in range(20)]]
        for where in (None, "year >= 2000", "genre == 'horror'"):
            for normalize in get_args(Normalize):
                wishes = Wishes(k=5, where=where, normalize=normalize)
                ours = onnx.recommend_batch(histories, wishes)
                theirs = torch_one.recommend_batch(histories, wishes)
                for one, other in zip(ours, theirs, strict=True):
                    assert [item.item_id for item in one.items] == [item.item_id for item in other.items]
                    scores = [item.score for item in other.items]
                    np.testing.assert_allclose([item.score for item in one.items], scores, atol=1e-4)

    def test_int8_runs_when_asked_for(self, bundle: Path) -> None:
        history = ["i1", "i5"]
        exact = Recommender.load(bundle).recommend(history, k=20)
        rough = Recommender.load(bundle, "onnx-int8").recommend(history, k=20)
        found = {item.item_id for item in exact.items} & {item.item_id for item in rough.items}
        assert len(found) >= 10
        assert [item.score for item in exact.items] != [item.score for item in rough.items]

    def test_torch_runs_what_was_not_exported(self, plain: Path) -> None:
        assert isinstance(load_bundle(plain).decoder(), NativeDecoder)
        with pytest.raises(IndexFormatError, match=r"expected an export in .*, got none; run: genrec export"):
            load_bundle(plain).decoder("onnx")

    @pytest.mark.parametrize(
        ("kind", "missing", "message"),
        [
            ("exported", {"onnxruntime"}, None),
            ("exported", {"onnxruntime", "torch"}, r"pip install 'genrec\[serve\]'"),
            (
                "plain",
                {"torch"},
                r"run: genrec export .*plain; or install it with: pip install 'genrec\[train\]'",
            ),
        ],
    )
    def test_auto_takes_what_is_installed_or_says_what_to_do(
        self,
        finished: dict[str, Path],
        plain: Path,
        monkeypatch: pytest.MonkeyPatch,
        kind: str,
        missing: set[str],
        message: str | None,
    ) -> None:
        monkeypatch.setattr(
            "genrec.bundle_decoders.find_spec", lambda name: None if name in missing else object()
        )
        opened = load_bundle(finished["native"] if kind == "exported" else plain)
        if message is None:
            assert isinstance(opened.decoder(), NativeDecoder)
        else:
            with pytest.raises(MissingDependencyError, match=message):
                opened.decoder()

    def test_an_unknown_decoder(self, finished: dict[str, Path]) -> None:
        with pytest.raises(
            RequestError, match="expected a decoder of auto, onnx, onnx-int8, torch, got 'cuda'"
        ):
            Recommender.load(finished["native"], "cuda")  # type: ignore[arg-type]

    def test_no_torch_is_imported(self, finished: dict[str, Path]) -> None:
        code = (
            "import sys, genrec\n"
            "for path in sys.argv[1:]:\n"
            "    recommender = genrec.Recommender.load(path, verify=True)\n"
            "    answer = recommender.recommend(['i1'], k=5, where='year >= 1990', exact=True)\n"
            "    assert len(answer.items) == answer.certified == 5\n"
            "print({'torch', 'transformers', 'onnx'} & set(sys.modules))"
        )
        command = [sys.executable, "-W", "error", "-c", code, *map(str, finished.values())]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "set()", done.stderr


class TestRefusals:
    @pytest.mark.parametrize("file", ["float32/body.onnx", "matrices/code_embedding.npy", "matrices/out.npy"])
    def test_an_export_that_is_not_the_model(
        self, plain: Path, monkeypatch: pytest.MonkeyPatch, file: str
    ) -> None:
        """One weight changed between torch and ONNX: the comparison finds it and the bundle stays as it was."""
        before = contents(plain)
        write = export_files.write_native

        def tampering(model: Any, directory: Path) -> Any:
            with torch.no_grad():
                one = {
                    "float32/body.onnx": model.body.layers[1].mlp.down_proj.weight[:3],
                    "matrices/code_embedding.npy": model.code_embedding.weight[9],
                    "matrices/out.npy": model.heads[1].out.weight[3],
                }[file]
                kept = one.clone()
                one += 0.01
                shape = write(model, directory)
                one.copy_(kept)
            return shape

        monkeypatch.setattr(onnx_export, "write_native", tampering)
        with pytest.raises(
            DecoderError,
            match=r"within 0.0001 of the model in torch, got .* of the largest logit at .*length",
        ):
            export_bundle(plain)
        assert contents(plain) == before

    @pytest.mark.parametrize(
        ("field", "value"), [("gate", 1.1), ("gate", -0.1), ("gate", float("nan")), ("checks", 0)]
    )
    def test_settings_that_make_no_sense(self, plain: Path, field: str, value: float) -> None:
        with pytest.raises(RequestError, match="expected checks >= 1 and a gate of 0 to 1"):
            export_bundle(plain, **{field: value})  # type: ignore[arg-type]

    def test_int8_below_the_gate(self, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = contents(plain)
        monkeypatch.setattr(onnx_export, "top_overlap", lambda *_, **__: 0.9421)
        with pytest.raises(
            DecoderError, match=r"find 95.0% of the float model's top 20, got 94.2%; nothing was"
        ):
            export_bundle(plain, int8=True)
        assert contents(plain) == before

    def test_int8_is_measured_on_the_histories_given(
        self, plain: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []
        monkeypatch.setattr(onnx_export, "top_overlap", lambda *args, **_: asked.extend(args[3]) or 1.0)
        export_bundle(plain, int8=True, histories=[np.array([3, 4]), np.array([5])])
        assert [prompt[0].rows.tolist() for prompt in asked] == [[3, 4], [5]]

    def test_a_flipped_bit_in_any_file(self, finished: dict[str, Path], tmp_path: Path) -> None:
        for source in finished.values():
            files = open_artifact(source).files
            for name in contents(files):
                if name.startswith(("onnx/", "model/")) and (files / name).stat().st_size:
                    broken = Path(shutil.copytree(source, tmp_path / "broken"))
                    file = open_artifact(broken).files / name
                    content = bytearray(file.read_bytes())
                    content[len(content) // 2] ^= 1
                    file.write_bytes(content)
                    with pytest.raises(
                        IndexFormatError, match=f"{Path(name).name} as it was saved, got other"
                    ):
                        Recommender.load(broken, verify=True)
                    with pytest.raises(IndexFormatError, match="got other bytes"):
                        export_bundle(broken)
                    shutil.rmtree(broken)

    def test_a_truncated_file_is_refused_even_unverified(self, bundle: Path) -> None:
        file = open_artifact(bundle).files / "onnx" / "float32" / "body.onnx"
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(IndexFormatError, match="bytes"):
            Recommender.load(bundle)

    def test_an_export_of_other_weights(
        self, finished: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = load_bundle(finished["native"])
        monkeypatch.setattr(type(opened), "model_hashes", lambda _: {"model/other": "0"})
        with pytest.raises(IndexFormatError, match="got one of other weights; run: genrec export"):
            opened.decoder()
        assert isinstance(opened.decoder("torch"), NativeDecoder)

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (tiny_models.phi, "expected a body of GPT2Model, .*, got PhiModel; run this model in torch"),
            (
                lambda: T5ForConditionalGeneration(
                    T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
                ),
                "got T5ForConditionalGeneration",
            ),
            (
                lambda: tiny_models.llama(
                    rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
                ),
                "expected rotary positions of .* to export, got 'dynamic'",
            ),
            (
                lambda: tiny_models.gpt2(activation_function="relu"),
                "expected an activation of .*, got 'relu'",
            ),
        ],
        ids=["phi", "t5", "dynamic positions", "relu"],
    )
    def test_models_that_cannot_be_exported(self, model: Callable[[], Any], message: str) -> None:
        with pytest.raises(DecoderError, match=message):
            BodyGraph(model().base_model)

    def test_an_encoder_decoder_on_disk(self, tmp_path: Path) -> None:
        config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        T5ForConditionalGeneration(config).save_pretrained(tmp_path)
        with pytest.raises(
            DecoderError, match=r"expected a causal language model in .*, got the encoder-decoder 't5'"
        ):
            TorchDecoder.load(tmp_path)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {"activation_function": "gelu", "scale_attn_by_inverse_layer_idx": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 2}),
        ("qwen3", {"num_key_value_heads": 1, "tie_word_embeddings": False}),
        ("qwen3", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    ],
    ids=str,
)
def test_variants_of_the_families(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_models.MODELS[family](**changes)
    with torch.no_grad():
        for parameter in model.parameters():  # norms start at one and biases at zero, which would hide them
            parameter.add_(0.1 * torch.randn_like(parameter))
    decoder = TorchDecoder(model)
    worst = compare(decoder, exported(decoder, tmp_path), onnx_export.language_cases(decoder, 0), seed=0)
    require_equal(worst)
    assert worst.share < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_large_vocabulary_is_summed_by_a_graph(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = TorchDecoder(tiny_models.MODELS[family]())
    monkeypatch.setattr(export_files, "_HEAD_GRAPH_FROM", decoder.vocabulary * 32)
    onnx = exported(decoder, tmp_path)
    assert (tmp_path / "float32" / "head.onnx").is_file()
    monkeypatch.setattr("genrec.decoders.numpy_head._CHUNK_FLOATS", 100)  # several runs
    worst = compare(decoder, onnx, onnx_export.language_cases(decoder, 0), seed=0)
    assert worst.share < 1e-5
    with torch.no_grad():
        decoder.model.get_output_embeddings().weight[5, :3] += (
            0.05  # a shift of all would be lost in the norm
        )
    assert compare(decoder, onnx, onnx_export.language_cases(decoder, 0), seed=0).share > 1e-4


def test_the_comparison_calls_no_number_a_difference(tmp_path: Path) -> None:
    decoder = TorchDecoder(tiny_models.gpt2())
    onnx = exported(decoder, tmp_path)
    onnx._head.weight = np.full_like(onnx._head.weight, np.nan)
    worst = compare(decoder, onnx, onnx_export.language_cases(decoder, 0), seed=0)
    assert worst.share == np.inf
    with pytest.raises(DecoderError, match="got inf of the largest logit"):
        require_equal(worst)


class TestCommand:
    def test_a_person_reads_files_and_the_worst_difference(self, plain: Path) -> None:
        done = CliRunner().invoke(app, ["export", str(plain), "--int8", "--gate", "0.5", "--check", "1"])
        assert done.exit_code == 0, done.output
        assert "float32/body.onnx" in done.stdout
        assert "int8 finds" in done.stdout
        assert "logits with torch: at most" in done.stdout
        assert "comparing with torch" in done.stderr

    def test_a_program_reads_one_object(self, plain: Path, tmp_path: Path) -> None:
        events = tmp_path / "events.csv"
        events.write_text("user,item,timestamp\n" + "".join(f"u{n % 7},i{n},{n}\n" for n in range(40)))
        done = CliRunner().invoke(
            app, ["export", str(plain), "--json", "--int8", "--gate", "0", "--interactions", str(events)]
        )
        assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        assert report["worst_difference"] < 1e-5
        assert report["files"]["float32/body.onnx"] > 0
        assert 0 <= report["int8_overlap"] <= 1

    def test_an_index_is_no_bundle(self, index: ItemIndex, tmp_path: Path) -> None:
        index.save(tmp_path / "toy.index")
        done = CliRunner().invoke(app, ["export", str(tmp_path / "toy.index")])
        assert isinstance(done.exception, IndexFormatError)
        assert "make one with: genrec train" in str(done.exception)
