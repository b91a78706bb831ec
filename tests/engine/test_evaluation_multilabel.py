"""Several labels an image, from the list file to the answers, as published files write it."""

import numpy as np
import pytest
import support

paddle = pytest.importorskip("paddle")
metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle")


@pytest.fixture
def multilabel(tmp_path, pictures, lively):
    """A configuration whose labels are drawn, and these labels: float [23, 3]."""
    paths = sorted((pictures / "val").rglob("*.png"))
    labels = np.random.default_rng(0).integers(0, 2, (len(paths), 3))
    rows = zip(paths, labels, strict=True)
    lines = [f"{path}\t{','.join(map(str, row))}\n" for path, row in rows]
    (tmp_path / "list.txt").write_text("".join(lines))
    tree = support.config_tree(pictures, tmp_path / "output")
    tree["Global"] |= {"use_multilabel": True, "pretrained_model": str(lively)}
    tree["DataLoader"] = {
        "Eval": {
            **tree["DataLoader"]["Eval"],
            "dataset": {
                "name": "MultiLabelDataset",
                "image_root": "/",
                "cls_label_path": str(tmp_path / "list.txt"),
                "transform_ops": support.TRANSFORMS,
            },
        }
    }
    tree["Loss"] = {"Eval": [{"MultiLabelLoss": {"weight": 1.0}}]}
    several = [{name: {"multi_label": True}} for name in ("AUC", "LogLoss")]
    tree["Metric"] = {
        "Eval": [
            {"HammingDistance": None},
            {"AccuracyScore": None},
            {"MultiLabelMAP": None},
            *several,
        ]
    }
    tree["Infer"]["PostProcess"] = {"name": "MultiLabelThreshOutput", "threshold": 0.4}
    return support.write_config(tmp_path / "multilabel.yaml", tree), paths, labels


@pytest.fixture
def probabilities(multilabel, lively):
    """Of each picture and its mirror image: [2, 23, 3]."""
    import ppcls

    net = ppcls.create_model(support.NET, class_num=3)
    net.set_state_dict(paddle.load(str(lively / "model.pdparams")))
    net.eval()
    images = np.concatenate([support.preprocessed(path) for path in multilabel[1]])
    with paddle.no_grad():
        both = [net(paddle.to_tensor(x.copy())).numpy() for x in (images, images[..., ::-1])]
    return 1 / (1 + np.exp(-np.stack(both).astype(np.float64)))


@pytest.mark.parametrize("tta", [None, "flip"])
def test_metrics_are_scikit_learns(multilabel, probabilities, tta):
    import ppcls

    path, _, labels = multilabel
    chances = probabilities.mean(axis=0) if tta else probabilities[0]
    result = ppcls.Evaluator(support.load(path), tta=tta).run()
    wrong = metrics.hamming_loss(labels, chances > 0.5)
    assert result["HammingDistance"] == pytest.approx(wrong, abs=1e-12)
    assert result["AccuracyScore"] == pytest.approx(1 - wrong, abs=1e-12)
    assert result["AUC"] == pytest.approx(metrics.roc_auc_score(labels, chances), abs=1e-12)
    precision = metrics.average_precision_score(labels, chances)
    assert result["MultiLabelMAP(integral)"] == pytest.approx(precision, abs=1e-12)
    loss = metrics.log_loss(labels.ravel(), chances.ravel())
    assert result["log_loss"] == pytest.approx(loss, rel=1e-5)


def test_answers_are_all_classes_from_the_threshold_on(multilabel, probabilities):
    import ppcls

    path, paths, _ = multilabel
    answers = ppcls.Predictor(support.load(path)).predict(paths)
    chosen = [np.flatnonzero(row >= 0.4).tolist() for row in probabilities[0]]
    assert [answer["class_ids"] for answer in answers] == chosen
    assert len({len(classes) for classes in chosen}) > 1


def test_one_temperature_does_not_calibrate_several_labels(cli, multilabel):
    done = cli("eval", "-c", multilabel[0], "--calibrate")
    assert done.code == 2
    assert "--calibrate: expected pictures of one class each" in done.err
