"""`python -m benchmarks VERB`: measure, print a table, and write it down with `--json`.

    python -m benchmarks dropout --backend torch --json dropout-torch.json

Each verb has a module of this folder with a function `run(rounds)` that gives what was measured: comparisons of times
by title, or something else that the module's own `show` prints.
"""

import argparse
import dataclasses
import importlib
import json
import os
from pathlib import Path

from benchmarks import timing

# By verb: its module, how often each candidate is timed by default, what it measures.
VERBS = {
    "step": ("step", 20, "a training step of Program P against other programs of it"),
    "attention": ("attention", 30, "MyMultiHeadAttention against keras.layers.MultiHeadAttention"),
    "dropout": ("dropout", 200, "PortableDropout against keras.layers.Dropout, and its share of a training step"),
    "inference": ("inference", 10, "ViT-Ti/16 and ViT-S/16 against the ViT of transformers in PyTorch"),
    "memory": ("memory", 3, "peak memory of a training step of Program P, each program in a fresh process"),
    "hub-inference": ("hub_inference", 10, "opened DeiT-Ti/16 and ViT-S/16 against keras_hub's"),
    "photographs": ("photographs", 5, "200 JPEG files to classes, against Keras and keras_hub"),
    "probe": ("probe", 3, "a linear probe on features computed once against keras_hub's fit, backbone frozen"),
    "unfreeze-memory": ("unfreeze_memory", 1, "peak memory of fine-tuning the last 2 blocks against all"),
    "import": ("import_time", 9, "import keras_vit_edu after import keras"),
}
BACKENDS = ("tensorflow", "jax", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, (_, rounds, meaning) in VERBS.items():
        options = verbs.add_parser(verb, help=meaning, description=meaning)
        options.add_argument("--backend", choices=BACKENDS, help="where Keras runs; else as KERAS_BACKEND says")
        options.add_argument("--threads", type=int, default=timing.cores(), help="cores to use")
        options.add_argument("--rounds", type=int, default=rounds, help=f"how often each candidate is timed [{rounds}]")
        options.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
        if verb == "attention":
            options.add_argument(
                "--sweep", action="store_true", help="time and peak memory for N = 64 to 4096 tokens, on each path"
            )
            options.add_argument("--picture", type=Path, metavar="PNG", help="with --sweep: draw both against N")
    arguments = parser.parse_args()
    if arguments.rounds < 2 and arguments.verb not in ("memory", "unfreeze-memory"):
        parser.error("quartiles want 2 rounds at least")
    if getattr(arguments, "picture", None) and not arguments.sweep:
        parser.error("--picture is drawn of --sweep")

    # Before anything imports Keras.
    if arguments.backend:
        os.environ["KERAS_BACKEND"] = arguments.backend
    try:
        timing.fix_threads(arguments.threads)
    except ValueError as error:
        parser.error(str(error))
    import keras_vit_edu  # noqa: F401  (chooses the backend)

    machine = timing.machine()
    print(", ".join(f"{name} {value}" for name, value in _flat(machine).items()))
    name = "sweep" if getattr(arguments, "sweep", False) else VERBS[arguments.verb][0]
    module = importlib.import_module(f"benchmarks.{name}")
    measured = module.run(arguments.rounds)
    getattr(module, "show", show_timings)(measured)
    if name == "sweep" and arguments.picture:
        module.draw(measured, machine["backend"], arguments.picture)
    if arguments.json:
        document = {"verb": arguments.verb, "rounds": arguments.rounds, "machine": machine, "measured": measured}
        arguments.json.write_text(json.dumps(document, indent=2, default=dataclasses.asdict) + "\n")


def show_timings(comparisons: dict) -> None:
    for title, by_clock in comparisons.items():
        for clock, timings in by_clock.items():
            _print_table(f"{title}, {clock}", timings)


def _flat(machine: dict) -> dict:
    return {**{name: value for name, value in machine.items() if name != "versions"}, **machine["versions"]}


def _print_table(title: str, timings: dict) -> None:
    print(f"\n{title:40}{'ms':>10}{'quartiles':>22}{'ratio':>8}{'quartiles':>16}")
    for name, own in timings.items():
        low, high = own.quartiles
        ratio_low, ratio_high = own.ratio_quartiles
        spread, ratio_spread = f"{low:.3f} to {high:.3f}", f"{ratio_low:.2f} to {ratio_high:.2f}"
        print(f"  {name:38}{own.milliseconds:10.3f}{spread:>22}{own.ratio:8.2f}{ratio_spread:>16}")


if __name__ == "__main__":
    main()
