"""Program P again, as others would write it: what ours is timed against.

Each file has a class with the same three methods, so that they can be checked to compute the same thing before they are
timed: `parameters()` counts, `logits(images)` computes without dropout, `step(images, labels)` trains once and returns
the loss. Weights come in by our paths, `{"patch_encoder/projection/kernel": array, ...}`.
"""

LAYERS, HEADS, HEAD_UNITS = 4, 4, 2  # blocks, attention heads, Dense layers before the logits
PATCH = 7
LEARNING_RATE, WEIGHT_DECAY, EPSILON = 1e-3, 1e-4, 1e-7
DROPOUT, HEAD_DROPOUT = 0.1, 0.5
