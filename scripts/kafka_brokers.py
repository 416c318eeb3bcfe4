"""Brokers of Apache Kafka for what is tried and measured here: on free ports of this machine, in a folder of
their own, ended by their numbers.

Usage: kafka_brokers.py [--count N] COMMAND…

Starts N brokers (1), runs COMMAND, in which `{}` stands for their addresses, and ends them. The jars come
by `scripts/fetch-kafka.sh`, Java by `scripts/setup.sh kafka`. As a module it also reads topics by a client of
its own (confluent-kafka), so that what levada has written is not read by levada.
"""

import argparse
import ctypes
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

# How long a broker may take to be there, on a busy machine, in seconds.
PATIENCE = 120
# How long the brokers may take to answer, in seconds.
ANSWER = 30


def cache():
    return os.environ.get("LEVADA_CACHE") or os.path.expanduser("~/.cache/levada")


def free_ports(count):
    """Ports that nobody listens on; all are taken at once, so that no two are the same."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for taken in sockets:
            taken.bind(("127.0.0.1", 0))
        return [taken.getsockname()[1] for taken in sockets]
    finally:
        for taken in sockets:
            taken.close()


def ends_with_us():
    """Has the kernel kill the process when its parent ends, whatever becomes of that."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Brokers:
    """One broker, or several with as many copies of each topic, of which all but one must be in step."""

    def __init__(self, count=1, heap_mib=512):
        self.jars = f"{cache()}/kafka/lib"
        if not os.path.isdir(self.jars):
            sys.exit(f"levada: {self.jars} is not there: scripts/fetch-kafka.sh {cache()}/kafka")
        self.heap_mib = heap_mib
        self.folder = tempfile.TemporaryDirectory()
        ports = free_ports(2 * count)
        self.ports, controllers = ports[:count], ports[count:]
        voters = ",".join(f"{node + 1}@127.0.0.1:{port}" for node, port in enumerate(controllers))
        self.processes = [None] * count
        for node in range(count):
            with open(self.path(node, "properties"), "w") as file:
                file.write(self.settings(node, voters, controllers[node]))
            subprocess.run(
                self.java("kafka.tools.StorageTool", "format", "-t", "bGV2YWRhLWxldmFkYS1sZQ", "-c", self.path(node, "properties")),
                check=True,
                stdout=subprocess.DEVNULL,
            )
            self.start(node)
        self.wait()

    def settings(self, node, voters, controller):
        count = len(self.processes)
        copies, in_step = str(count), str(max(1, count - 1))
        client = f"PLAINTEXT://127.0.0.1:{self.ports[node]}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": node + 1,
            "controller.quorum.voters": voters,
            "listeners": f"{client},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": client,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.path(node, "data"),
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": 3,
            "default.replication.factor": copies,
            "min.insync.replicas": in_step,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.num.partitions": 3,
            "transaction.state.log.min.isr": in_step,
            "share.coordinator.state.topic.replication.factor": copies,
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def path(self, node, ending):
        return f"{self.folder.name}/broker-{node + 1}.{ending}"

    def java(self, *arguments):
        memory = [f"-Xmx{self.heap_mib}m", "-Xms64m", "-XX:+UseSerialGC"]
        return ["java", *memory, "-cp", f"{self.jars}/*", *arguments]

    @property
    def addresses(self):
        """`host:port,…` of all."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def start(self, node):
        """Starts a broker that does not run. Called on the main thread: the kernel watches that."""
        with open(self.path(node, "log"), "a") as log:
            self.processes[node] = subprocess.Popen(
                self.java("kafka.Kafka", self.path(node, "properties")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=ends_with_us,
            )

    def kill(self, node):
        """Kills a broker, as a power cut would."""
        if self.processes[node]:
            self.processes[node].kill()
            self.processes[node].wait()
            self.processes[node] = None

    def wait(self):
        """Waits until all that run can be asked."""
        until = time.monotonic() + PATIENCE
        for node, process in enumerate(self.processes):
            while process:
                with socket.socket() as tried:
                    if tried.connect_ex(("127.0.0.1", self.ports[node])) == 0:
                        break
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"levada: a broker did not start:\n{open(self.path(node, 'log')).read()}")
                time.sleep(0.05)
        running = sum(process is not None for process in self.processes)
        while time.monotonic() < until:
            if len(self.known()) >= running:
                return
        sys.exit("levada: the brokers do not answer")

    def known(self):
        """The numbers of the brokers that answer."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:
            return list(AdminClient(quiet(self.addresses)).list_topics(timeout=5).brokers)
        except KafkaException:
            return []

    def end(self):
        for node in range(len(self.processes)):
            self.kill(node)
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Given:
    """Brokers that somebody else runs."""

    def __init__(self, addresses):
        self.addresses = addresses

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def quiet(addresses):
    """What every client here is configured by: a broker that is away is nothing to be told on standard error."""
    return {"bootstrap.servers": addresses, "log_level": 2, "error_cb": lambda _: None}


