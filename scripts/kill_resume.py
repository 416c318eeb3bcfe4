"""Kills the flights job again and again, and compares what it has published in the end with an undisturbed run.

Usage: kill_resume.py LEVADA FLIGHTS [--kills N] [--seed S] [--month M] [--sinks log|redis|kafka] [--brokers ADDRESSES]

LEVADA is the binary and FLIGHTS the folder of the CSV files (`make flights`). One month of departures is produced
to the embedded log. A run with `--state` is killed (SIGKILL) at a random time, begun again with a random number of
workers, and so on until it ends by itself; then all that it has published is compared with what an undisturbed run
publishes, record by record with offset, key, time, epoch and position. Then it begins afresh, until as many kills
have struck as were asked for. With `--sinks redis` the job's sinks are streams of a Redis server that this starts,
with `--sinks kafka` topics of a broker that this starts (or of those at `--brokers`), read by a client of its own
(confluent-kafka, by `scripts/setup.sh kafka`) that sees what is committed; there offsets are not compared, which
have gaps where transactions end. Only the dead letters stay a topic. Prints a JSON object; exits with 1 if anything
differed.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import job_over
from flights_month import month_of

JOB = "config/jobs/flights.toml"


class Log:
    """The job as it is: its sinks are topics of the embedded log, in each run's data folder."""

    name = "embedded log"

    def job(self, data, folder):
        return JOB

    def forget(self, data):
        pass

    def written(self, data):
        return {}

    def close(self):
        pass


class Elsewhere:
    """The job with its sinks in another system, named after each run's data folder."""

    def __init__(self):
        self.topics = []

    def job(self, data, folder):
        """Writes the job; gives the file's name."""
        text, topics = job_over.job_over(open(JOB).read(), sink=self.over(data))
        self.topics = topics["sink"]
        with open(f"{folder}/{data}.toml", "w") as written:
            written.write(text)
        return f"{folder}/{data}.toml"


class Redis(Elsewhere):
    name = "Redis Streams"

    def __init__(self, folder):
        super().__init__()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", folder]
        self.server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        while self.ask("PING", may_fail=True).strip() != "PONG":
            pass

    def ask(self, *command, may_fail=False):
        line = ["redis-cli", "-p", str(self.port), *command]
        return subprocess.run(line, check=not may_fail, capture_output=True, text=True).stdout

    def over(self, data):
        return job_over.redis(f"redis://127.0.0.1:{self.port}", f"{data}:")

    def forget(self, data):
        for stream in self.topics:
            self.ask("DEL", f"{data}:{stream}")

    def written(self, data):
        """A line an entry: id, fields and values."""
        entries = lambda stream: json.loads(self.ask("--json", "XRANGE", f"{data}:{stream}", "-", "+") or "[]")
        return {stream: [json.dumps(entry) for entry in entries(stream)] for stream in self.topics}

    def close(self):
        self.server.kill()
        self.server.wait()


class Kafka(Elsewhere):
    name = "Apache Kafka"

    def __init__(self, addresses):
        import kafka_brokers

        super().__init__()
        self.client = kafka_brokers
        self.brokers = kafka_brokers.Given(addresses) if addresses else kafka_brokers.Brokers()
        self.addresses = self.brokers.addresses

    def over(self, data):
        return job_over.kafka(self.addresses, f"{data}.")

    def forget(self, data):
        self.client.delete(self.addresses, [f"{data}.{topic}" for topic in self.topics])

    def written(self, data):
        """A line a record: partition, key, timestamp, epoch, position and value."""
        records = lambda topic: self.client.committed(self.addresses, f"{data}.{topic}")
        return {topic: [json.dumps(record) for record in records(topic)] for topic in self.topics}

    def close(self):
        self.brokers.__exit__()


class Site:
    def __init__(self, levada, folder, sinks):
        self.levada, self.folder, self.sinks = levada, folder, sinks
        self.inputs = self.topics("inputs")

    def call(self, *arguments):
        return subprocess.run([self.levada, *arguments], check=True, capture_output=True, text=True).stdout

    def topics(self, data):
        path = f"{self.folder}/{data}"
        if not os.path.isdir(path):
            return set()
        return {topic["name"] for topic in json.loads(self.call("topics", "list", "--json", "--data", path))}

    def start(self, data, options):
        job = self.sinks.job(data, self.folder)
        command = [self.levada, "run", job, "--until-drained", "--data", f"{self.folder}/{data}", *options]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def written(self, data):
        """What stands in each topic that is no input: a line a record."""
        outputs = self.topics(data) - self.topics("inputs")
        export = ["topics", "export", "--with-position", "--data", f"{self.folder}/{data}"]
        written = {topic: self.call(*export, topic).splitlines() for topic in sorted(outputs)}
        return written | self.sinks.written(data)


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
    parser.add_argument("--sinks", choices=["log", "redis", "kafka"], default="log")
    parser.add_argument("--brokers", help="host:port,… of Kafka brokers that run, for --sinks kafka")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    total = {"lost": 0, "doubled": 0, "reordered": 0}
    kills = rounds = 0
    kinds = {"log": lambda _: Log(), "redis": Redis, "kafka": lambda _: Kafka(asked.brokers)}
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(kinds[asked.sinks](folder)) as sinks:
        site = Site(asked.levada, folder, sinks)
        month_of(asked.flights, f"{folder}/csv", asked.month)
        site.call("generate", "flights", "--from", f"{folder}/csv", "--data", f"{folder}/inputs")
        shutil.copytree(f"{folder}/inputs", f"{folder}/undisturbed")
        sinks.job("undisturbed", folder)
        sinks.forget("undisturbed")
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
            sinks.forget("killed")
            struck = 0
            while True:
                workers = chance.choice(["1", "2", "4"])
                run = site.start("killed", ["--workers", workers, "--state", f"{folder}/state"])
                # Often sooner than a run could end, so that a round is struck again and again; but not for ever.
                patience = chance.uniform(0, 0.8 * takes)
                try:
                    _, said = run.communicate(timeout=patience if struck < 20 and kills < asked.kills else None)
                except subprocess.TimeoutExpired:
                    run.kill()
                    run.communicate()
                    struck, kills = struck + 1, kills + 1
                    print(f"\r{kills} of {asked.kills} kills, {rounds} rounds", end="", file=sys.stderr)
                    continue
                if run.returncode != 0:
                    sys.exit(f"a run failed (seed {asked.seed}, kill {kills}, round {rounds}): {said}")
                break
            rounds += 1
            for what, count in differences(expected, site.written("killed")).items():
                total[what] += count
    print(file=sys.stderr)
    records = sum(len(lines) for lines in expected.values())
    print(json.dumps({
        "sink": sinks.name, "month": asked.month, "seed": asked.seed, "kills": kills, "rounds": rounds,
        "records_a_round": records, **total,
    }, indent=2))
    sys.exit(any(total.values()))


if __name__ == "__main__":
    main()
