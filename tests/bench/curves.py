#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""How cost grows: runs a benchmark along a row of sizes, keeps the figures, draws them.

usage: tests/bench/curves.py [--draw] [--runs N] [--add] [CURVE...]
  (nothing)   measure all curves, then draw them (about half an hour on a small machine)
  --draw      draw from the figures that are kept
  --runs N    runs of each point (default: 3); the line is the median, the bars are the least and the most
  --add       keep the runs that are there
CURVE: see CURVES below. Figures lie in docs/benchmarks/CURVE.jsonl, one JSON object per figure of run.sh with `x` and `series`;
pictures in docs/benchmarks/CURVE.svg. Drawing needs gnuplot (apt-get install gnuplot-nox). CHASQUI_BIN and TMPDIR as for run.sh.
"""
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
KEPT = REPO / "docs/benchmarks"
MILLION = 1_000_000


def store(**options):
    flags = []
    for key, value in options.items():
        flags += [f"--{key.replace('_', '-')}", str(value).lower()]
    return ["store", *flags]


def sizes(make, xs):
    """Points of a curve: x and the arguments of run.sh."""
    return [(x, make(x)) for x in xs]


def windows(chats, **options):
    """One run gives all points: where each window begins is its x. With memory of one kind for all of them."""
    return [(None, store(messages=MILLION, warm_up=MILLION, windows=10, chats=chats, hold_mib=3072, **options))]


def chat(**options):
    return ["chat", "--seconds", "5", *(word for key, value in options.items() for word in (f"--{key}", str(value)))]


def idle(*options):
    return sizes(lambda n: ["idle", "--seconds", "26", "--sessions", str(n), *options], (1000, 3000, 10_000, 30_000, 100_000))


# name → title, label of x, panels (metric, label of y, log scale), series → points
CURVES = {
    "sessions": {
        "title": "Sessions that say nothing but answer heartbeats",
        "x": "sessions", "log_x": True, "scale_x": 1,
        "panels": [("pss_per_session", "kilobytes of memory per session, all processes", 1e-3, False),
                   ("cpu_of_a_core", "% of one core, all processes", 1, True)],
        "series": {"plain": idle(), "TLS": idle("--tls")},
    },
    "chat-window": {
        "title": "100 pairs by messages on their way per pair, everything fsynced, with receipts",
        "x": "window", "log_x": True, "scale_x": 1,
        "panels": [("cpu_per_message", "µs of CPU per message, all processes", 1, True), ("sent_to_received_p50", "ms from sent to received, median", 1, True)],
        "series": {"all": sizes(lambda n: chat(window=n), (1, 2, 4, 8, 16))},
    },
    "chat-pairs": {
        "title": "Pairs with 8 messages on their way each, everything fsynced, with receipts",
        "x": "pairs", "log_x": True, "scale_x": 1,
        "panels": [("cpu_per_message", "µs of CPU per message, all processes", 1, True), ("sent_to_received_p50", "ms from sent to received, median", 1, True)],
        "series": {"all": sizes(lambda n: chat(pairs=n), (1, 10, 30, 100, 300, 1000))},
    },
    "store-messages": {
        "title": "The store while its database grows",
        "x": "million messages in the log", "log_x": False, "scale_x": 1e-6,
        "panels": [("cpu_per_message", "µs of CPU per message", 1, False), ("appended", "thousand messages appended per second", 1e-3, False)],
        "series": {"1 M chats, uniform": windows(MILLION), "1 M chats, Zipf": windows(MILLION, zipf="true"), "100 k chats, uniform": windows(100_000)},
    },
    "store-chats": {
        "title": "The store with few and with many chats (1,024 messages per commit)",
        "x": "chats", "log_x": True, "scale_x": 1,
        "panels": [("cpu_per_message", "µs of CPU per message", 1, False), ("written_per_message", "bytes written per message", 1, False)],
        "series": {
            name: sizes(lambda n, z=zipf: store(messages=MILLION, warm_up=MILLION, chats=n, zipf=z), (1000, 10_000, 100_000, 300_000, MILLION))
            for name, zipf in (("uniform", "false"), ("Zipf", "true"))
        },
    },
    "store-batch": {
        "title": "The store by messages per commit (100,000 chats)",
        "x": "messages per commit", "log_x": True, "scale_x": 1,
        "panels": [("cpu_per_message", "µs of CPU per message", 1, True), ("commit_p50", "ms for a commit, median", 1, True)],
        "series": {"uniform": sizes(lambda n: store(messages=min(MILLION, 2000 * n), warm_up=MILLION, chats=100_000, batch=n), (1, 4, 16, 64, 256, 1024, 4096))},
    },
}


# ---- measuring ----

def window_begin(conditions):
    return int(re.search(r" behind (\d+)", conditions)[1])


def run(arguments):
    print("curves:", *arguments, file=sys.stderr)
    done = subprocess.run([REPO / "tests/bench/run.sh", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def measure(name, runs, add):
    wanted = {panel[0] for panel in CURVES[name]["panels"]} | {"commit_p99.9", "memory"}
    figures = []
    for _ in range(runs):
        for series, points in CURVES[name]["series"].items():
            for x, arguments in points:
                for figure in run(arguments):
                    if figure["metric"] in wanted:
                        figures.append({"x": x or window_begin(figure["conditions"]), "series": series, **figure})
    KEPT.mkdir(exist_ok=True)
    with (KEPT / f"{name}.jsonl").open("a" if add else "w") as file:
        file.writelines(json.dumps(f, ensure_ascii=False) + "\n" for f in figures)


# ---- drawing ----

STYLE = """set terminal svg size 1000,440 font 'Helvetica,Arial,sans-serif,14' enhanced background '#ffffff' linewidth 1
set encoding utf8
set border 3 lc rgb '#8a8f98' lw 1
set tics nomirror out scale 0.6 textcolor rgb '#4a4f57'
set grid ytics lc rgb '#e4e6ea' lt 1 lw 1
set xlabel textcolor rgb '#4a4f57'
set style line 1 lc rgb '#1f6fb4' lw 2.4 pt 7 ps 0.6
set style line 2 lc rgb '#d9731a' lw 2.4 pt 5 ps 0.6
set style line 3 lc rgb '#3a8f4d' lw 2.4 pt 9 ps 0.7
set key top left reverse Left samplen 2 spacing 1.3 textcolor rgb '#33373d'
set tmargin 4
set lmargin 9
set rmargin 3
set bmargin 4
"""


def summary(figures, metric, series):
    """x → (median, least, most), ascending."""
    values = {}
    for figure in figures:
        if figure["metric"] == metric and figure["series"] == series:
            values.setdefault(figure["x"], []).append(figure["value"])
    return [(x, statistics.median(v), min(v), max(v)) for x, v in sorted(values.items())]


def short(x):
    return f"{x // MILLION} M" if x >= MILLION else f"{x // 1000} k" if x >= 10_000 else f"{x:,}"


def panel(curve, figures, which):
    metric, label, scale, log_y = curve["panels"][which]
    blocks, plots = [], []
    top = 0
    for i, series in enumerate(curve["series"], 1):
        points = [(x * curve["scale_x"], *(v * scale for v in values)) for x, *values in summary(figures, metric, series)]
        top = max([top, *(p[3] for p in points)])
        blocks.append(f"$P{which}{i} << END\n" + "".join(" ".join(f"{v:.6g}" for v in p) + "\n" for p in points) + "END\n")
        title = f"title '{series}'" if len(curve["series"]) > 1 else "notitle"
        plots += [f"$P{which}{i} using 1:2:3:4 with yerrorbars ls {i} lw 1 pt 7 ps 0.05 notitle", f"$P{which}{i} using 1:2 with linespoints ls {i} {title}"]
    axis = "set logscale y\nset yrange [*:*]\nset format y '%h'\n" if log_y else f"unset logscale y\nset yrange [0:{1.75 * top:.4g}]\nset format y '%h'\n"
    axis += ("set logscale x\nset format x '%h'\n" if curve["log_x"] else "unset logscale x\nset format x '%h'\nset xrange [0:*]\n")
    if curve["log_x"]:
        places = sorted({p[0] for s in curve["series"] for p in summary(figures, metric, s)})
        axis += "set xtics (" + ", ".join(f"'{short(x)}' {x}" for x in places) + ")\n"
        axis += f"set xrange [{places[0] / 1.5}:{places[-1] * 1.5}]\n"
    return "".join(blocks) + axis + f"set title \"{label}\" font ',15' textcolor rgb '#22262b' offset 0,-0.4\nset xlabel \"{curve['x']}\"\nplot " + ", \\\n     ".join(plots) + "\n"


def draw(name):
    curve = CURVES[name]
    figures = [json.loads(line) for line in (KEPT / f"{name}.jsonl").read_text().splitlines()]
    script = STYLE + f"set output '{KEPT / name}.svg'\nset multiplot layout 1,2 title \"{curve['title']}\" font ',17' offset 0,-0.2\n"
    script += "".join(panel(curve, figures, which) for which in range(len(curve["panels"]))) + "unset multiplot\n"
    with tempfile.NamedTemporaryFile("w", suffix=".gnuplot") as file:
        file.write(script)
        file.flush()
        subprocess.run(["gnuplot", file.name], check=True)
    print("curves:", (KEPT / f"{name}.svg").relative_to(REPO), file=sys.stderr)


def main(arguments):
    only_draw, add = "--draw" in arguments, "--add" in arguments
    runs = 3
    names = []
    rest = iter(a for a in arguments if a not in ("--draw", "--add"))
    for argument in rest:
        if argument == "--runs":
            runs = int(next(rest))
        elif argument in CURVES:
            names.append(argument)
        else:
            sys.exit(__doc__ + "\nCURVES: " + " ".join(CURVES))
    if not shutil.which("gnuplot"):
        sys.exit("curves: gnuplot is missing: apt-get install gnuplot-nox")
    for name in names or CURVES:
        if not only_draw:
            measure(name, runs, add)
        draw(name)


if __name__ == "__main__":
    main(sys.argv[1:])
