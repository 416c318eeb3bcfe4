#!/usr/bin/env python3
"""How well the job warehouse finds overloads and declines, on simulated days whose truth is known.

Usage: warehouse_score.py LEVADA [--seeds 1-20] [--difficulty hard] [--days 4] [--job config/jobs/warehouse.toml]

For each seed: generates the topics, runs the job over them, and compares its decisions with the labels, which the job does
not read. `redistribute` is about an overload of a zone, `assign_support` about a decline of a worker.

A decision is a hit if there is an episode of its kind, of its zone or worker, that has begun at its time (`at`, event time)
and has not been over for more than 15 minutes; any other is false. Precision: hits of all decisions. Recall: episodes with
a hit, of all. Delay: from an episode's begin to its first hit. An episode that goes on when the stream ends does not count,
nor does a decision within it. The seeds are taken together.

Beside it stands what a fixed threshold does on the same events, looked at every five minutes, with the same pauses
between decisions (an hour for a zone, two for a worker):
  overload   more than OPEN_TASKS tasks of the zone wait
  decline    fewer than UNITS_PER_MINUTE units a minute at work, over the worker's tasks of the last 45 minutes, if 8 or more
Both constants are those that do best (F1) on seeds 101-110, hard, four days; `--fit` finds them again.
"""
import argparse, collections, subprocess, sys, tempfile
from pathlib import Path

from episodes import HEADER, MINUTE, Score, alarms, levada, milliseconds, numbers, records

GRACE = 15 * MINUTE
STEP = 5 * MINUTE
OPEN_TASKS = 30
UNITS_PER_MINUTE = 1.3
PAUSE = {"overload": 60 * MINUTE, "decline": 120 * MINUTE}
WHOM = {"overload": "zone", "decline": "worker"}
ACTION = {"redistribute": "overload", "assign_support": "decline"}


def open_tasks(tasks):
    """How many tasks of each zone wait, every five minutes: (at, zone, number)."""
    waiting, values, step = collections.Counter(), [], None
    for task in sorted(tasks, key=lambda task: task["at"]):
        step = step or task["at"] // STEP * STEP + STEP
        while task["at"] >= step:
            values += ((step, zone, number) for zone, number in sorted(waiting.items()))
            step += STEP
        waiting[task["zone"]] += {"created": 1, "assigned": -1, "completed": 0}[task["kind"]]
    return values


def units_per_minute(tasks):
    """What each worker does in a minute at work, over 45 minutes, every five: (at, worker, units)."""
    begun, done = {}, []
    for task in sorted(tasks, key=lambda task: (task["at"], task["kind"] == "completed")):
        if task["kind"] == "assigned":
            begun[task["task"]] = task["at"]
        elif task["kind"] == "completed":
            done.append((task["at"], task["worker"], task["units"], task["at"] - begun[task["task"]]))
    values, recent, step = [], collections.defaultdict(collections.deque), None
    for at, worker, units, took in done:
        step = step or at // STEP * STEP + STEP
        while at >= step:
            for who in sorted(recent):
                last = recent[who]
                while last and last[0][0] < step - 45 * MINUTE:
                    last.popleft()
                if len(last) >= 8:
                    values.append((step, who, sum(units for _, units, _ in last) * MINUTE / sum(took for *_, took in last)))
            step += STEP
        recent[worker].append((at, units, took))
    return values


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("levada")
    ap.add_argument("--seeds", type=numbers, default=numbers("1-20"))
    ap.add_argument("--difficulty", default="hard")
    ap.add_argument("--days", type=int, default=4)
    ap.add_argument("--job", default=Path(__file__).resolve().parent.parent / "config/jobs/warehouse.toml")
    ap.add_argument("--workers", default="2")
    ap.add_argument("--fit", action="store_true", help="find the constants of the thresholds, instead")
    a = ap.parse_args()
    kinds = ("overload", "decline")
    job = {kind: Score(GRACE) for kind in kinds}
    fixed = {kind: collections.defaultdict(lambda: Score(GRACE)) for kind in kinds}
    constants = {"overload": [OPEN_TASKS], "decline": [UNITS_PER_MINUTE]}
    if a.fit:
        constants = {"overload": range(4, 61, 2), "decline": [0.5 + 0.05 * n for n in range(40)]}
    records_in_all = 0
    for seed in a.seeds:
        with tempfile.TemporaryDirectory() as data:
            levada([a.levada, "generate", "warehouse", "--seed", seed, "--difficulty", a.difficulty,
                    "--duration", f"{a.days}d", "--data", data])
            labels, tasks = records(a.levada, data, "warehouse.labels"), records(a.levada, data, "warehouse.tasks")
            records_in_all += len(tasks)
            if not a.fit:
                levada([a.levada, "run", a.job, "--until-drained", "--fail-on-dead-letters", "--workers", a.workers,
                        "--data", data], stderr=subprocess.DEVNULL)
                told = records(a.levada, data, "warehouse.decisions")
        values = {"overload": open_tasks(tasks), "decline": units_per_minute(tasks)}
        beyond = {"overload": lambda limit: lambda value: value > limit, "decline": lambda limit: lambda value: value < limit}
        for kind in kinds:
            episodes = [(label[WHOM[kind]], label["from"], label["until"]) for label in labels if label["kind"] == kind]
            for constant in constants[kind]:
                fixed[kind][constant].add(episodes, alarms(values[kind], beyond[kind](constant), PAUSE[kind]))
            if not a.fit:
                job[kind].add(episodes, [(one["subject"], milliseconds(one["at"])) for one in told
                                         if ACTION.get(one["action"]) == kind])
        print(f"seed {seed}: {len(labels)} episodes, {len(tasks):,} records of tasks", file=sys.stderr, flush=True)
    print(f"seeds {a.seeds[0]}-{a.seeds[-1]}, {a.difficulty}, {a.days} days each: "
          + ", ".join(f"{next(iter(fixed[kind].values())).episodes} episodes of {kind}" for kind in kinds))
    print(HEADER)
    for kind in kinds:
        if a.fit:
            best = max(constants[kind], key=lambda constant: fixed[kind][constant].f1())
            print(fixed[kind][best].row(kind, f"{best:g}"))
        else:
            print(job[kind].row(kind, "job"))
            print(fixed[kind][constants[kind][0]].row(kind, "threshold"))


if __name__ == "__main__":
    main()
