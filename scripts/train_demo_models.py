"""Trains the two demonstration models on generated phantoms and writes them into the package.

    python -m scripts.train_demo_models organs organs-polish bodypart bodypart-upright

Together they need about three quarters of an hour on two x86-64 cores with bfloat16 instructions. The same seeds give
the same data; the weights agree with the shipped ones up to the order in which a machine adds floating point numbers.
Patients with seeds below 10,000 are never trained on, so that tests and the demo use phantoms that are new to both.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from scripts.demo_bodypart import Course, train_bodypart
from scripts.demo_organs import train_organs
from scripts.demo_patients import MODELS

ORGANS = {"organs": (70, 1100, 1), "organs-polish": (100, 700, 21)}
"""Patients, iterations, seed."""

BODYPART = {
    "bodypart": (Course(160, 5000, 64, 2e-3, True), 3),
    "bodypart-upright": (Course(300, 3000, 64, 1e-3, False), 13),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demonstration models on generated phantoms.")
    parser.add_argument("models", nargs="+", choices=[*ORGANS, *BODYPART])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="three iterations on one patient, to see that it runs")
    parser.add_argument("--out", type=Path, default=MODELS, help="folder of the models (default: in the package)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for model in arguments.models:
        if model in ORGANS:
            patients, iterations, seed = ORGANS[model]
            if arguments.quick:
                patients, iterations = 1, 3
            train_organs(patients, iterations, arguments.out, seed=seed, go_on=model != "organs")
        else:
            course, seed = BODYPART[model]
            if arguments.quick:
                course = replace(course, patients=1, iterations=3)
            train_bodypart(course, arguments.out, seed=seed)


if __name__ == "__main__":
    main()
