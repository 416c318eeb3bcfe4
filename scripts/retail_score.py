#!/usr/bin/env python3
"""How well the job retail finds anomalies of customers, in simulated weeks whose truth is known.

Usage: retail_score.py LEVADA [--seeds 1-20] [--difficulty hard] [--days 28] [--job config/jobs/retail.toml]

For each seed: generates the topics, runs the job over them, and compares its decisions with the labels, which the job does
not read. `lock_account` is about a takeover, `update_recommendations` about other categories, `check_spending` about higher
amounts. Hits, precision, recall and delay are as episodes.py says, with a grace of an hour after a takeover and of
six hours after the others (the job looks at a customer's habits every six).

Beside it stands what a fixed threshold does on the same events, with the same pauses between decisions:
  takeover   more than PURCHASES purchases of a customer within an hour
  category   a purchase of a category that the customer had not bought in the stream before, from its eighth day on
  amount     a purchase of more than AMOUNT
The constants are those that do best (F1) on seeds 101-105, hard, 28 days; `--fit` finds them again.
"""
import argparse, collections, subprocess, sys, tempfile
from pathlib import Path

from episodes import HEADER, MINUTE, Score, alarms, levada, milliseconds, numbers, records

HOUR = 60 * MINUTE
DAY = 24 * HOUR
GRACE = {"takeover": HOUR, "category": 6 * HOUR, "amount": 6 * HOUR}
PURCHASES = 9
AMOUNT = 200
KINDS = ("takeover", "category", "amount")
ACTION = {"lock_account": "takeover", "update_recommendations": "category", "check_spending": "amount"}
PAUSE = {"takeover": DAY, "category": 7 * DAY, "amount": 7 * DAY}


def within_an_hour(purchases):
    """How many purchases of a customer there were within an hour: (at, customer, number)."""
    recent = collections.defaultdict(collections.deque)
    for one in purchases:
        last = recent[one["customer"]]
        last.append(one["at"])
        while last[0] <= one["at"] - HOUR:
            last.popleft()
        yield one["at"], one["customer"], len(last)


def new_categories(purchases):
    """Whether a purchase is of a category that the customer had not bought before: (at, customer, it is)."""
    known, begin = set(), purchases[0]["at"]
    for one in purchases:
        what = one["customer"], one["category"]
        yield one["at"], one["customer"], what not in known and one["at"] >= begin + 7 * DAY
        known.add(what)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("levada")
    ap.add_argument("--seeds", type=numbers, default=numbers("1-20"))
    ap.add_argument("--difficulty", default="hard")
    ap.add_argument("--days", type=int, default=28)
    ap.add_argument("--job", default=Path(__file__).resolve().parent.parent / "config/jobs/retail.toml")
    ap.add_argument("--workers", default="2")
    ap.add_argument("--fit", action="store_true", help="find the constants of the thresholds, instead")
    a = ap.parse_args()
    constants = {"takeover": [PURCHASES], "category": [0], "amount": [AMOUNT]}
    if a.fit:
        constants = {"takeover": range(2, 16), "category": [0], "amount": range(100, 801, 25)}
    job = {kind: Score(GRACE[kind]) for kind in KINDS}
    fixed = {kind: {constant: Score(GRACE[kind]) for constant in constants[kind]} for kind in KINDS}
    for seed in a.seeds:
        with tempfile.TemporaryDirectory() as data:
            levada([a.levada, "generate", "retail", "--seed", seed, "--difficulty", a.difficulty,
                    "--duration", f"{a.days}d", "--data", data])
            labels, purchases = records(a.levada, data, "retail.labels"), records(a.levada, data, "retail.purchases")
            told = []
            if not a.fit:
                levada([a.levada, "run", a.job, "--until-drained", "--fail-on-dead-letters", "--workers", a.workers,
                        "--data", data], stderr=subprocess.DEVNULL)
                told = records(a.levada, data, "retail.decisions")
        purchases.sort(key=lambda one: one["at"])
        values = {
            "takeover": list(within_an_hour(purchases)),
            "category": list(new_categories(purchases)),
            "amount": [(one["at"], one["customer"], one["amount"]) for one in purchases],
        }
        for kind in KINDS:
            episodes = [(label["customer"], label["from"], label["until"]) for label in labels if label["kind"] == kind]
            for constant, score in fixed[kind].items():
                beyond = lambda value: value > constant
                score.add(episodes, alarms(values[kind], beyond, PAUSE[kind]))
            job[kind].add(episodes, [(one["subject"], milliseconds(one["at"])) for one in told
                                     if ACTION.get(one["action"]) == kind])
        print(f"seed {seed}: {len(labels)} anomalies, {len(purchases):,} purchases", file=sys.stderr, flush=True)
    print(f"seeds {a.seeds[0]}-{a.seeds[-1]}, {a.difficulty}, {a.days} days each: "
          + ", ".join(f"{job[kind].episodes} of {kind}" for kind in KINDS))
    print(HEADER)
    for kind in KINDS:
        if a.fit:
            best = max(constants[kind], key=lambda constant: fixed[kind][constant].f1())
            print(fixed[kind][best].row(kind, f"{best:g}"))
        else:
            print(job[kind].row(kind, "job"))
            print(fixed[kind][constants[kind][0]].row(kind, "threshold"))


if __name__ == "__main__":
    main()
