"""The lengths of tokens. A few very long ones among the patches are artefacts, which attention maps then show.

Darcet et al., "Vision transformers need registers" (ICLR 2024), arXiv 2309.16588: large models use patches of the
background to keep numbers about the whole image. Register tokens (`num_prefix_tokens`) give them another place.
"""

from collections.abc import Sequence

import numpy as np

from keras_vit_edu.explain.inside import Grid


def token_norms(tokens: Sequence[np.ndarray], grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The Euclidean norm of every token, block by block.

    Args:
        tokens: `(B, T, D)` before the first block and after each, as in `look_inside(...).tokens`.
        grid: where the tokens lie.

    Returns:
        Of the prefix tokens, float64 `(len(tokens), B, P)`; of the patches, float64 `(len(tokens), B, rows, columns)`.

    Examples:
        >>> tokens = np.array([[[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]]])
        >>> prefix, patches = token_norms([tokens], Grid(1, 2, num_prefix_tokens=1))
        >>> prefix.tolist(), patches.tolist()
        ([[[5.0]]], [[[[2.0, 1.0]]]])
    """
    norms = np.stack([np.linalg.norm(np.asarray(entry, "float64"), axis=-1) for entry in tokens])  # (blocks, B, T)
    return norms[..., : grid.num_prefix_tokens], grid.as_map(norms[..., grid.num_prefix_tokens :])
