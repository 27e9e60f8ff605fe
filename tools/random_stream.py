"""Writes the bits that dropout masks are made of to standard output, without end, for a test suite such as dieharder.

    python tools/random_stream.py in-order | dieharder -a -g 200
    python tools/random_stream.py interleaved | dieharder -a -g 200

A layer never draws one long stream: at each step it draws one word per element under a new counter. The two orders
follow that, with 2**20 words per (seed, counter):

- in-order: one stream after the other; 16 counters of seed 0, 16 of seed 1, and so on.
- interleaved: word 0 of each of 256 neighbouring seeds, then word 1 of each, ...; then the next counter.

`--start N` begins with seed N, or with counter N, so that tests that run one by one read different words. When the
reader has enough and closes the pipe, the number of words it took goes to standard error.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator

import numpy as np

from keras_vit_edu import random

DRAWS = 2**20
COUNTERS = 16
NEIGHBOURS = 256
BLOCK = 2**16  # words hashed at once: small enough to stay in the processor's cache


def in_order(start: int) -> Iterator[np.ndarray]:
    for seed in itertools.count(start):
        for counter in range(COUNTERS):
            key = random.stream_key(seed, counter)
            for first in range(0, DRAWS, BLOCK):
                yield random._hash(np.arange(first, first + BLOCK, dtype=np.uint32), key[0], key[1])


def interleaved(start: int) -> Iterator[np.ndarray]:
    for counter in itertools.count(start):
        keys = np.array([random.stream_key(seed, counter) for seed in range(NEIGHBOURS)])
        for first in range(0, DRAWS, BLOCK // NEIGHBOURS):
            position = np.arange(first, first + BLOCK // NEIGHBOURS, dtype=np.uint32)
            yield random._hash(position[:, None], keys[:, 0], keys[:, 1])  # (position, seed)


ORDERS = {"in-order": in_order, "interleaved": interleaved}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("order", choices=ORDERS)
    parser.add_argument("--start", type=int, default=0, metavar="N", help="the first seed, or the first counter")
    arguments = parser.parse_args()
    words = 0
    try:
        for block in ORDERS[arguments.order](arguments.start):
            sys.stdout.buffer.write(block.tobytes())
            words += block.size
    except BrokenPipeError:
        sys.stderr.write(f"{words:,} words of 32 bits written, {words * 4 / 2**30:.1f} GiB\n")


if __name__ == "__main__":
    main()
