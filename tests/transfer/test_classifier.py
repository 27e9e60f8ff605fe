"""What a `TransferClassifier` says of itself."""

from tests.transfer.small_classifier import small


def test_summary_counts_trainable_parameters():
    ours = small()
    ours.model.backbone.trainable = False
    lines = []
    ours.summary(lines.append)
    counts = {line.split()[0]: [int(n.replace(",", "")) for n in line.split()[1:]] for line in lines[3:]}
    # Dense layers: (inputs + 1) * outputs; two norms of 12 + 12.
    block = 4 * 13 * 12 + 13 * 24 + 25 * 12 + 2 * 24
    patch_encoder = (8 * 8 * 3 + 1) * 12 + 17 * 12 + 12
    assert counts["transformer_block_1"] == [block, 0]
    assert counts["patch_encoder"] == [patch_encoder, 0]
    assert counts["logits"] == [13 * 3, 13 * 3]
    assert counts["total"] == [patch_encoder + 2 * block + 24 + 39, 39]
    assert (ours.num_parameters, ours.num_trainable) == tuple(counts["total"])


def test_class_names_are_kept_as_a_folder_has_them():
    assert small(["cafe\u0301", "tea"]).class_names == ("café", "tea")
