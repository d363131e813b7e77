"""It is told from names which part of a user's model an op comes from."""

import pytest

from odp_taskbuilder.ops.provenance import Origin, Part, model_nodes, origins
from odp_taskbuilder.ops.tflite import Operator, OpKind, Subgraph, Tensor, TfliteGraph

# As a Keras model and its loss are saved.
_NODES = {
    "sequential/first_pool/MaxPool": Part.MODEL,
    "sequential/conv2d/Conv2D": Part.MODEL,
    "Conv2D": Part.MODEL,
    "sparse_categorical_crossentropy/SparseSoftmaxCrossEntropyWithLogits/SparseSoftmaxCrossEntropyWithLogits": Part.LOSS,
    "huber/mul": Part.LOSS,
}


def _graph(op, *names, in_loop=True):
    tensors = tuple(Tensor(name, "FLOAT32", ()) for name in names)
    operators = tuple(Operator(op, OpKind.FLEX, (), (index,)) for index in range(len(names)))
    used, empty = Subgraph("used", tensors, (), (), operators), Subgraph("empty", (), (), (), ())
    return TfliteGraph(3, "", (empty, used) if in_loop else (used, empty))


@pytest.mark.parametrize(
    ("op", "name", "origin"),
    [
        (
            "MaxPoolGrad",
            "gradients/sequential/first_pool/MaxPool_grad/MaxPoolGrad",
            Origin(Part.MODEL, "sequential/first_pool", True),
        ),
        (
            "MaxPoolGrad",
            "gradient_tape/sequential/first_pool/MaxPool/MaxPoolGrad",
            Origin(Part.MODEL, "sequential/first_pool", True),
        ),
        (
            "MaxPoolGrad",
            "gradients_3/sequential/first_pool/MaxPool_grad/MaxPoolGrad",
            Origin(Part.MODEL, "sequential/first_pool", True),
        ),
        ("Conv2D", "sequential/conv2d/Conv2D", Origin(Part.MODEL, "sequential/conv2d", False)),
        (
            "Conv2D",
            "work/StatefulPartitionedCall/sequential/conv2d/Conv2D",
            Origin(Part.MODEL, "sequential/conv2d", False),
        ),
        ("Conv2D", "Conv2D", Origin(Part.MODEL, "Conv2D", False)),
        ("Conv2DBackpropFilter", "gradients/Conv2D_grad/Conv2DBackpropFilter;a/b", Origin(Part.MODEL, "Conv2D", True)),
        ("Foo", "gradients/huber/mul_grad/Foo", Origin(Part.LOSS, "huber", True)),
        (
            "SparseSoftmaxCrossEntropyWithLogits",
            "sparse_categorical_crossentropy/SparseSoftmaxCrossEntropyWithLogits/SparseSoftmaxCrossEntropyWithLogits",
            Origin(Part.LOSS, "sparse_categorical_crossentropy", False),
        ),
        # Not in the model: the metrics that are known for the op, or, where none is, all of them.
        (
            "SparseSoftmaxCrossEntropyWithLogits",
            "SparseSoftmaxCrossEntropyWithLogits/SparseSoftmaxCrossEntropyWithLogits",
            Origin(Part.METRICS, "sparse_categorical_crossentropy", False),
        ),
        ("Foo", "Foo", Origin(Part.METRICS, "accuracy, sparse_categorical_crossentropy", False)),
    ],
)
def test_origin_by_name(op, name, origin):
    found = origins(_graph(op, name), op, _NODES, ["accuracy", "sparse_categorical_crossentropy"])
    assert found == (origin,)


def test_clipping_happens_outside_of_the_loop():
    graph = _graph(
        "L2Loss", "work/subcomputation_1/global_norm/L2Loss", "work/subcomputation_1/global_norm/L2Loss_1", in_loop=False
    )
    assert origins(graph, "L2Loss", _NODES, []) == (Origin(Part.CLIP, "", False),)


def test_each_origin_is_told_once_and_in_words():
    graph = _graph("MaxPoolGrad", *(f"gradients/{layer}/MaxPool_grad/MaxPoolGrad" for layer in ("a", "a", "b")))
    nodes = {"a/MaxPool": Part.MODEL, "b/MaxPool": Part.MODEL}
    assert [str(origin) for origin in origins(graph, "MaxPoolGrad", nodes, [])] == [
        "layer a, backward pass",
        "layer b, backward pass",
    ]


def test_nodes_of_the_published_model(golden):
    nodes = model_nodes(golden / "keras_dense" / "model")
    forward = {name for name, part in nodes.items() if part is Part.MODEL}
    loss = {name for name, part in nodes.items() if part is Part.LOSS}
    assert {"example_keras_model/first_dense_layer/MatMul", "example_keras_model/softmax/Softmax"} <= forward
    assert {"binary_crossentropy/Log", "binary_crossentropy/clip_by_value"} <= loss
