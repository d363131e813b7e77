"""Runs one round of the artifacts in argv[1] on two clients, with scratch files in argv[2]; prints the metrics as JSON."""

import json
import os
import pathlib
import sys

import tensorflow as tf

from odp_taskbuilder.runtime.client_runtime import ClientRuntime, load_client_only_plan
from odp_taskbuilder.runtime.server_runtime import load_plan, open_server

artifacts, scratch = map(pathlib.Path, sys.argv[1:])


def example(age, zip_code, income):
    values = {"age": age, "zip": zip_code, "income": income}
    features = {key: tf.train.Feature(int64_list=tf.train.Int64List(value=[value])) for key, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


server = open_server(load_plan(artifacts / "plan.pb"))
device = ClientRuntime(load_client_only_plan(artifacts / "client_only_plan.pb"))
server.write_client_checkpoint(artifacts / "initial_state.server.ckp", scratch / "broadcast")
for client, incomes in (("a", (1, 2)), ("b", (3, 4))):
    with tf.io.TFRecordWriter(str(scratch / client)) as writer:
        for income in incomes:
            # Features of 0 leave the prediction at 0, whatever is learnt.
            writer.write(example(0, 0, income))
    device.run(scratch / client, scratch / "broadcast", scratch / f"update_{client}")
server.aggregate_updates([scratch / "update_a", scratch / "update_b"], scratch / "partial")
print(json.dumps(server.apply(artifacts / "initial_state.server.ckp", [scratch / "partial"], scratch / "state")))
sys.stdout.flush()
os._exit(0)
