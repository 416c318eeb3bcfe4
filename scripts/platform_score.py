#!/usr/bin/env python3
"""Makes up streams of a platform's alerts, lays them through a job, and compares its incidents with the truth.

Usage: platform_score.py LEVADA [--seeds 1-20] [--difficulty hard] [--events N] [--job FILE] [--workers N] [--jobs N]

A stream is that of `levada generate platform` with a seed. The truth is the topic platform.labels, which no job reads: each
event's incident, or null for noise. What the job says is the topic platform.assignments: of each event the last row counts.

Both are partitions of all events of the stream into sets. An event that is noise in truth is a set of its own, and so is an
event that the job has left in no incident. Of the pairs of events that are in one set:

  precision   of those that the job has together, how many belong together
  recall      of those that belong together, how many the job has together
  F1          their harmonic mean
  ARI         the adjusted Rand index (Hubert and Arabie, 1985) of the two partitions: 1 if they are the same, 0 on average for
              partitions of the same sizes by chance

The best that can be hoped for is told beside: the F1 of an oracle that is told of every incident at which services it was, from
its first event there to its last, and what it is called in texts. It leaves out what names something else, and cannot tell noise that
says nothing from the incident that it is in the midst of.

A pair of noise and anything else that the job puts together costs precision; nothing is left out. Of a stream without any pair
on one side the measures are 1 if there is none on the other, and 0 otherwise.
"""
import argparse, json, subprocess, sys, tempfile, time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

JOB = Path(__file__).resolve().parent.parent / "config/jobs/platform.toml"


def pairs(count):
    return count * (count - 1) // 2


def agreement(truth, found):
    """Precision, recall, F1 and adjusted Rand index of two partitions: dictionaries from event to set, None for a set of its own."""
    if truth.keys() != found.keys():
        raise ValueError("both must be of the same events")
    true_sets = Counter(truth[event] for event in truth if truth[event] is not None)
    found_sets = Counter(found[event] for event in found if found[event] is not None)
    both_sets = Counter((truth[event], found[event]) for event in truth if truth[event] is not None and found[event] is not None)
    true_pairs, found_pairs, both = (sum(map(pairs, sets.values())) for sets in (true_sets, found_sets, both_sets))
    if not true_pairs or not found_pairs:
        same = float(true_pairs == found_pairs)
        return same, same, same, same
    precision, recall = both / found_pairs, both / true_pairs
    f1 = 2 * both / (found_pairs + true_pairs)
    expected = true_pairs * found_pairs / pairs(len(truth))
    most = (true_pairs + found_pairs) / 2
    return precision, recall, f1, (both - expected) / (most - expected)


def oracle(events, truth):
    """The sets that somebody makes who knows where each incident was and when, and its name."""
    words = {event["id"]: {word.strip("(),:;") for word in event["text"].split()} for event in events}
    common = Counter(word for said in words.values() for word in said)
    places = {event["service"] for event in events} | {event["host"] for event in events}
    def name(word):
        version = word.count(".") == 2 and word.replace(".", "").isdigit()
        number = word.replace(".", "").replace("%", "").isdigit()
        return version or any(map(str.isdigit, word)) and not number and word not in places and common[word] <= 0.002 * len(words)
    names = {event: {word for word in said if name(word)} for event, said in words.items()}
    spans, said = {}, {}
    for event in events:
        incident = truth[event["id"]]
        if incident is not None:
            first, last = spans.get((incident, event["service"]), (event["at"], event["at"]))
            spans[incident, event["service"]] = (min(first, event["at"]), max(last, event["at"]))
            said.setdefault(incident, Counter()).update(names[event["id"]])
    own = {incident: max(of, key=of.get) if of else None for incident, of in said.items()}
    at = {}
    for (incident, service), (first, last) in spans.items():
        at.setdefault(service, []).append((last - first, first, last, incident))
    def find(event):
        fits = [(span, incident) for span, first, last, incident in at.get(event["service"], ()) if first <= event["at"] <= last]
        fits = [fit for fit in fits if not names[event["id"]] or own[fit[1]] in names[event["id"]]]
        return min(fits)[1] if fits else None
    return {event["id"]: find(event) for event in events}


