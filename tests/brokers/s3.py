"""Runs a server that answers as Amazon S3 does (moto), on a free port of loopback, and ends when its input does.

It has a bucket `levada` and a user who may do anything; whose keys, and where it is, is its first line. Then it obeys, a
line each, and answers with a line of JSON:

    list PREFIX         the keys of all objects
    damage KEY          another byte in its middle
    delete KEY
    allow true|false    whether the user may do anything at all
"""

import json
import logging
import sys

from moto import settings
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

BUCKET = "levada"
ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
NOTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
s3 = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
iam = get_backend("iam")[DEFAULT_ACCOUNT_ID]["aws"]
s3.create_bucket(BUCKET, "us-east-1")
iam.create_user("us-east-1", "levada")
iam.put_user_policy("levada", "all", json.dumps(ALL))
key = iam.create_access_key("levada")
# From here on who asks has to say who they are.
settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
host, port = server.get_host_and_port()


def say(what):
    print(json.dumps(what), flush=True)


def keys(prefix):
    return sorted(name for name in s3.buckets[BUCKET].keys if name.startswith(prefix))


say({"address": f"{host}:{port}", "id": key.access_key_id, "secret": key.secret_access_key})
for line in sys.stdin:
    verb, _, what = line.strip().partition(" ")
    if verb == "list":
        say(keys(what))
    elif verb == "damage":
        value = bytearray(s3.get_object(BUCKET, what).value)
        value[len(value) // 2] ^= 4
        s3.put_object(BUCKET, what, bytes(value))
        say("done")
    elif verb == "delete":
        s3.delete_object(BUCKET, what)
        say("done")
    elif verb == "allow":
        iam.put_user_policy("levada", "all", json.dumps(ALL if what == "true" else NOTHING))
        say("done")
server.stop()
