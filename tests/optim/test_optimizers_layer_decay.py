"""The depth of a parameter, by names and in the networks of this package."""

import pytest
from small_network import constant

import ppcls
from ppcls.optim.layer_decay import depths, rate_factors
from ppcls.optim.optimizers import AdamW

# Network -> its blocks, counted in the papers' tables.
BLOCKS = {
    "MobileNetV1_x0_25": 13,  # Table 1: depthwise separable convolutions
    "MobileNetV2_x0_25": 17,  # Table 2: 1 + 2 + 3 + 4 + 3 + 3 + 1
    "MobileNetV3_small_x0_35": 11,  # Table 2: bneck rows
    "MobileNeXt_x0_35": 20,  # Table 2: the sum of its column b
    "SqueezeNet1_1": 8,  # fire2 ... fire9
    "EfficientNetB0": 16,  # Table 1: 1 + 2 + 2 + 3 + 3 + 4 + 1
    "ResNet18": 8,
    "GhostNet_x0_5": 16,  # Table 1
    "ViT_small_patch16_224": 8,  # PaddleClas's old design
    "DeiT_tiny_distilled_patch16_224": 12,
    "SwinTransformer_tiny_patch4_window7_224": 12,  # 2 + 2 + 6 + 2
}


def test_stem_blocks_what_is_between_and_head():
    names = ["token", "embedding.proj", "stages.0.blocks.0.a", "stages.0.blocks.1.a"]
    names += ["stages.0.downsample.a", "stages.1.blocks.0.a", "stages.1.blocks.0.b.0.c", "norm.a"]
    names += ["classifier.weight"]
    assert list(depths(names).values()) == [0, 0, 1, 2, 2, 3, 3, 4, 4]


def test_the_classifier_is_deepest_wherever_it_stands():
    names = ["classifier.weight", "stem.a", "blocks.0.a", "blocks.1.a", "norm.a"]
    found = depths(names, classifier=["classifier.weight", "unknown"])
    assert found == dict(zip(names, [3, 0, 1, 2, 3], strict=True))


def test_where_the_stem_is_the_first_block_it_has_depth_0():
    assert list(depths(["features.0.0.a", "features.0.1.b", "features.1.a", "fc.a"]).values()) == [
        *(0, 0),
        *(1, 2),
    ]


def test_a_network_without_stages_counts_its_layers():
    names = ["conv.weight", "conv.bias", "norm.weight", "fc.0.weight", "fc.2.weight"]
    assert list(depths(names).values()) == [0, 0, 1, 2, 2]


def test_the_rule_of_beit():
    # For 12 blocks: embeddings decay ** 13, block k decay ** (12 - k), norm and head 1.
    names = ["pos", *(f"blocks.{k}.w" for k in range(12)), "norm.w", "head.w"]
    factors = rate_factors(names, 0.65)
    expected = [0.65**13, *(0.65 ** (12 - k) for k in range(12)), 1.0, 1.0]
    assert list(factors.values()) == pytest.approx(expected)


def test_networks_side_by_side_have_depths_of_their_own():
    names = ["stem.w", "blocks.0.w", "blocks.1.w", "head.w"]
    both = [f"{network}.{name}" for network in ("Teacher", "Student") for name in names]
    assert list(rate_factors(both, 0.5).values()) == [0.125, 0.25, 0.5, 1.0] * 2


@pytest.mark.parametrize("name", BLOCKS)
def test_networks_have_as_many_depths_as_blocks(name):
    network = ppcls.create_model(name)
    found = depths([n for n, _ in network.named_parameters()], network.classifier_names())
    assert max(found.values()) == BLOCKS[name] + 1
    assert sorted(set(found.values())) == list(range(BLOCKS[name] + 2))
    assert {found[n] for n in network.classifier_names()} == {BLOCKS[name] + 1}
    first = next(n for n, p in network.named_parameters() if not p.stop_gradient)
    assert found[first] == 0


def test_what_is_frozen_does_not_change_the_depth_of_the_rest():
    factors = []
    for freeze in (False, True):
        network = ppcls.create_model("MobileNetV1_x0_25")
        for name, p in network.named_parameters():
            if freeze and name.startswith(("stem", "stages.0", "stages.1")):
                p.stop_gradient = True
        optimizer = AdamW(constant(), layer_decay=0.9, network=network)
        factors.append(optimizer.rate_factors())
    assert len(factors[1]) < len(factors[0])
    assert factors[1].items() <= factors[0].items()