def check():
    """The measures of partitions that are small enough to count by hand."""
    truth = {"a": 1, "b": 1, "c": 1, "d": None, "e": None}
    assert agreement(truth, truth) == (1, 1, 1, 1)
    # Pairs: ab ac bc in truth, ab ad bd found; ab in both.
    precision, recall, f1, ari = agreement(truth, {"a": 7, "b": 7, "d": 7, "c": None, "e": None})
    assert (precision, recall, f1) == (1 / 3, 1 / 3, 1 / 3)
    assert abs(ari - (1 - 0.9) / (3 - 0.9)) < 1e-12
    # Events that are alone on both sides agree, and make no pair.
    assert agreement({"a": None}, {"a": None}) == (1, 1, 1, 1)
    assert agreement(truth, dict.fromkeys(truth)) == (0, 0, 0, 0)


def measure(a, seed):
    with tempfile.TemporaryDirectory() as folder:
        def levada(*arguments, **more):
            return subprocess.run([a.levada, *arguments, "--data", folder], check=True, stdout=subprocess.PIPE, **more).stdout

        events = ["--events", str(a.events)]
        levada("generate", "platform", "--seed", str(seed), "--difficulty", a.difficulty, *events)
        began = time.monotonic()
        levada("run", a.job, "--until-drained", "--workers", a.workers, stderr=subprocess.PIPE)
        wall = time.monotonic() - began
        read = lambda topic: map(json.loads, levada("topics", "export", topic).splitlines())
        truth = {row["id"]: row["incident"] for row in read("platform.labels")}
        best = agreement(truth, oracle(list(read("platform.events")), truth))[2]
        found = dict.fromkeys(truth)
        for row in read("platform.assignments"):
            found[row["event"]] = row["incident"]
        if a.dump:
            Path(a.dump).joinpath(str(seed)).mkdir(parents=True, exist_ok=True)
            for topic in ("events", "labels", "topology", "assignments", "incidents"):
                Path(a.dump, str(seed), topic + ".jsonl").write_bytes(levada("topics", "export", f"platform.{topic}"))
    sets = lambda of: len({value for value in of.values() if value is not None})
    return (*agreement(truth, found), best, sets(truth), sets(found), len(truth), wall)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("levada")
    ap.add_argument("--seeds", default="1-20", help="first-last")
    ap.add_argument("--difficulty", default="hard")
    ap.add_argument("--events", type=int, default=20_000)
    ap.add_argument("--job", default=str(JOB))
    ap.add_argument("--workers", default="1")
    ap.add_argument("--jobs", type=int, default=1, help="how many seeds at once")
    ap.add_argument("--dump", help="a folder that gets what each seed was made of")
    a = ap.parse_args()
    check()
    first, _, last = a.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    print(f"{a.difficulty}, {a.events} events a seed")
    print("seed  precision  recall     F1    ARI  oracle  incidents: true  found  events    s")
    rows = []
    with ThreadPoolExecutor(a.jobs) as pool:
        for seed, row in zip(seeds, pool.map(lambda seed: measure(a, seed), seeds)):
            rows.append(row)
            precision, recall, f1, ari, best, true, found, events, wall = row
            print(f"{seed:4}     {precision:.3f}    {recall:.3f}  {f1:.3f}  {ari:.3f}   {best:.3f}  {true:15}  {found:5}  {events:6}  {wall:3.0f}", flush=True)
    for name, of in (("mean", lambda values: sum(values) / len(values)), ("least", min)):
        precision, recall, f1, ari, best = (of([row[at] for row in rows]) for at in range(5))
        print(f"{name:5}    {precision:.3f}    {recall:.3f}  {f1:.3f}  {ari:.3f}   {best:.3f}")


if __name__ == "__main__":
    main()
