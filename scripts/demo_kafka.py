"""The main job over Apache Kafka: departures from New York in, decisions out, the same bytes as over the embedded log.

Usage: demo_kafka.py LEVADA FLIGHTS [--brokers ADDRESSES] [--month M]

LEVADA is the binary and FLIGHTS the folder of the CSV files (`make flights`). Starts a broker, unless it is told
whose to use, fills topics with the year (or one month of it), runs the job of `config/jobs/flights.toml` from those
topics to others, and runs it over the embedded log too. All that the two have published is compared: value, key,
timestamp, epoch and position of each record of each partition, as an independent client reads what is committed. Ends
with 1 at the first difference. With DEMO_EXIT=1 it ends then; otherwise the broker stays, to look around, until Ctrl-C.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time

import kafka_brokers
from flights_month import month_of
from job_over import job_over, kafka

JOB = "config/jobs/flights.toml"
INPUTS = ["flights.departures", "flights.weather", "flights.airlines", "flights.airports", "flights.planes"]


def said(text):
    print(text, flush=True)


class Demo:
    def __init__(self, levada, folder, addresses):
        self.levada, self.data, self.addresses = levada, f"{folder}/data", addresses
        self.job = f"{folder}/flights-kafka.toml"
        over = kafka(addresses)
        text, self.topics = job_over(open(JOB).read(), source=over, sink=over)
        with open(self.job, "w") as file:
            file.write(text)

    def call(self, *arguments, **how):
        return subprocess.run([self.levada, *arguments], check=True, text=True, **how)

    def fill(self, flights):
        kafka_brokers.delete(self.addresses, self.topics["source"] + self.topics["sink"])
        self.call("generate", "flights", "--from", flights, "--kafka", self.addresses)
        self.call("generate", "flights", "--from", flights, "--data", self.data, stdout=subprocess.DEVNULL)

    def run(self):
        # What is bad goes to the embedded log; there is nothing bad in these inputs.
        began = time.monotonic()
        self.call("run", self.job, "--until-drained", "--fail-on-dead-letters", "--data", f"{self.data}-kafka")
        took = time.monotonic() - began
        self.call("run", JOB, "--until-drained", "--data", self.data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return took

    def compare(self):
        """How many records each topic has; exits at the first that is not the same."""
        counts = {}
        for topic in self.topics["sink"]:
            found = kafka_brokers.committed(self.addresses, topic)
            lines = self.call("topics", "export", topic, "--with-position", "--data", self.data, stdout=subprocess.PIPE)
            expected = [kafka_brokers.exported(line) for line in lines.stdout.splitlines()]
            for number, (one, other) in enumerate(zip(expected, found)):
                if one != other:
                    sys.exit(f"levada: {topic} differs in record {number}:\n  log   {one}\n  kafka {other}")
            if len(expected) != len(found):
                sys.exit(f"levada: {topic} has {len(found)} records instead of {len(expected)}")
            counts[topic] = len(found)
        if not all(counts.values()):
            sys.exit(f"levada: a topic is empty: {counts}")
        return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("levada")
    parser.add_argument("flights")
    parser.add_argument("--brokers", help="host:port,… of brokers that run; the topics of the job there are deleted first")
    parser.add_argument("--month", type=int, help="only this month instead of the year")
    asked = parser.parse_args()
    # A broker that we started must end with us, also when we are told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        flights = asked.flights
        if asked.month:
            flights = f"{folder}/csv"
            month_of(asked.flights, flights, asked.month)
        said("== 1. the broker")
        started = kafka_brokers.Given(asked.brokers) if asked.brokers else kafka_brokers.Brokers()
        with started as brokers:
            said(f"   at {brokers.addresses}")
            demo = Demo(asked.levada, folder, brokers.addresses)
            said("== 2. the departures, as topics of Kafka")
            demo.fill(flights)
            said("== 3. the job, from Kafka to Kafka in transactions")
            took = demo.run()
            said("== 4. is it what the embedded log has?")
            counts = demo.compare()
            for topic, count in counts.items():
                said(f"   {topic:24} {count:8,} records, the same values, keys, times, epochs and positions")
            said(f"   the first decision: {kafka_brokers.committed(brokers.addresses, 'decisions')[0]['value']}")
            said(f"   {sum(counts.values()):,} records; the job took {took:.1f} s over Kafka")
            if os.environ.get("DEMO_EXIT") == "1":
                said("levada: done")
                return
            said(f"\nlevada: the broker is at {brokers.addresses} and the job in {demo.job}  (Ctrl-C to stop)")
            try:
                signal.pause()
            except KeyboardInterrupt:
                pass


if __name__ == "__main__":
    main()