def consumer(addresses):
    """A consumer of committed records alone, which keeps no offsets."""
    from confluent_kafka import Consumer

    return Consumer(quiet(addresses) | {
        "group.id": "levada-scripts",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
    })


def create(addresses, topic, partitions):
    """Creates a topic that is kept for ever."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient(quiet(addresses))
    new = NewTopic(topic, partitions, -1, config={"retention.ms": "-1"})
    for done in admin.create_topics([new]).values():
        done.result()


def delete(addresses, topics):
    """Deletes topics, those that are there, and waits until they are gone."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient(quiet(addresses))
    there = [topic for topic in topics if topic in admin.list_topics(timeout=ANSWER).topics]
    if there:
        for done in admin.delete_topics(there, operation_timeout=ANSWER).values():
            done.result()
    while set(there) & set(admin.list_topics(timeout=ANSWER).topics):
        time.sleep(0.05)


def number(headers, name):
    """What a job wrote as a header: eight bytes, the least first."""
    found = dict(headers or []).get(name)
    return None if found is None else int.from_bytes(found, "little")


def committed(addresses, topic):
    """All committed records of a topic, partition by partition, in their order: as objects of partition, key,
    timestamp, epoch, position and value. (Offsets are not told: where transactions end there are gaps.)"""
    from confluent_kafka import KafkaError, TopicPartition

    reading = consumer(addresses)
    try:
        partitions = sorted(reading.list_topics(topic, timeout=ANSWER).topics[topic].partitions)
        reading.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found, over = {partition: [] for partition in partitions}, set()
        while len(over) < len(partitions):
            for message in reading.consume(10_000, timeout=1):
                if message.error() and message.error().code() == KafkaError._PARTITION_EOF:
                    over.add(message.partition())
                elif message.error():
                    sys.exit(f"levada: failed to read {topic}: {message.error()}")
                else:
                    found[message.partition()].append({
                        "partition": message.partition(),
                        "key": message.key().decode() if message.key() is not None else None,
                        "timestamp": message.timestamp()[1],
                        "epoch": number(message.headers(), "epoch"),
                        "position": number(message.headers(), "position"),
                        "value": message.value().decode(),
                    })
        return [record for partition in partitions for record in found[partition]]
    finally:
        reading.close()


def exported(line):
    """A line of `levada topics export --with-position` in the form of `committed`, its value as stored."""
    place, value = line.rstrip("\n").split(',"value":', 1)
    place = json.loads(place + "}")
    time = datetime.datetime.fromisoformat(place["time"].replace("Z", "+00:00"))
    return {
        "partition": place["partition"],
        "key": place["key"],
        "timestamp": round(time.timestamp() * 1000),
        "epoch": place.get("epoch"),
        "position": place.get("position"),
        "value": value[:-1],
    }


def main():
    parser = argparse.ArgumentParser(description="Runs a command beside brokers of Apache Kafka.")
    parser.add_argument("--count", type=int, default=1, help="how many brokers")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="`{}` in it are the addresses")
    asked = parser.parse_args()
    if not asked.command:
        parser.error("there is no command")
    with Brokers(asked.count) as brokers:
        command = [part.replace("{}", brokers.addresses) for part in asked.command]
        sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
