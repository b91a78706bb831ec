"""Test-time augmentation against NumPy."""

import numpy as np
import pytest
import support
from PIL import Image

from ppcls.config import ConfigError

paddle = pytest.importorskip("paddle")

CROP = 24  # of pictures of 32 x 32
WITH_CROP = [
    {"DecodeImage": None},
    {"CropImage": {"size": CROP}},
    {"NormalizeImage": {"mean": [*support.MEAN], "std": [*support.STD]}},
    {"ToCHWImage": None},
]


@pytest.fixture
def cropping(tmp_path, pictures, lively):
    """A configuration whose evaluation ends in a crop, with weights; Eval measures log loss."""
    tree = support.config_tree(pictures, tmp_path / "output")
    tree["DataLoader"]["Eval"]["dataset"] = {
        "name": "ImageFolder",
        "image_root": str(pictures / "val"),
        "transform_ops": WITH_CROP,
    }
    tree["Metric"]["Eval"] = [{"LogLoss": None}, {"TopkAcc": {"topk": [1]}}]
    tree["Global"]["pretrained_model"] = str(lively)
    return support.write_config(tmp_path / "cropping.yaml", tree)


def network(lively):
    import ppcls

    net = ppcls.create_model(support.NET, class_num=3)
    net.set_state_dict(paddle.load(str(lively / "model.pdparams")))
    net.eval()
    return net


def views_of(path, kind):
    """The views of a file as float32 [3, CROP, CROP], written out."""
    image = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    image = ((image - np.float32(support.MEAN)) / np.float32(support.STD)).transpose(2, 0, 1)
    far = support.SIDE - CROP
    middle = far // 2
    corners = [(0, 0), (0, far), (far, 0), (far, far)]
    places = [(middle, middle)] if kind == "flip" else [(middle, middle), *corners]
    views = [image[:, top : top + CROP, left : left + CROP] for top, left in places]
    return views if kind == "five" else views + [view[:, :, ::-1] for view in views]


def softmax(logits):
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("kind", "count"), [("flip", 2), ("five", 5), ("ten", 10)])
def test_the_answer_is_the_mean_of_the_probabilities(cropping, lively, pictures, kind, count):
    from ppcls import Evaluator

    net, losses, right = network(lively), [], []
    for path in sorted((pictures / "val").rglob("*.png")):
        views = np.ascontiguousarray(views_of(path, kind))
        assert len(views) == count
        with paddle.no_grad():
            mean = softmax(net(paddle.to_tensor(views)).numpy().astype(np.float64)).mean(axis=0)
        label = support.CLASSES.index(path.parent.name)
        losses.append(-np.log(mean[label]))
        right.append(mean.argmax() == label)
    plain = Evaluator(support.load(cropping)).run()
    result = Evaluator(support.load(cropping), tta=kind).run()
    assert result["log_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert result["CELoss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert result["top1"] == np.mean(right)
    assert abs(result["log_loss"] - plain["log_loss"]) > 1e-3  # or the test could not tell


def test_readers_in_other_processes_cut_the_same_views(cropping):
    from ppcls import Evaluator

    workers = "DataLoader.Eval.loader.num_workers=2"
    [one, two] = [
        Evaluator(support.load(cropping, *more), tta="five").run() for more in ([], [workers])
    ]
    assert one == two


def test_without_a_crop_there_are_no_corners(config_file, lively):
    from ppcls import Evaluator

    config = support.load(config_file, f"Global.pretrained_model={lively}")
    expected = r"DataLoader\.Eval\.dataset\.transform_ops: expected CropImage .* received ResizeIm"
    with pytest.raises(ConfigError, match=expected):
        Evaluator(config, tta="ten")
    assert "top1" in Evaluator(config, tta="flip").run()


def test_several_labels_an_image_have_mean_probabilities_of_their_own():
    from ppcls.engine.views import Views

    class Labels:
        labels = np.zeros((4, 2), np.float32)

    views = Views("flip")
    views.prepare(Labels())
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(4, 2, 1, 2)).astype("float32"))
    logits = views(lambda x: 3 * x[:, :, 0, 0], images).numpy()
    both = 1 / (1 + np.exp(-3 * images.numpy()[:, :, 0]))
    assert np.allclose(1 / (1 + np.exp(-logits)), both.mean(axis=2), rtol=1e-6)


def test_probabilities_that_vanish_stay_numbers():
    from ppcls.engine.views import Views

    class Labels:
        labels = np.zeros(2, np.int64)

    views = Views("flip")
    views.prepare(Labels())
    sure = paddle.to_tensor(np.float32([[[[400, 400]], [[-400, -400]]]]))
    assert views(lambda x: x[:, :, 0, 0], sure).numpy().tolist() == [[0.0, -800.0]]
