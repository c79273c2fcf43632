from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid import nets
from pellucid.bundle.recogniser import BATCH, Prediction, Recogniser, infer
from pellucid.data.decode import BadImage
from pellucid.data.preprocess import Preprocess
from pellucid.errors import PellucidError

PREPROCESS = Preprocess((16, 16), "crop", 3, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def recogniser() -> Recogniser:
    return Recogniser(nets.build("quick", 3, (3, 16, 16), seed=0).eval(), ("a", "b", "图"), PREPROCESS, "quick")


def pictures(folder: Path, n: int) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = []
    for i in range(n):
        path = folder / f"图 {i}.png"
        Image.fromarray(generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def test_infer_is_the_model_on_normalised_pictures(recogniser: Recogniser) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (BATCH + 5, 16, 16, 3), dtype=np.uint8)
    x = (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = recogniser.model(x.permute(0, 3, 1, 2)).numpy()
    assert infer(recogniser.model, PREPROCESS, pixels) == pytest.approx(expected, abs=1e-4)


def test_infer_asks_about_fewer_pictures_at_a_time_where_memory_runs_out(recogniser: Recogniser) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (BATCH + 5, 16, 16, 3), dtype=np.uint8)
    expected, most, asked = infer(recogniser.model, PREPROCESS, pixels), 20, list[int]()

    def narrow(_: object, given: tuple[torch.Tensor]) -> None:
        asked.append(len(given[0]))
        if len(given[0]) > most:
            torch.empty(1 << 60, dtype=torch.uint8)

    recogniser.model.train()
    recogniser.model.register_forward_pre_hook(narrow)
    assert infer(recogniser.model, PREPROCESS, pixels) == pytest.approx(expected, abs=1e-5)
    assert asked == [128, 64, 32, *[16] * 8, 5]
    assert recogniser.model.training
    most = 0
    with pytest.raises(PellucidError, match=r"no room for this network's answer to one picture of 16×16 pixels"):
        infer(recogniser.model, PREPROCESS, pixels)


def test_infer_answers_for_some_of_the_pictures(recogniser: Recogniser) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3 * BATCH - 5, 16, 16, 3), dtype=np.uint8)
    whole = infer(recogniser.model, PREPROCESS, pixels)
    assert np.array_equal(
        infer(recogniser.model, PREPROCESS, pixels, slice(BATCH, 2 * BATCH)), whole[BATCH : 2 * BATCH]
    )
    assert len(infer(recogniser.model, PREPROCESS, pixels, slice(4, 4))) == 0


def test_infer_leaves_the_models_mode_and_statistics_alone(recogniser: Recogniser) -> None:
    recogniser.model.train()
    before = {name: value.clone() for name, value in recogniser.model.state_dict().items()}
    infer(recogniser.model, PREPROCESS, np.zeros((3, 16, 16, 3), np.uint8))
    assert recogniser.model.training
    assert all(torch.equal(before[name], value) for name, value in recogniser.model.state_dict().items())


def test_a_prediction_is_a_distribution_over_the_classes(recogniser: Recogniser, tmp_path: Path) -> None:
    (file,) = pictures(tmp_path, 1)
    (prediction,) = recogniser.predict(file)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.probability == max(prediction.probabilities.values())
    assert prediction.probabilities[prediction.label] == prediction.probability
    assert prediction.to_json()["file"] == str(file)


def test_one_bad_file_leaves_the_others_answered(recogniser: Recogniser, tmp_path: Path) -> None:
    files = pictures(tmp_path, BATCH + 2)
    files[1].write_bytes(b"not a picture")
    files[BATCH].unlink()
    answers = list(recogniser.predict_each(files))
    assert len(answers) == len(files)
    for i, answer in enumerate(answers):
        if i in {1, BATCH}:
            assert isinstance(answer, BadImage)
            assert files[i].name in str(answer)
        else:
            assert isinstance(answer, Prediction)
            assert answer.file == str(files[i])
    with pytest.raises(BadImage):
        recogniser.predict(files)


def test_a_folder_given_as_a_picture_is_named(recogniser: Recogniser, tmp_path: Path) -> None:
    (answer,) = recogniser.predict_each(tmp_path)
    assert isinstance(answer, BadImage)
    assert str(tmp_path) in str(answer)


def test_no_pictures_no_answers(recogniser: Recogniser) -> None:
    assert recogniser.predict([]) == []
