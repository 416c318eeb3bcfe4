"""Decisions beside what is true: what the scripts that score jobs over simulated events have in common.

An episode is `(whom, from, until)`, times in milliseconds, `until` None if the stream ended before it; a decision is
`(whom, at)`.
"""

import collections, json, subprocess, sys
from datetime import datetime

MINUTE = 60_000
HEADER = f"{'':9} {'':10} decisions precision recall    F1 delay median       p90 (min)"


def levada(arguments, **more):
    done = subprocess.run([str(argument) for argument in arguments], stdout=subprocess.PIPE, **more)
    if done.returncode:
        sys.exit(f"levada: failed: {' '.join(map(str, arguments))}")
    return done.stdout.decode()


def records(binary, data, topic):
    return [json.loads(line) for line in levada([binary, "topics", "export", topic, "--data", data]).splitlines()]


def milliseconds(at):
    """A time as a topic has it."""
    if isinstance(at, (int, float)):
        return int(at)
    return round(datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp() * 1000)


class Score:
    """Decisions of one kind, over several seeds.

    A decision is a hit if there is an episode of its subject that has begun at its time and has not been over for more than
    `grace`; any other is false. Precision: hits of all decisions. Recall: episodes with a hit, of all. Delay: from an
    episode's begin to its first hit. An episode that goes on when the stream ends does not count, nor does a decision
    within it."""

    def __init__(self, grace):
        self.grace = grace
        self.decisions = self.hits = self.episodes = 0
        self.delays = []

    def add(self, episodes, decisions):
        first = {}
        of = collections.defaultdict(list)
        for number, episode in enumerate(episodes):
            of[episode[0]].append((number, *episode[1:]))
        self.episodes += sum(until is not None for *_, until in episodes)
        for whom, at in sorted(decisions, key=lambda decision: decision[1]):
            found = [(number, begin, until) for number, begin, until in of[whom]
                     if begin <= at and (until is None or at <= until + self.grace)]
            if any(until is None for *_, until in found):
                continue
            self.decisions += 1
            self.hits += bool(found)
            for number, begin, _ in found:
                first.setdefault(number, at - begin)
        self.delays += first.values()

    def precision(self):
        return self.hits / self.decisions if self.decisions else 0.0

    def recall(self):
        return len(self.delays) / self.episodes if self.episodes else 0.0

    def f1(self):
        both = self.precision() + self.recall()
        return 2 * self.precision() * self.recall() / both if both else 0.0

    def minutes(self, share):
        delays = sorted(self.delays)
        return delays[min(len(delays) - 1, int(share * len(delays)))] / MINUTE if delays else float("nan")

    def row(self, kind, by):
        return (f"{kind:9} {by:10} {self.decisions:9} {self.precision():9.3f} {self.recall():6.3f} {self.f1():5.3f} "
                f"{self.minutes(0.5):12.0f} {self.minutes(0.9):9.0f}")


def alarms(values, is_alarm, pause):
    """Decisions of a threshold: (whom, at) of values (at, whom, value), with a pause after each."""
    until, made = {}, []
    for at, whom, value in values:
        if is_alarm(value) and until.get(whom, at) <= at:
            made.append((whom, at))
            until[whom] = at + pause
    return made


def numbers(text):
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)
