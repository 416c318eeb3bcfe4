"""Kills one of three brokers of Apache Kafka every 20 seconds while a job decides, and looks whether each decision is
there once and in order.

Usage: kafka_outages.py LEVADA [--minutes M] [--every S] [--away S] [--rate N]

Starts three brokers, of which two must have a record before it counts. A producer sends N readings a second of 40
machines, each numbered within its machine and of a time of its own; a job with `--state` makes a decision of every other one. Every S seconds
(20) the next broker is killed (SIGKILL) and comes back after some seconds (5). A consumer of committed records, which
is not levada's, checks each decision as it comes: the numbers of a machine must be 0, 2, 4, …. In the end all must
have come. Prints a JSON object; exits with 1 if a decision was missing, twice or out of order.
"""

import argparse
import collections
import json
import subprocess
import sys
import tempfile
import threading
import time

import kafka_brokers

MACHINES = 40
PARTITIONS = 3
READINGS, DECISIONS = "outages.readings", "outages.decisions"
# How long the last decision may take once all is produced, in seconds.
PATIENCE = 180

JOB = """
[job]
name = "outages"

[source.readings.kafka]
brokers = "{brokers}"
topic = "outages.readings"
schema = {{ machine = "string", n = "int", at = "timestamp" }}
event_time = {{ column = "at" }}

[step.decisions.decide]
from = "readings"
key = ["machine"]

[[step.decisions.decide.policies]]
name = "every other one"
when = "n % 2 = 0"
action = "act"
parameters = {{ n = "n" }}

[sink.decisions.kafka]
brokers = "{brokers}"
from = "decisions"
topic = "outages.decisions"
key = ["machine"]
partitions = 3
"""


class Producer:
    """Sends readings until told to end, whatever the brokers do; each once, in order within a partition."""

    def __init__(self, addresses, rate):
        from confluent_kafka import Producer

        settings = {"enable.idempotence": True, "message.timeout.ms": 0, "linger.ms": 5}
        self.client = Producer(kafka_brokers.quiet(addresses) | settings)
        self.rate, self.over, self.sent = rate, threading.Event(), collections.Counter()
        self.records, self.refused, self.time_ms = 0, 0, 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        began = time.monotonic()
        while not self.over.wait(0.01):
            while self.records < (time.monotonic() - began) * self.rate and not self.over.is_set():
                self.send(f"m{self.records % MACHINES}")
            self.client.poll(0)
        # The decisions of a time are made when a later one has come to every partition.
        while self.client.flush(1):
            pass
        for partition in range(PARTITIONS):
            end = {"machine": f"end-{partition}", "n": 1, "at": self.time_ms + 60_000}
            self.client.produce(READINGS, json.dumps(end), partition=partition, on_delivery=self.told)
        while self.client.flush(1):
            pass

    def send(self, machine):
        # Each has a time of its own: rows of one time a job puts in the order of their content.
        time_ms = max(self.time_ms + 1, round(time.time() * 1000))
        reading = {"machine": machine, "n": self.sent[machine], "at": time_ms}
        try:
            self.client.produce(READINGS, json.dumps(reading), key=machine, on_delivery=self.told)
        except BufferError:
            self.client.poll(0.1)
            return
        self.sent[machine] += 1
        self.records, self.time_ms = self.records + 1, time_ms

    def told(self, error, _):
        self.refused += error is not None

    def end(self):
        self.over.set()
        self.thread.join()


class Check:
    """Reads decisions as they come, and counts what is wrong with them."""

    def __init__(self, addresses):
        from confluent_kafka import TopicPartition

        self.client = kafka_brokers.consumer(addresses)
        self.client.assign([TopicPartition(DECISIONS, partition, 0) for partition in range(PARTITIONS)])
        self.next, self.decisions, self.twice, self.out_of_order = collections.Counter(), 0, 0, 0
        self.seen, self.last, self.longest = collections.defaultdict(set), time.monotonic(), 0.0
        self.examples = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over.is_set():
            for message in self.client.consume(1000, timeout=0.2):
                if not message.error():
                    self.take(json.loads(message.value()), message)
        self.client.close()

    def take(self, decision, message):
        machine, n = decision["machine"], decision["parameters"]["n"]
        now = time.monotonic()
        self.longest, self.last = max(self.longest, now - self.last), now
        self.decisions += 1
        if n in self.seen[machine]:
            self.twice += 1
        elif n != self.next[machine]:
            self.out_of_order += 1
            if len(self.examples) < 20:
                place = f"partition {message.partition()} offset {message.offset()}"
                self.examples.append(f"{machine}: {n} instead of {self.next[machine]}, at {decision['at']}, {place}")
        self.seen[machine].add(n)
        self.next[machine] = n + 2

    def missing(self, sent):
        """How many decisions of what was sent have not come."""
        return sum(len(range(0, count, 2)) - len(self.seen[machine]) for machine, count in sent.items())

    def end(self):
        self.over.set()
        self.thread.join()


def disturb(brokers, job, minutes, every, away):
    """Kills one broker after the other and brings it back; how many."""
    until, killed = time.monotonic() + minutes * 60, 0
    while time.monotonic() < until:
        next_one = time.monotonic() + every
        node = killed % len(brokers.processes)
        brokers.kill(node)
        killed += 1
        time.sleep(away)
        brokers.start(node)
        brokers.wait()
        print(f"\r{killed} brokers killed", end="", file=sys.stderr)
        while time.monotonic() < min(next_one, until):
            if job.poll() is not None:
                sys.exit(f"levada: the job ended by itself: {job.returncode}")
            time.sleep(0.1)
    print(file=sys.stderr)
    return killed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("levada")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--every", type=float, default=20, help="seconds from one kill to the next")
    parser.add_argument("--away", type=float, default=5, help="seconds that a broker is away")
    parser.add_argument("--rate", type=int, default=1000, help="readings a second")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, kafka_brokers.Brokers(3) as brokers:
        for topic in [READINGS, DECISIONS]:
            kafka_brokers.create(brokers.addresses, topic, PARTITIONS)
        with open(f"{folder}/job.toml", "w") as file:
            file.write(JOB.format(brokers=brokers.addresses))
        command = [asked.levada, "run", f"{folder}/job.toml", "--state", f"{folder}/state", "--data", f"{folder}/data"]
        said = open(f"{folder}/said", "w")
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, preexec_fn=kafka_brokers.ends_with_us)
        producer, check = Producer(brokers.addresses, asked.rate), Check(brokers.addresses)
        try:
            killed = disturb(brokers, job, asked.minutes, asked.every, asked.away)
        finally:
            producer.end()
            until = time.monotonic() + PATIENCE
            while check.missing(producer.sent) and time.monotonic() < until and job.poll() is None:
                time.sleep(0.1)
            check.end()
            ended = job.poll()
            job.kill()
            job.wait()
            if ended is not None:
                print(open(f"{folder}/said").read(), file=sys.stderr)
    wrong = {
        "missing": check.missing(producer.sent),
        "twice": check.twice,
        "out_of_order": check.out_of_order,
        "refused_by_brokers": producer.refused,
    }
    print(json.dumps({
        "brokers": 3, "minutes": asked.minutes, "brokers_killed": killed, "readings": producer.records,
        "decisions": check.decisions, **wrong, "longest_silence_s": round(check.longest, 1),
    }, indent=2))
    for example in check.examples:
        print(example, file=sys.stderr)
    sys.exit(any(wrong.values()) or not check.decisions)


if __name__ == "__main__":
    main()
