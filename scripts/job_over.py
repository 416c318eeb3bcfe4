"""A job file whose topics of the embedded log are those of another system.

As a module for the scripts here; it understands job files as levada's own are written, a table header and a setting a
line, and is no parser of TOML.
"""

import re


def job_over(text, source=None, sink=None):
    """The text of a job with other connectors. `source` and `sink` say what a topic becomes, as `(kind, lines)`: the
    connector's name and its settings, which replace the line that names the topic; without it a part stays as it is.
    What is about the page goes, since that reads topics of the embedded log. Gives the text, and the topics of the
    replaced sources and sinks."""
    made, part, topics = [], None, {"source": [], "sink": []}
    become = {"source": source, "sink": sink}
    for line in text.split("\n[page]")[0].splitlines(keepends=True):
        header = re.match(r"\[(source|sink)\.([^.\]]+)\.log\]", line)
        if line.startswith("["):
            part = header.group(1) if header and become[header.group(1)] else None
            if part:
                # The kind is the same for every topic.
                kind, _ = become[part]("")
                line = f"[{part}.{header.group(2)}.{kind}]\n"
        topic = re.match(r'topic = "(.*)"', line)
        if part and topic:
            topics[part].append(topic.group(1))
            line = "".join(f"{setting}\n" for setting in become[part](topic.group(1))[1])
        made.append(line)
    return "".join(made), topics


def kafka(addresses, prefix=""):
    """Topics of Kafka."""
    return lambda topic: ("kafka", [f'brokers = "{addresses}"', f'topic = "{prefix}{topic}"'])


def redis(url, prefix=""):
    """Streams of Redis."""
    return lambda topic: ("redis", [f'url = "{url}"', f'stream = "{prefix}{topic}"'])
