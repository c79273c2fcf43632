from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pellucid
from pellucid.app import cli
from pellucid.recipe import PRESETS

QUICK = ["--epochs", "2", "--precision", "float32", "--layout", "nchw", "--threads", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("trained")
    return Path(
        pellucid.train(
            "digits", net="lenet5", out=base / "run", epochs=6, precision="float32", layout="nchw", threads=1
        )
    )


def folder_of_colours(folder: Path, *names: str, n: int = 6, seed: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = generator.integers(0, 100, (20, 20, 3)) + np.array([50 * k, 0, 100 - 50 * k])
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_train_tells_what_it_understood_and_what_came_of_it(pellucid_command: Any, tmp_path: Path) -> None:
    answer = pellucid_command("train", "digits", "--net", "lenet5", *QUICK)
    assert answer.code == 0
    for part in (
        "classes  10: 0 142, 1 146, 2 142, 3 146, 4 145, 5 146, 6 145, 7 143, 8 139, 9 144",
        "(10% of train, stratified)",
        "grey, 8×8 -> 32×32 grey",
        "⌊(32 − 5 + 2·0)/1⌋ + 1 = 28",
        "61,706 parameters",
        "epoch 2/2",
        "95 % interval",
        "always the commonest class",
        "runs/digits-lenet5-1",
    ):
        assert part in answer.out, part
    assert (tmp_path / "runs" / "digits-lenet5-1" / "curves.png").is_file()
    assert pellucid_command("train", "digits", "--net", "lenet5", *QUICK).code == 0
    assert (tmp_path / "runs" / "digits-lenet5-2").is_dir()


def test_train_json_is_one_document_and_nothing_else(pellucid_command: Any) -> None:
    answer = pellucid_command("train", "digits", "--net", "lenet5", *QUICK, "--json")
    document = json.loads(answer.out)
    assert document["split"] == "val"
    assert document["n"] == sum(map(sum, document["confusion"]))
    assert "epoch 2/2" in answer.err


def test_help_fits_two_screens(pellucid_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    answer = pellucid_command("train", "--help")
    assert answer.code == 0
    assert len(answer.out.splitlines()) <= 120
    # Each preset is named.
    said = " ".join(answer.out.replace("│", " ").split())
    assert all(name in said for name in PRESETS)


def test_first_weights_and_a_found_rate_are_told(pellucid_command: Any) -> None:
    answer = pellucid_command("train", "digits", "--net", "lenet5", "--init", "he", "--lr", "find", *QUICK)
    assert answer.code == 0
    assert "first weights he" in answer.out
    assert re.search(r"conv1 +Conv2d\(1, 6, kernel_size=\(5, 5\)\) +0\.0\d+ +\d", answer.out)
    rate = re.search(r"learning rate (\S+) \(onecycle\)", answer.out)
    assert rate is not None
    assert f"rate     {rate[1]}, a tenth of " in answer.out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--init", "xaver"], "did you mean 'xavier'?"),
        (["--schedule", "onecycl"], "did you mean 'onecycle'?"),
        (["--preset", "keras"], "did you mean 'keras-cifar'?"),
        (["--teacher", "nowhere"], "no such folder"),
        (["--patience", "2"], "leave it away, or give at least --epochs 3"),
        (["--teacher", "run", "--loss", "focal"], "--teacher goes with --loss cross-entropy, not focal"),
        (["--augment", "flipp"], "'flip'"),
        (["--loss", "crossentropy"], "'cross-entropy'"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    pellucid_command: Any, tmp_path: Path, flags: list[str], sentence: str
) -> None:
    answer = pellucid_command("train", "digits", "--net", "lenet5", *QUICK, *flags)
    assert answer.code == 2 if sentence != "no such folder" else answer.code == 3
    assert sentence in " ".join(answer.err.replace("│", " ").split())
    assert not (tmp_path / "runs").exists()


def test_train_by_notation(pellucid_command: Any) -> None:
    net = "INPUT(1,12,12) -> [[CONV(8)]*2 -> POOL]*1 -> [FC(32)]*1 -> FC(10)"
    answer = pellucid_command("train", "digits", "--net", net, *QUICK, "--json")
    assert answer.code == 0
    config = json.loads((Path(json.loads(answer.out)["run"]) / "bundle" / "config.json").read_text("utf-8"))
    assert config["image"] == [1, 12, 12]


def test_a_recipe_file_repeats_a_run(pellucid_command: Any, trained: Path) -> None:
    answer = pellucid_command("train", "--recipe", trained / "recipe.json", "--json")
    assert answer.code == 0
    again = Path(json.loads(answer.out)["run"])
    files = [folder / "bundle" / "model.safetensors" for folder in (trained, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


EVAL_KEYS = [
    "data",
    "split",
    "n",
    "loss",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "baseline",
    "balanced_accuracy",
    "balanced_accuracy_low",
    "balanced_accuracy_high",
    "auc",
    "per_class",
    "confusion",
]


def test_eval_json_has_the_designs_keys(pellucid_command: Any, trained: Path) -> None:
    answer = pellucid_command("eval", trained, "digits", "--json")
    document = json.loads(answer.out)
    assert list(document) == EVAL_KEYS
    assert document["split"] == "test"
    assert document["accuracy_low"] < document["accuracy"] < document["accuracy_high"]
    assert document["accuracy"] > 0.8


def test_eval_for_people(pellucid_command: Any, trained: Path) -> None:
    answer = pellucid_command("eval", trained, "digits")
    assert answer.code == 0
    for part in ("test: the data's own test pictures", "95 % interval", "balanced accuracy", "ROC-AUC", "precision"):
        assert part in answer.out


COMPARISON_KEYS = [
    "data", "split", "n", "a", "b", "both_right", "only_a_right", "only_b_right", "both_wrong", "p_value",
    "difference", "difference_low", "difference_high", "differ",
]  # fmt: skip


def test_eval_of_two_runs_says_whether_they_differ(pellucid_command: Any, trained: Path) -> None:
    assert pellucid_command("train", "digits", "--net", "perceptron", *QUICK, "--lr", "1e-6", "--out", "poor").code == 0
    answer = pellucid_command("eval", trained, "poor", "digits")
    assert answer.code == 0
    assert re.search(rf"A  {trained}: accuracy 0\.\d+ on test \(95 % interval ", answer.out)
    assert re.search(r"right: both \d+, only A \d+, only B \d+, neither \d+", answer.out)
    assert re.search(r"B − A: -0\.\d+ \(95 % interval -0\.\d+ to -0\.\d+\); McNemar's exact test: p = ", answer.out)
    assert "they differ: A is better, by more than chance (p < 0.05)" in answer.out
    document = json.loads(pellucid_command("eval", trained, "--json", "poor", "digits", "--split", "test").out)
    assert list(document) == COMPARISON_KEYS
    assert document["differ"]
    assert list(document["a"]) == ["run", *EVAL_KEYS[2:]]
    same = pellucid_command("eval", trained, trained, "digits")
    assert "no difference shown: 359 pictures cannot tell them apart (p ≥ 0.05)" in same.out


def test_several_seeds_give_mean_and_deviation(pellucid_command: Any, tmp_path: Path) -> None:
    answer = pellucid_command("train", "digits", "--net", "lenet5", *QUICK, "--seeds", "2", "--seed", "3", "--json")
    assert answer.code == 0
    document = json.loads(answer.out)
    assert document["run"] == "runs/digits-lenet5-1"
    assert document["seeds"] == [3, 4]
    mean = sum(row["accuracy"] for row in document["runs"]) / 2
    assert document["accuracy"]["mean"] == pytest.approx(mean)
    for part in (
        "seed     4 (2 of 2)",
        f"accuracy {mean:.3f} ± {document['accuracy']['sd']:.3f} on val (mean ± sd of 2 seeds; 95 % interval of the ",
        "look at  runs/digits-lenet5-1/seeds.json",
    ):
        assert part in answer.err, part
    # What is as it was in the first run is not said again.
    assert answer.err.count("classes  10") == answer.err.count("61,706 parameters") == 1
    again = pellucid_command("train", "--resume", document["run"], "--json")
    assert again.code == 0
    assert json.loads(again.out) == document
    assert pellucid_command("eval", tmp_path / document["run"] / "seed-3", "digits").code == 0


def test_lopsided_classes_are_pointed_out_and_their_recall_is_told(pellucid_command: Any, tmp_path: Path) -> None:
    data = folder_of_colours(tmp_path / "d", "many", n=60)
    folder_of_colours(data, "few", n=8, seed=1)
    quick = [*QUICK, "--size", "8", "--val", "0.25"]
    answer = pellucid_command("train", data, *quick, "--out", "run")
    assert answer.code == 0
    for part in (
        "note     lopsided: many has 45 training pictures, few 6; --balance sample draws each class equally often",
        "\nbalanced accuracy ",
        "\nrecall   ",
    ):
        assert part in answer.out, part
    for balance in ("sample", "weights"):
        answer = pellucid_command("train", data, *quick, "--balance", balance, "--out", balance)
        assert "note     lopsided" not in answer.out
        assert re.search(r"recall   .*few [01]\.\d+ \(0\.\d+ to [01]\.\d+, n = 2\)", answer.out)
    card = (tmp_path / "sample" / "bundle" / "README.md").read_text("utf-8")
    assert "- Balanced accuracy, in which a rare class counts as much as a common one: " in card
    rows = [json.loads(line) for line in (tmp_path / "sample" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert all(row["val_accuracy_low"] <= row["val_accuracy"] <= row["val_accuracy_high"] for row in rows)
    assert all(0 <= row["val_balanced_accuracy"] <= 1 for row in rows)


def test_a_first_run_fetches_nothing(
    pellucid_command: Any, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a network that answers to nobody: train on a folder, evaluate, predict, explain, verify, compare."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was asked for")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(f"socket.socket.{name}", refuse)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(f"socket.{name}", refuse)
    data = folder_of_colours(tmp_path / "d", "red", "blue", n=12)
    assert pellucid_command("train", data, "--size", "16", *QUICK, "--out", "run").code == 0
    picture = data / "red" / "0.png"
    for arguments in (
        ("eval", "run", data), ("eval", "run", "run", data), ("predict", "run", picture), ("verify", "run"),
        ("explain", "run", picture, "--html", "page.html"), ("eval", trained, "digits"),
    ):  # fmt: skip
        assert pellucid_command(*arguments).code == 0, arguments
    # Nor does the page that is left ask for anything when it is opened.
    page = (tmp_path / "page.html").read_text("utf-8")
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\(\s*[\"']?(?:https?:)?//", page)


def test_predict_json_lines_and_a_bad_file(pellucid_command: Any, trained: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "a 图.png", tmp_path / "b.jpg"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(good)
    bad.write_text("no picture", encoding="utf-8")
    answer = pellucid_command("predict", trained, good, bad, "missing.png", good, "--json")
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert answer.code == 3
    assert [set(row) for row in rows] == [
        {"file", "label", "probability", "probabilities"},
        {"file", "error"},
        {"file", "error"},
        {"file", "label", "probability", "probabilities"},
    ]
    assert rows[0] == rows[3]
    assert "missing.png" in rows[2]["error"]
    human = pellucid_command("predict", trained, good, bad)
    assert human.code == 3
    assert str(good) in human.out
    assert "b.jpg" in human.err


def test_verify(pellucid_command: Any, trained: Path) -> None:
    assert pellucid_command("verify", trained).code == 0
    assert json.loads(pellucid_command("verify", trained, "--json").out)["difference"] < 1e-5


def test_verify_leaves_with_4_where_something_differs_and_3_where_nothing_opens(
    pellucid_command: Any, trained: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "copy"
    shutil.copytree(trained / "bundle", bundle)
    assert pellucid_command("verify", bundle).code == 0
    config = bundle / "preprocessor_config.json"
    sound = config.read_text("utf-8")
    config.write_text(sound.replace('"image_mean": [', '"image_mean": [ '), encoding="utf-8")
    changed = pellucid_command("verify", bundle)
    assert (changed.code, changed.out) == (4, "")
    assert "preprocessor_config.json: is not the file that was saved with this bundle" in changed.err
    # What it answers is not worse for it, and it says so nowhere else.
    assert pellucid_command("predict", bundle, bundle / "selftest" / "0.png").code == 0
    config.write_text(sound, encoding="utf-8")
    (bundle / "selftest" / "expected.json").unlink()
    gone = pellucid_command("verify", bundle)
    assert (gone.code, gone.out) == (3, "")
    assert "expected.json: there is no such file" in gone.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["trian", "digits"], 2, "no command 'trian': did you mean 'train'?"),
        (["train"], 2, "DATA is missing"),
        (["train", "digits", "--lr", "-1"], 2, "a learning rate is above 0"),
        (["train", "digits", "--lr", "fast"], 2, "--lr"),
        (["train", "digits", "--epoch", "3"], 2, "--epochs"),
        (["train", "digits", "--net", "lenet"], 2, "did you mean 'lenet5'?"),
        (["train", "digits", "--net", "INPUT -> CONV(8 -> FC(10)"], 2, "CONV"),
        (["train", "digits", "--net", "INPUT(1,8,8) -> CONV(8, kernel=9, padding=valid) -> FC(10)"], 2, "9×9"),
        (["train", "digits", "--net", "INPUT -> FC(7)"], 2, "FC(10)"),
        (["train", "digits", "--net", "lenet5", "--size", "16"], 2, "conv"),
        (["train", "digits", "--preset", "qick"], 2, "did you mean 'quick'?"),
        (["train", "digits", "--recipe", "nowhere.json"], 3, "nowhere.json"),
        (["train", "digits", "--device", "cuda"], 2, "--device cuda"),
        (["train", "cat-pictures"], 3, "cat-pictures"),
        (["train", "digts"], 3, "did you mean 'digits'?"),
        (["eval", "nowhere", "digits"], 3, "nowhere"),
        (["predict", "nowhere", "a.jpg"], 3, "nowhere"),
        (["train", "--resume", "nowhere"], 3, "nowhere"),
        (["train", "--resume", "r", "--weights", "w"], 2, "--weights w does not go with --resume"),
        (["train", "--resume", "r", "--freeze", "2"], 2, "leave --freeze away, or begin a new run with --weights r"),
        (["train", "--resume", "r", "--head", "svm"], 2, "--head svm does not go with --resume"),
        (["train", "digits", "--weights", "nowhere.pth"], 3, "nowhere.pth: there is no such file"),
        (["train", "digits", "--weights", "nowhere"], 3, "nowhere: no such file or folder; expected a .safetensors"),
        (["train", "digits", "--weights", "hf:timm"], 2, "hf:timm: expected hf:owner/name"),
        (["train", "digits", "--freeze", "5"], 2, "at most 4 can be frozen"),
        (["train", "digits", "--freeze", "haed"], 2, "{head}"),
        (["train", "digits", "--lr-decay-by-depth", "1.5"], 2, "--lr-decay-by-depth 1.5: expected a number above 0"),
        (["train", "digits", "--head", "smv"], 2, "did you mean 'svm'?"),
        (["train", "digits", "--head", "svm", "--freeze", "head"], 2, "--head svm passes no gradient on"),
        (["train", "digits", "--head", "svm", "--weights", "w", "--epochs", "3"], 2, "so --epochs 3 has nothing to"),
        (["train", "digits", "--seeds", "1"], 2, "--seeds 1: expected a whole number from 2 to 1000"),
        (["train", "--resume", "r", "--seeds", "3"], 2, "--seeds 3 does not go with --resume"),
        (["train", "digits", "--balance", "sample", "--head", "svm"], 2, "--balance sample does not reach --head svm"),
        (["eval", "nowhere", "elsewhere", "digits"], 3, "nowhere"),
        (["train", "digits", "--preset", "finetun"], 2, "did you mean 'finetune'?"),
    ],
)
def test_a_mistake_is_a_sentence_and_a_code(
    pellucid_command: Any, tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    if "cuda" in arguments:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    answer = pellucid_command(*arguments)
    assert answer.code == code
    assert sentence in answer.err + answer.out
    assert not (tmp_path / "runs").exists()


def test_data_that_cannot_be_trained_on(pellucid_command: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    answer = pellucid_command("train", tmp_path / "empty")
    assert (answer.code, str(tmp_path / "empty") in answer.err) == (3, True)

    folder_of_colours(tmp_path / "one", "red")
    answer = pellucid_command("train", tmp_path / "one")
    assert answer.code == 3
    assert "red" in answer.err

    folder_of_colours(tmp_path / "hollow", "red", "blue")
    (tmp_path / "hollow" / "green").mkdir()
    answer = pellucid_command("train", tmp_path / "hollow")
    assert answer.code == 3
    assert "green" in answer.err

    folder_of_colours(tmp_path / "more" / "train", "red", "blue")
    folder_of_colours(tmp_path / "more" / "val", "red", "bleu")
    answer = pellucid_command("train", tmp_path / "more")
    assert answer.code == 3
    assert "bleu" in answer.err
    assert not (tmp_path / "runs").exists()


def test_class_names_in_chinese_reach_every_file(pellucid_command: Any, tmp_path: Path) -> None:
    data = folder_of_colours(tmp_path / "花 图", "玫瑰", "向日葵", n=12)
    answer = pellucid_command("train", data, "--size", "16", *QUICK, "--json")
    assert answer.code == 0
    document = json.loads(answer.out)
    assert [row["class"] for row in document["per_class"]] == ["向日葵", "玫瑰"]
    assert (Path(document["run"]) / "confusion.png").is_file()
    assert pellucid_command("predict", document["run"], data / "玫瑰" / "0.png", "--json").code == 0


def test_chinese_names_on_a_terminal_that_has_no_such_letters(tmp_path: Path) -> None:
    """Nor any font: the run ends well, says what its plots show instead, and its files hold the names as they are."""
    data = folder_of_colours(tmp_path / "花 图", "玫瑰", "向日葵", n=12)
    poor = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    process = _run("train", str(data), "--size", "16", *QUICK, "--out", "跑", "--json", **poor)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    document = json.loads(out)
    assert [row["class"] for row in document["per_class"]] == ["向日葵", "玫瑰"]
    assert document["notes"] == [note for note in document["notes"] if "no installed font" in note]
    config = json.loads((tmp_path / "跑" / "bundle" / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "向日葵", "1": "玫瑰"}
    process = _run("predict", "跑", str(data / "玫瑰" / "0.png"), "--json", **poor)
    out, err = process.communicate(timeout=120)
    assert set(json.loads(out)["probabilities"]) == {"向日葵", "玫瑰"}


def _run(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pellucid", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings},
    )


def test_ctrl_c_saves_and_resume_goes_on(tmp_path: Path) -> None:
    process = _run("train", "digits", "--net", "lenet5", *QUICK[2:], "--epochs", "200", "--out", "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert "pellucid train --resume run" in out
    done = len(metrics.read_text("utf-8").splitlines())
    assert 1 <= done < 200
    process = _run("train", "--resume", "run")
    while len(metrics.read_text("utf-8").splitlines()) < done + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    rows = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) > done


@pytest.mark.parametrize("own", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "5"}])
def test_how_threads_wait_is_set_before_torch_unless_the_user_has(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, str]
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    cli.main(["--version"])
    found = {name: os.environ[name] for name in names if name in os.environ}
    assert found == (own or {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"})


def test_a_reader_that_goes_away_is_no_error(trained: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m pellucid eval {trained} digits | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_help(pellucid_command: Any, command: str) -> None:
    answer = pellucid_command(command, "--help")
    assert answer.code == 0
    assert f"usage: pellucid {command}" in answer.out


def test_help_and_version(pellucid_command: Any) -> None:
    assert pellucid_command("--version").out == f"pellucid {pellucid.__version__}\n"
    assert all(command in pellucid_command("--help").out for command in cli.COMMANDS)
    assert pellucid_command().code == 2


def test_a_preset_prints_as_a_recipe_that_can_be_edited_and_run(pellucid_command: Any, tmp_path: Path) -> None:
    shown = pellucid_command("train", "digits", "--net", "lenet5", *QUICK, "--show-recipe")
    assert shown.code == 0
    recipe = tmp_path / "mine.toml"
    recipe.write_text(shown.out.replace("epochs = 2", "epochs = 1"), encoding="utf-8")
    assert not (tmp_path / "runs").exists()
    answer = pellucid_command("train", "--recipe", recipe)
    assert answer.code == 0
    assert "epoch 1/1" in answer.out


def test_a_run_is_fine_tuned_and_a_head_put_on_it(pellucid_command: Any, trained: Path, tmp_path: Path) -> None:
    tune = ["--freeze", "2", "--lr-decay-by-depth", "0.7", "--out", "tuned"]
    answer = pellucid_command("train", "digits", "--weights", trained, *QUICK, *tune)
    assert answer.code == 0
    for part in (
        f"note     begins with the weights of {trained} (lenet5): 10 of the network's 10 tensors are taken over",
        "note     frozen: 2 of 5 layers and blocks; 59,134 of 61,706 parameters are trained",
        "learning rate 0.05 (onecycle, times 0.7 a layer down)",
        "epoch 2/2",
    ):
        assert part in answer.out, part
    answer = pellucid_command("train", "digits", "--weights", "tuned", "--head", "svm", "--out", "topped")
    assert answer.code == 0
    for part in (
        "recipe   no training: svm on the features of these weights, seed 0",
        "note     --head svm: fitted on 84 features of each of the 1,293 training pictures",
        "svm on the weights as they came",
    ):
        assert part in answer.out, part
    assert "epoch" not in answer.out
    assert pellucid_command("verify", "topped").code == 0
    document = json.loads(pellucid_command("eval", "topped", "digits", "--json").out)
    assert document["accuracy"] > 0.8
    assert json.loads((tmp_path / "topped" / "result.json").read_text("utf-8"))["head"] == "svm"
    picture = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    row = json.loads(pellucid_command("predict", "topped", picture, "--json").out)
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_a_file_of_weights_gives_its_network_and_a_new_last_layer(pellucid_command: Any, tmp_path: Path) -> None:
    import torch

    from pellucid import nets

    data = folder_of_colours(tmp_path / "d", "red", "blue", n=8)
    torch.save(nets.build("resnet20", 10, (3, 32, 32), seed=1).state_dict(), tmp_path / "w.pth")
    quick = [*QUICK, "--epochs", "1", "--freeze", "head", "--out", "run"]
    answer = pellucid_command("train", data, "--weights", "w.pth", *quick)
    assert answer.code == 0
    assert "begins with the weights of w.pth (resnet20)" in answer.out
    assert "fc has 10 outputs there and 2 here: it starts fresh" in answer.out
    config = json.loads((tmp_path / "run" / "bundle" / "preprocessor_config.json").read_text("utf-8"))
    assert config["image_mean"] == [0.485, 0.456, 0.406]
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text("utf-8"))
    assert recipe["weights"].startswith(f"{tmp_path / 'w.pth'}#sha256:")


def test_a_class_more_is_learnt_from_where_a_run_stood(pellucid_command: Any, tmp_path: Path) -> None:
    data = folder_of_colours(tmp_path / "d", "a", "b", n=12)
    assert pellucid_command("train", data, "--size", "16", *QUICK, "--out", "two").code == 0
    folder_of_colours(data, "0 new", n=12, seed=1)
    answer = pellucid_command("train", data, "--weights", "two", *QUICK, "--out", "three")
    assert answer.code == 0
    assert "head: 2 of 3 classes take over their row, by name; fresh: 0 new" in answer.out
    # No picture that the first run was trained on is held out.
    assert "flatters" not in answer.out


def test_the_preset_for_fine_tuning_prints_as_a_recipe(pellucid_command: Any) -> None:
    shown = pellucid_command("train", "digits", "--preset", "finetune", "--weights", "w.pth", "--show-recipe").out
    for line in ('weights = "w.pth"', "# freeze = ...", "lr_decay_by_depth = 0.8", 'augment = ["flip", "crop"]'):
        assert line in shown.splitlines(), line


@pytest.mark.parametrize("swallowed", [False, True])
def test_an_interrupt_while_something_is_imported_is_the_end(swallowed: bool) -> None:
    """Though whoever is in the midst of it swallows the exception, as Python's own destructors do."""
    code = f"""
import os, signal, sys, time
from pellucid.app import cli

class Interrupted:
    def find_spec(self, name, *_):
        if name == "pellucid.app.flags":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except KeyboardInterrupt:
                if not {swallowed}:
                    raise

sys.meta_path.insert(0, Interrupted())
sys.argv = ["pellucid", "train", "digits", "--show-recipe"]
sys.exit(cli.main())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "pellucid: interrupted\n")


def test_an_interrupt_elsewhere_is_an_exception_and_other_programs_handlers_stand() -> None:
    code = """
import os, signal, sys
from unittest import mock
from pellucid.app import cli, flags

with mock.patch.object(flags, "read", side_effect=lambda *_: os.kill(os.getpid(), signal.SIGINT)):
    sys.argv = ["pellucid", "train", "digits"]
    assert cli.main() == 130
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
own = lambda *_: None
signal.signal(signal.SIGINT, own)
sys.argv = ["pellucid", "--version"]
assert cli.main() == 0
assert signal.getsignal(signal.SIGINT) is own
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
