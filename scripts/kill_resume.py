"""Kills the flights job again and again, and compares what it has published in the end with an undisturbed run.

Usage: kill_resume.py LEVADA FLIGHTS [--kills N] [--seed S] [--month M] [--sinks log|redis]

LEVADA is the binary and FLIGHTS the folder of the CSV files (`make flights`). One month of departures is produced
to the embedded log. A run with `--state` is killed (SIGKILL) at a random time, begun again with a random number of
workers, and so on until it ends by itself; then all that it has published is compared with what an undisturbed run
publishes, record by record with offset, key, time, epoch and position. Then it begins afresh, until as many kills
have struck as were asked for. With `--sinks redis` the job's sinks are streams of a Redis server that this starts
(only the dead letters stay a topic). Prints a JSON object; exits with 1 if anything differed.
"""

import argparse
import collections
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

JOB = "config/jobs/flights.toml"


def month_of(source, to, month):
    """Copies the CSV files, of departures and weather only the month."""
    os.makedirs(to)
    for name in ["flights", "weather", "airlines", "airports", "planes"]:
        place = {"flights": 1, "weather": 2}.get(name)
        with open(f"{source}/{name}.csv") as read, open(f"{to}/{name}.csv", "w") as written:
            for number, line in enumerate(read):
                if number == 0 or place is None or line.split(",")[place] == str(month):
                    written.write(line)


class Redis:
    """A server, and the job with its sinks there: each run's data folder has streams of its own."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", folder]
        self.server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        while self.ask("PING", may_fail=True).strip() != "PONG":
            pass
        self.streams = set()

    def ask(self, *command, may_fail=False):
        line = ["redis-cli", "-p", str(self.port), *command]
        return subprocess.run(line, check=not may_fail, capture_output=True, text=True).stdout

    def job(self, data, path):
        """Writes the job with streams as its sinks; gives the file's name."""
        part, lines = "", []
        for line in open(JOB):
            section = re.match(r"\[([a-z]+)\.[^.]+\.log\]", line)
            if line.startswith("["):
                part = section and section.group(1)
                if part == "sink":
                    line = line.replace(".log]", ".redis]") + f'url = "redis://127.0.0.1:{self.port}"\n'
            topic = re.match(r'topic = "(.*)"', line)
            if part == "sink" and topic:
                self.streams.add(topic.group(1))
                line = f'stream = "{data}:{topic.group(1)}"\n'
            # The page reads topics.
            lines.append("" if part == "page" else line)
        text = "".join(lines)
        text = text[: text.find("\n[page")] if "\n[page" in text else text
        with open(path, "w") as written:
            written.write(text)
        return path

    def forget(self, data):
        for stream in self.streams:
            self.ask("DEL", f"{data}:{stream}")

    def written(self, data):
        """A line an entry: id, fields and values."""
        entries = {}
        for stream in sorted(self.streams):
            entries[stream] = []
            for line in json.loads(self.ask("--json", "XRANGE", f"{data}:{stream}", "-", "+") or "[]"):
                entries[stream].append(json.dumps(line))
        return entries


class Site:
    def __init__(self, levada, folder, redis=None):
        self.levada, self.folder, self.redis = levada, folder, redis
        self.inputs = self.topics("inputs")

    def call(self, *arguments):
        return subprocess.run([self.levada, *arguments], check=True, capture_output=True, text=True).stdout

    def topics(self, data):
        path = f"{self.folder}/{data}"
        if not os.path.isdir(path):
            return set()
        return {topic["name"] for topic in json.loads(self.call("topics", "list", "--json", "--data", path))}

    def start(self, data, options):
        job = self.redis.job(data, f"{self.folder}/{data}.toml") if self.redis else JOB
        command = [self.levada, "run", job, "--until-drained", "--data", f"{self.folder}/{data}", *options]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def written(self, data):
        """What stands in each topic that is no input: a line a record."""
        outputs = self.topics(data) - self.topics("inputs")
        export = ["topics", "export", "--with-position", "--data", f"{self.folder}/{data}"]
        written = {topic: self.call(*export, topic).splitlines() for topic in sorted(outputs)}
        return written | (self.redis.written(data) if self.redis else {})


def differences(expected, found):
    """How many records are lost, doubled, reordered (there, but in another order)."""
    lost = doubled = reordered = 0
    for topic in expected.keys() | found.keys():
        one, other = expected.get(topic, []), found.get(topic, [])
        wanted, there = collections.Counter(one), collections.Counter(other)
        missing, more = sum((wanted - there).values()), sum((there - wanted).values())
        lost, doubled = lost + missing, doubled + more
        if not missing and not more:
            reordered += sum(a != b for a, b in zip(one, other))
    return {"lost": lost, "doubled": doubled, "reordered": reordered}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("levada")
    parser.add_argument("flights")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--month", type=int, default=1)
    parser.add_argument("--sinks", choices=["log", "redis"], default="log")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    total = {"lost": 0, "doubled": 0, "reordered": 0}
    kills = rounds = 0
    with tempfile.TemporaryDirectory() as folder:
        redis = Redis(folder) if asked.sinks == "redis" else None
        site = Site(asked.levada, folder, redis)
        month_of(asked.flights, f"{folder}/csv", asked.month)
        site.call("generate", "flights", "--from", f"{folder}/csv", "--data", f"{folder}/inputs")
        shutil.copytree(f"{folder}/inputs", f"{folder}/undisturbed")
        began = time.monotonic()
        undisturbed = site.start("undisturbed", [])
        if undisturbed.wait() != 0:
            sys.exit(undisturbed.stderr.read())
        takes = time.monotonic() - began
        expected = site.written("undisturbed")
        while kills < asked.kills:
            for left_over in ["killed", "state"]:
                shutil.rmtree(f"{folder}/{left_over}", ignore_errors=True)
            shutil.copytree(f"{folder}/inputs", f"{folder}/killed")
            if redis:
                redis.forget("killed")
            struck = 0
            while True:
                workers = chance.choice(["1", "2", "4"])
                run = site.start("killed", ["--workers", workers, "--state", f"{folder}/state"])
                # On a machine that has become busier than it was, no run of a round might ever end.
                patience = chance.uniform(0, 1.5 * takes)
                try:
                    run.communicate(timeout=patience if struck < 10 and kills < asked.kills else None)
                except subprocess.TimeoutExpired:
                    run.kill()
                    run.communicate()
                    struck, kills = struck + 1, kills + 1
                    print(f"\r{kills} of {asked.kills} kills, {rounds} rounds", end="", file=sys.stderr)
                    continue
                if run.returncode != 0:
                    sys.exit(f"a run failed (seed {asked.seed}, kill {kills}, round {rounds})")
                break
            rounds += 1
            for what, count in differences(expected, site.written("killed")).items():
                total[what] += count
        if redis:
            redis.server.kill()
            redis.server.wait()
    print(file=sys.stderr)
    records = sum(len(lines) for lines in expected.values())
    print(json.dumps({
        "sink": {"log": "embedded log", "redis": "Redis Streams"}[asked.sinks], "month": asked.month, "seed": asked.seed, "kills": kills, "rounds": rounds,
        "records_a_round": records, **total,
    }, indent=2))
    sys.exit(any(total.values()))


if __name__ == "__main__":
    main()
