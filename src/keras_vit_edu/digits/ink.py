"""Separate ink from paper.

Otsu's threshold divides the pixels into two groups. The smaller group is the ink, dark on light or light on dark. If it
makes the groups clearer, a smooth surface, the estimate of the paper without ink, is subtracted first. This removes
shadows.
"""

import numpy as np

from keras_vit_edu.digits.neighbours import smoothed

# By how much ink must differ from the paper...
CLEAR, CLEAR_SMOOTHED = 3.5, 5  # in standard deviations of the paper, before and after smoothing
FAINTEST = 0.03  # of the way from black to white
FULL_INK = 95  # the percentile of the ink that counts as 1
ROUNDING = 1e-6  # what is fainter comes from the last digits of floats: 255 levels are 4e-3 apart
PAPER_SHARE = 0.6  # of the pixels, that the paper is fitted to


def find_ink(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the amount of ink on each pixel, and the pixels that certainly have ink.

    Args:
        pixels: `(H, W, channels)`, floats in [0, 1]. The channel that shows the ink best is used.

    Returns:
        Ink, float `(H, W)`, 0 to 1; and where it is more than noise and blurred edges, bool `(H, W)`.

    Raises:
        ValueError: if no ink stands out from the paper.

    References:
        Otsu, "A threshold selection method from gray-level histograms" (1979).
    """
    grey = max((pixels[..., channel] for channel in range(pixels.shape[-1])), key=np.std)  # (H, W)
    if np.ptp(grey) == 0:
        raise ValueError("There is no ink on the paper. Received: a picture of one colour")
    candidates = [grey, grey - _paper(grey)]
    smooth_candidates = list(map(smoothed, candidates))  # or noise would pass for ink
    if np.ptp(smooth_candidates[0]) < ROUNDING:
        raise ValueError("Nothing stands out from the paper as ink would. Received: a picture of one even pattern")
    thresholds, clearness = zip(*map(_otsu, smooth_candidates), strict=True)
    best = int(np.argmax(clearness))
    difference, smooth = candidates[best], smooth_candidates[best]
    dark = smooth <= thresholds[best]
    edge = np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]])
    # The rarer group is the ink; the picture's edge counts as much as all of it, for it may be cut close to bold print.
    if dark.mean() + edge.mean() < 1:
        difference, smooth, for_sure = -difference, -smooth, dark
    else:
        for_sure = ~dark
    paper = np.median(difference[~for_sure])
    contrast = np.percentile(difference[for_sure], FULL_INK) - paper
    noise, smooth_noise = _deviation(difference[~for_sure]), _deviation(smooth[~for_sure])
    if contrast < max(FAINTEST, CLEAR * noise, CLEAR_SMOOTHED * smooth_noise):
        raise ValueError(
            "Nothing stands out from the paper as ink would. Received: a picture with a contrast of "
            f"{contrast:.1%}, and noise of {noise:.1%}"
        )
    above = difference - paper
    return np.where(above > max(3 * noise, ROUNDING), np.clip(above / contrast, 0, 1), 0), for_sure


def _paper(grey: np.ndarray) -> np.ndarray:
    """A smooth surface `(H, W)`: the quadratic that passes near most pixels.

    Least squares over all pixels would bend towards the ink; so it is fitted again and again, each time to the pixels
    that were nearest to it (least trimmed squares, Rousseeuw 1984).
    """
    height, width = grey.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)  # (H, W, 6)
    step = max(max(height, width) // 64, 1)
    some_terms, some_grey = terms[::step, ::step].reshape(-1, 6), grey[::step, ::step].ravel()
    near = np.full(some_grey.shape, True)
    for _ in range(20):
        coefficients = np.linalg.lstsq(some_terms[near], some_grey[near], rcond=None)[0]
        distance = np.abs(some_grey - some_terms @ coefficients)
        near = distance <= np.quantile(distance, PAPER_SHARE)
    return terms @ coefficients


def _otsu(values: np.ndarray) -> tuple[float, float]:
    """The threshold that makes the variance between the two groups largest, and its share of all variance.

    (scikit-image's `threshold_otsu` gives the middle of a bin, not its upper edge, and no share.)
    """
    low = values.min()
    counts, edges = np.histogram(values, bins=256, range=(low, max(values.max(), low + ROUNDING)))
    centres = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * centres)
    above = counts.sum() - below
    between = (sums[:-1] * counts.sum() - sums[-1] * below) ** 2 / np.maximum(below * above, 1) / counts.sum() ** 2
    best = np.argmax(between)
    return float(edges[1 + best]), float(between[best] / max(np.var(values), 1e-12))


def _deviation(values: np.ndarray) -> float:
    """The standard deviation, from the median distance to the median: outliers do not count."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
