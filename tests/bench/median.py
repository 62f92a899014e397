#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Medians of several runs: reads what run.sh printed (files, or stdin), prints the same form.

usage: for i in 1 2 3; do tests/bench/run.sh chat; done | tests/bench/median.py
"""
import fileinput
import json
import statistics


def main():
    figures = {}
    for line in fileinput.input():
        figure = json.loads(line)
        value = figure.pop("value")
        figures.setdefault(json.dumps(figure), []).append(value)
    for key, values in figures.items():
        figure = json.loads(key)
        figure.update(value=statistics.median(values), least=min(values), most=max(values), runs=len(values))
        print(json.dumps(figure))


if __name__ == "__main__":
    main()
