"""It is told from names which part of a user's model an op comes from."""

import pytest

from odp_taskbuilder.ops.provenance import ModelNode, Origin, Part, model_nodes, origins
from odp_taskbuilder.ops.tflite import Operator, OpKind, Subgraph, Tensor, TfliteGraph

# As a Keras model and its loss are saved.
_NODES = {
    "sequential/first_pool/MaxPool": ModelNode(Part.MODEL, "sequential/first_pool"),
    "sequential/conv2d/Conv2D": ModelNode(Part.MODEL, "sequential/conv2d"),
    "Conv2D": ModelNode(Part.NODE, "Conv2D"),
    "sequential/lstm/while": ModelNode(Part.MODEL, "sequential/lstm"),
    "lstm_cell/Sigmoid": ModelNode(Part.MODEL, "sequential/lstm"),
    "sparse_categorical_crossentropy/SparseSoftmaxCrossEntropyWithLogits/SparseSoftmaxCrossEntropyWithLogits": ModelNode(
        Part.LOSS, "sparse_categorical_crossentropy"
    ),
    "huber/mul": ModelNode(Part.LOSS, "huber"),
    "hinge/cond": ModelNode(Part.LOSS, "hinge"),
}


def _graph(op, *names, in_loop=True, subgraph="used"):
    tensors = tuple(Tensor(name, "FLOAT32", ()) for name in names)
    operators = tuple(Operator(op, OpKind.FLEX, (), (index,)) for index in range(len(names)))
    used, empty = Subgraph(subgraph, tensors, (), (), operators), Subgraph("empty", (), (), (), ())
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
        ("Conv2D", "Conv2D", Origin(Part.NODE, "Conv2D", False)),
        ("Conv2DBackpropFilter", "gradients/Conv2D_grad/Conv2DBackpropFilter;a/b", Origin(Part.NODE, "Conv2D", True)),
        ("Foo", "gradients/huber/mul_grad/Foo", Origin(Part.LOSS, "huber", True)),
        (
            "SparseSoftmaxCrossEntropyWithLogits",
            "sparse_categorical_crossentropy/SparseSoftmaxCrossEntropyWithLogits/SparseSoftmaxCrossEntropyWithLogits",
            Origin(Part.LOSS, "sparse_categorical_crossentropy", False),
        ),
        # What a loop keeps for its gradient is named after a node of its body.
        ("EmptyTensorList", "lstm_cell/Sigmoid_0/accumulator", Origin(Part.MODEL, "sequential/lstm", False)),
        ("EmptyTensorList", "gradients/lstm_cell/Sigmoid_grad/Shape_0/accumulator_1", Origin(Part.MODEL, "sequential/lstm", True)),
        # Not in the model: a metric that is known for the op; where none is, it cannot be told.
        (
            "SparseSoftmaxCrossEntropyWithLogits",
            "SparseSoftmaxCrossEntropyWithLogits/SparseSoftmaxCrossEntropyWithLogits",
            Origin(Part.METRICS, "sparse_categorical_crossentropy", False),
        ),
        ("Foo", "Foo", Origin(Part.LOSS_OR_METRICS, "", False)),
    ],
)
def test_origin_by_name(op, name, origin):
    found = origins(_graph(op, name), op, _NODES, ["accuracy", "sparse_categorical_crossentropy"])
    assert found == (origin,)


@pytest.mark.parametrize(
    ("subgraph", "name", "origin"),
    [
        ("__inference_hinge_cond_true_7244_161_rewritten0", "OptionalFromValue", Origin(Part.LOSS, "hinge", False)),
        ("sequential/lstm/while_body", "TensorListPushBack_1", Origin(Part.MODEL, "sequential/lstm", False)),
        ("sequential/lstm/while_body", "gradients/lstm_cell/add_grad/Shape", Origin(Part.MODEL, "sequential/lstm", True)),
        (
            "gradients/sequential/lstm/while_grad/sequential/lstm/while_grad_body",
            "TensorListPopBack",
            Origin(Part.MODEL, "sequential/lstm", True),
        ),
        ("__inference_Dataset_map_ExampleParser.parse_7086", "ParseExample/ParseExampleV2", Origin(Part.EXAMPLES, "", False)),
        ("__inference_somebody_cond_true_1", "OptionalFromValue", Origin(Part.LOSS_OR_METRICS, "", False)),
    ],
)
def test_the_body_of_a_loop_or_branch_belongs_to_what_calls_it(subgraph, name, origin):
    assert origins(_graph("Foo", name, subgraph=subgraph), "Foo", _NODES, ["accuracy"]) == (origin,)


def test_clipping_happens_outside_of_the_loop():
    graph = _graph(
        "L2Loss", "work/subcomputation_1/global_norm/L2Loss", "work/subcomputation_1/global_norm/L2Loss_1", in_loop=False
    )
    assert origins(graph, "L2Loss", _NODES, []) == (Origin(Part.CLIP, "", False),)


def test_each_origin_is_told_once_and_in_words():
    graph = _graph("MaxPoolGrad", *(f"gradients/{layer}/MaxPool_grad/MaxPoolGrad" for layer in ("a", "a", "b")))
    nodes = {"a/MaxPool": ModelNode(Part.MODEL, "a"), "b/MaxPool": ModelNode(Part.MODEL, "b")}
    assert [str(origin) for origin in origins(graph, "MaxPoolGrad", nodes, [])] == [
        "layer a, backward pass",
        "layer b, backward pass",
    ]


def test_nodes_of_the_published_model(golden):
    nodes = model_nodes(golden / "keras_dense" / "model")
    assert nodes["example_keras_model/first_dense_layer/MatMul"] == ModelNode(Part.MODEL, "example_keras_model/first_dense_layer")
    assert nodes["example_keras_model/softmax/Softmax"] == ModelNode(Part.MODEL, "example_keras_model/softmax")
    assert nodes["binary_crossentropy/Log"] == ModelNode(Part.LOSS, "binary_crossentropy")
    assert nodes["binary_crossentropy/clip_by_value"] == ModelNode(Part.LOSS, "binary_crossentropy")
