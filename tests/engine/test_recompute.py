"""Blocks that are calculated twice: same gradients, less kept for the backward pass."""

from __future__ import annotations

import numpy as np
import pytest
import support

import ppcls
from ppcls import ops
from ppcls.config import ConfigError
from ppcls.engine.recompute import use_recompute
from ppcls.registry import BACKBONES

paddle = pytest.importorskip("paddle")

RATES = {"dropout": 0.1, "drop_path_rate": 0.3}
NETWORKS = {
    "ConvNeXt_atto": {"depths": [2, 1], "widths": [8, 16], **RATES},
    "DeiT_tiny_distilled_patch16_224": {"depth": 3, "width": 24, "attention_dropout": 0.1, **RATES},
    "MobileViT_XXS": RATES,
    "SwinTransformer_tiny_patch4_window7_224": {"depths": [2, 2], "heads": [3, 6], **RATES},
    "SwinTransformerV2_tiny_patch4_window8_256": {"depths": [2, 1], "heads": [3, 6], **RATES},
}


def build(name, recompute):
    paddle.seed(1)
    net = ppcls.create_model(name, class_num=5, **NETWORKS.get(name, {}))
    net.train()
    if recompute:
        assert use_recompute(net) > 0
    return net


def loss_of(net, side=64):
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, side, side)), "float32")
    paddle.seed(5)
    return paddle.nn.functional.cross_entropy(net(images), paddle.to_tensor([1, 2]))


def gradients(net):
    """The loss, a number drawn behind the step, and all gradients."""
    loss = loss_of(net)
    loss.backward()
    found = {name: p.grad for name, p in net.named_parameters()}
    return loss.item(), paddle.rand([1]).item(), found


@pytest.mark.parametrize(
    ("name", "kernels"),
    [*((name, False) for name in NETWORKS), ("ConvNeXt_atto", True), ("MobileViT_XXS", True)],
)
def test_gradients_are_those_without_to_the_bit(name, kernels):
    """Also with dropout and drop path: what is drawn the second time is what was drawn before."""
    nets = [build(name, recompute) for recompute in (False, True)]
    if kernels:
        assert all(ops.accelerate(net) for net in nets)
    (loss, drawn, expected), (other_loss, other_drawn, found) = map(gradients, nets)
    assert (loss, drawn) == (other_loss, other_drawn)
    for key, gradient in expected.items():
        if gradient is None:
            assert found[key] is None, key
        else:
            np.testing.assert_array_equal(found[key].numpy(), gradient.numpy(), err_msg=key)


def test_blocks_behind_a_frozen_stem_get_their_gradients():
    """Nothing before them trains, so what enters the first block needs no gradient."""
    nets = [build("DeiT_tiny_distilled_patch16_224", recompute) for recompute in (False, True)]
    for net in nets:
        for name, parameter in net.named_parameters():
            parameter.stop_gradient = not name.startswith(("blocks.0.mlp", "blocks.1", "class"))
        net.class_token.stop_gradient = True
    expected, found = (gradients(net)[2] for net in nets)
    assert expected["blocks.0.mlp.fc1.weight"] is not None
    for key, gradient in expected.items():
        assert (gradient is None) == (found[key] is None), key
        if gradient is not None:
            np.testing.assert_array_equal(found[key].numpy(), gradient.numpy(), err_msg=key)


def test_less_is_kept_for_the_backward_pass():
    """Recomputed, a block keeps its input: the maps [2 images, 18 tokens, 24] of float32."""
    plain, less = (kept_by_a_block(recompute) for recompute in (False, True))
    assert less == 2 * 18 * 24 * 4
    assert plain > 20 * less


def kept_by_a_block(recompute):
    """Bytes that another block of DeiT keeps for the backward pass, beside its parameters."""
    totals = []
    for depth in (2, 3):
        paddle.seed(1)
        net = ppcls.create_model("DeiT_tiny_distilled_patch16_224", depth=depth, width=24, **RATES)
        if recompute:
            use_recompute(net)
        parameters = {p.data_ptr() for p in net.parameters()}
        sizes = {}

        def pack(x, sizes=sizes):
            sizes[x.data_ptr()] = x.size * x.element_size()
            return x

        with paddle.autograd.saved_tensors_hooks(pack, lambda x: x):
            loss = loss_of(net)  # what it leads to is alive, so no memory is counted for another
        totals.append(sum(size for key, size in sizes.items() if key not in parameters))
        del loss
    return totals[1] - totals[0]


def test_a_block_that_is_looked_into_is_not_recomputed():
    """What a hook sees would not belong to the graph: a loss on it would train nothing."""
    net = build("DeiT_tiny_distilled_patch16_224", True)
    seen = []
    net.blocks[1].mlp.register_forward_post_hook(lambda layer, given, out: seen.append(out))
    loss_of(net)
    assert len(seen) == 1
    seen[0].sum().backward()
    assert net.blocks[0].mlp.fc1.weight.grad is not None


def test_every_network_of_blocks_without_batch_statistics_recomputes():
    families = {
        BACKBONES.entry(name).builder.__name__
        for name in BACKBONES
        if BACKBONES.entry(name).builder.recomputable
    }
    assert families == {
        "ConvNeXt",
        "MobileViT",
        "SwinTransformer",
        "SwinTransformerV2",
        "VisionTransformer",
    }
    for name in NETWORKS:
        for block in build(name, False).recomputed_blocks():
            layers = block.sublayers(include_self=True)
            assert not any(isinstance(x, paddle.nn.BatchNorm2D) for x in layers)


def test_a_network_without_such_blocks_is_refused(config_file):
    with pytest.raises(ConfigError) as error:
        support.train(config_file, "Global.recompute=true")
    assert "Global.recompute: expected false, received true: MobileNeXt_x0_1 cannot" in str(
        error.value
    )
    assert "ConvNeXt, MobileViT, SwinTransformer" in str(error.value)


def test_a_run_gives_the_weights_of_a_run_without(pictures, tmp_path):
    tree = support.config_tree(pictures, tmp_path / "output")
    tree["Arch"] = {"name": "ConvNeXt_atto", "class_num": 3, "depths": [1, 1], "widths": [8, 16]}
    tree["Arch"]["drop_path_rate"] = 0.3
    path = support.write_config(tmp_path / "config.yaml", tree)
    runs = [
        support.train(path, f"Global.output_dir={tmp_path / key}", f"Global.recompute={key}")
        for key in ("false", "true")
    ]
    assert not support.same_files(*(run.folder / "latest" for run in runs))
    log = support.text_of(runs[1].folder / "train.log")
    assert "Global.recompute: 2 blocks are calculated twice" in log
