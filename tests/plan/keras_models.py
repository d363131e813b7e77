"""One tiny Keras model for each layer, activation and loss that Keras has.

A layer stands between two that are trained, so that its gradients by weights and by input are needed; layers with several ways of working
stand in one model in all of them, side by side.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Sequence
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

_l = tf.keras.layers
_TOKENS = 7
# By dimensions, what a convolution of the catalogue is of.
_CONVOLVED = {1: (9,), 2: (7, 6), 3: (5, 4, 5)}
# What is no layer to be used as it is: bases of others, and those of Keras 1.
_BASES = {"AbstractRNNCell", "InputLayer", "Layer", "Wrapper"}
_NO_ACTIVATION = {"deserialize", "get", "serialize"}


def layer_names() -> list[str]:
    """Every layer that Keras offers, each under one of its names."""
    found: dict[int, str] = {}
    for module in (_l, _l.experimental):
        for name, layer in sorted(vars(module).items()):
            is_layer = inspect.isclass(layer) and issubclass(layer, _l.Layer) and name not in _BASES
            # A class is known by its own name where it is offered under that.
            if is_layer and (id(layer) not in found or name == layer.__name__):
                found[id(layer)] = name
    return sorted(found.values())


def activation_names() -> list[str]:
    return sorted(name for name in dir(tf.keras.activations) if not name.startswith("_") and name not in _NO_ACTIVATION)


def loss_names() -> list[str]:
    losses = tf.keras.losses
    return sorted(
        name for name, loss in vars(losses).items() if inspect.isclass(loss) and issubclass(loss, losses.Loss) and loss is not losses.Loss
    )


@dataclasses.dataclass(frozen=True)
class KerasCase:
    """A model to save, and what its examples are.

    Attributes:
      make: makes the model, the same every time.
      make_expected: makes a model of the same mathematics and weights, for processors on which TensorFlow does not train the first.
      loss: an instance of a Keras loss.
      tokens: integer features are below it.
      label: "normal", "binary", "sign", "one_hot", "positive" or the number of classes.
    """

    make: Callable[[], tf.keras.Model]
    loss: tf.keras.losses.Loss = dataclasses.field(default_factory=tf.keras.losses.MeanSquaredError)
    tokens: int = _TOKENS
    label: Any = "normal"
    label_spec: Optional[tf.TensorSpec] = None
    make_expected: Optional[Callable[[], tf.keras.Model]] = None


def _flat(tensor: tf.Tensor) -> tf.Tensor:
    return _l.Flatten()(tensor) if tensor.shape.rank != 2 else tensor


def _between(*ways: Callable[[], Any], shape: Sequence[int], channels: int = 4) -> KerasCase:
    """Each of `ways` makes a layer, or a function of a tensor; all take the same [*shape, channels] that a dense layer made."""

    def make() -> tf.keras.Model:
        tf.keras.utils.set_random_seed(1)
        inputs = tf.keras.Input((*shape, 3))
        hidden = _l.Dense(channels, activation="tanh")(inputs)
        outputs = [_flat(way()(hidden)) for way in ways]
        joined = _l.Concatenate()(outputs) if len(outputs) > 1 else outputs[0]
        # Weights that keep training from diverging, however large a layer's output is.
        return tf.keras.Model(inputs, _l.Dense(1, kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.1, seed=2))(joined))

    return KerasCase(make)


def _of_tokens(layer: Callable[[], Any], *, length: int = 5) -> KerasCase:
    """A layer that takes integers."""

    def make() -> tf.keras.Model:
        tf.keras.utils.set_random_seed(1)
        inputs = tf.keras.Input((length,), dtype=tf.int64)
        outputs = _l.Lambda(lambda tensor: tf.cast(tensor, tf.float32))(layer()(inputs))
        return tf.keras.Model(inputs, _l.Dense(1)(_flat(outputs)))

    return KerasCase(make)


def _in_front(layer: Callable[[], Any], shape: Sequence[int]) -> KerasCase:
    """A layer that prepares what a model takes."""

    def make() -> tf.keras.Model:
        tf.keras.utils.set_random_seed(1)
        inputs = tf.keras.Input(tuple(shape))
        outputs = _l.Lambda(lambda tensor: tf.cast(tensor, tf.float32))(layer()(inputs))
        return tf.keras.Model(inputs, _l.Dense(1)(_flat(outputs)))

    return KerasCase(make)


def _of_strings(layer: Callable[[], Any]) -> KerasCase:
    def make() -> tf.keras.Model:
        tf.keras.utils.set_random_seed(1)
        inputs = tf.keras.Input((1,), dtype=tf.string)
        return tf.keras.Model(inputs, _l.Dense(1)(_flat(_l.Embedding(9, 3)(layer()(inputs)))))

    return KerasCase(make)


def _merging(layer: Callable[[], Any]) -> KerasCase:
    def way() -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda hidden: layer()([hidden, _l.Dense(4)(hidden)])

    return _between(way, shape=(5,))


def _attending(layer: Callable[[], Any]) -> KerasCase:
    def way() -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda hidden: layer()([hidden, _l.Dense(4)(hidden)])

    return _between(way, shape=(5,))


def _recurrent(make: Callable[..., Any]) -> KerasCase:
    """With and without mask, last state and sequence, forwards and backwards."""

    def build() -> tf.keras.Model:
        tf.keras.utils.set_random_seed(1)
        inputs = tf.keras.Input((5,), dtype=tf.int64)
        masked = _l.Embedding(_TOKENS, 4, mask_zero=True)(inputs)
        plain = _l.Embedding(_TOKENS, 4)(inputs)
        outputs = [
            make()(masked),
            make(go_backwards=True)(plain),
            _l.GlobalAveragePooling1D()(make(return_sequences=True)(plain)),
        ]
        return tf.keras.Model(inputs, _l.Dense(1)(_l.Concatenate()(outputs)))

    return KerasCase(build)


def _random(layer: Callable[[], Any], shape: Sequence[int]) -> KerasCase:
    return _between(layer, shape=shape)


def _group_by_group(layer: type[tf.keras.layers.Layer]) -> type[tf.keras.layers.Layer]:
    """A convolution layer that convolves each of its groups by itself: of grouped ones, TensorFlow has gradients with oneDNN only."""

    class GroupByGroup(layer):
        def convolution_op(self, inputs, kernel):  # noqa: ANN001, ANN202 - Keras's own signature.
            groups = zip(tf.split(inputs, self.groups, -1), tf.split(kernel, self.groups, -1))
            return tf.concat([super(GroupByGroup, self).convolution_op(*group) for group in groups], -1)

    return GroupByGroup


def _plain_convolution(conv: type[tf.keras.layers.Layer], rank: int) -> KerasCase:
    return _between(
        lambda: conv(4, 3, padding="same", activation="relu"),
        lambda: conv(3, 2, strides=2),
        *([lambda: conv(3, 2, dilation_rate=2, padding="same")] if rank < 3 else []),
        *([lambda: conv(4, 3, groups=2, strides=2, padding="same")] if rank < 3 else []),
        *([lambda: conv(3, 3, padding="causal", dilation_rate=2)] if rank == 1 else []),
        shape=_CONVOLVED[rank],
    )


def _convolutions(rank: int) -> dict[str, KerasCase]:
    sizes = _CONVOLVED[rank]
    conv, transposed = getattr(_l, f"Conv{rank}D"), getattr(_l, f"Conv{rank}DTranspose")
    found = {
        f"Conv{rank}D": dataclasses.replace(
            _plain_convolution(conv, rank), make_expected=_plain_convolution(_group_by_group(conv), rank).make
        ),
        f"Conv{rank}DTranspose": _between(
            lambda: transposed(3, 3, strides=2, padding="same"),
            lambda: transposed(3, 2, strides=2),
            lambda: transposed(2, 3, padding="same"),
            shape=sizes,
        ),
    }
    if rank == 3:
        found["Conv3D (groups)"] = _between(lambda: conv(4, 3, groups=2, padding="same"), shape=sizes)
        found["Conv3D (dilated)"] = _between(lambda: conv(3, 2, dilation_rate=2, padding="same"), shape=sizes)
    if rank < 3:
        depthwise, separable = getattr(_l, f"DepthwiseConv{rank}D"), getattr(_l, f"SeparableConv{rank}D")
        found[f"DepthwiseConv{rank}D"] = _between(
            lambda: depthwise(3, padding="same", depth_multiplier=2),
            lambda: depthwise(2, strides=2),
            lambda: depthwise(2, dilation_rate=2, padding="same"),
            shape=sizes,
        )
        found[f"SeparableConv{rank}D"] = _between(
            lambda: separable(4, 3, padding="same", depth_multiplier=2),
            lambda: separable(3, 3, strides=2),
            lambda: separable(3, 2, dilation_rate=2),
            shape=sizes,
        )
        local = getattr(_l, f"LocallyConnected{rank}D")
        found[f"LocallyConnected{rank}D"] = _between(
            lambda: local(3, 2), lambda: local(2, 2, strides=2), shape=sizes
        )
    lstm = getattr(_l, f"ConvLSTM{rank}D")
    lstm_sizes = {1: (3, 5), 2: (3, 4, 4), 3: (2, 3, 3, 3)}[rank]
    found[f"ConvLSTM{rank}D"] = _between(
        lambda: lstm(2, 2, padding="same"), lambda: lstm(2, 2, return_sequences=True), shape=lstm_sizes, channels=2
    )
    return found


def _images(rank: int) -> dict[str, KerasCase]:
    """What pools, pads, crops and enlarges."""
    sizes = {1: (9,), 2: (7, 6), 3: (5, 4, 5)}[rank]
    found = {}
    for kind in ("Average", "Max"):
        pool = getattr(_l, f"{kind}Pooling{rank}D")
        found[f"{kind}Pooling{rank}D"] = _between(
            functools.partial(pool, 2), functools.partial(pool, 3, strides=2, padding="same"), functools.partial(pool, 2, strides=1), shape=sizes
        )
        whole = getattr(_l, f"Global{kind}Pooling{rank}D")
        found[f"Global{kind}Pooling{rank}D"] = _between(whole, functools.partial(whole, keepdims=True), shape=sizes)
    cropping, padding = getattr(_l, f"Cropping{rank}D"), getattr(_l, f"ZeroPadding{rank}D")
    enlarging = getattr(_l, f"UpSampling{rank}D")
    found[f"Cropping{rank}D"] = _between(functools.partial(cropping, 1), shape=sizes)
    found[f"ZeroPadding{rank}D"] = _between(functools.partial(padding, 1), shape=sizes)
    ways = [functools.partial(enlarging, 2)]
    if rank == 2:
        ways += [functools.partial(enlarging, (1, 2), interpolation=way) for way in ("bilinear", "bicubic")]
        for way in ("area", "lanczos3"):
            found[f"UpSampling2D ({way})"] = _between(functools.partial(enlarging, 2, interpolation=way), shape=sizes)
    found[f"UpSampling{rank}D"] = _between(*ways, shape=sizes)
    found[f"SpatialDropout{rank}D"] = _random(functools.partial(_l.__dict__[f"SpatialDropout{rank}D"], 0.5), sizes)
    return found


def _squares(tensor: tf.Tensor) -> tf.Tensor:
    return tf.square(tensor) + tf.reduce_max(tensor, -1, keepdims=True)


def _mean_of_dense_features() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(1)
    columns = [tf.feature_column.numeric_column("a", (2,)), tf.feature_column.numeric_column("b", (1,))]
    inputs = {"a": tf.keras.Input((2,), name="a"), "b": tf.keras.Input((1,), name="b")}
    return tf.keras.Model(inputs, _l.Dense(1)(_l.DenseFeatures(columns)(inputs)))


def layer_cases() -> dict[str, KerasCase]:
    """Layer -> its model."""
    cell = {name: getattr(_l, name) for name in ("SimpleRNNCell", "GRUCell", "LSTMCell")}
    cases = {
        "Activation": _between(lambda: _l.Activation("tanh"), lambda: _l.Activation("relu"), shape=()),
        "ActivityRegularization": _between(lambda: _l.ActivityRegularization(l2=0.1), shape=()),
        "AdditiveAttention": _attending(_l.AdditiveAttention),
        "AlphaDropout": _random(lambda: _l.AlphaDropout(0.5), (5,)),
        "Attention": _attending(lambda: _l.Attention(use_scale=True)),
        "BatchNormalization": _between(_l.BatchNormalization, shape=()),
        "Bidirectional": _recurrent(lambda **options: _l.Bidirectional(_l.LSTM(3, **{k: v for k, v in options.items() if k != "go_backwards"}))),
        "CategoryEncoding": _of_tokens(lambda: _l.CategoryEncoding(_TOKENS, output_mode="count")),
        "CenterCrop": _between(lambda: _l.CenterCrop(4, 3), shape=(7, 6)),
        "Dense": _between(lambda: _l.Dense(3, activation="relu"), shape=(5, 4)),
        "DenseFeatures": KerasCase(_mean_of_dense_features),
        "Discretization": _in_front(lambda: _l.Discretization(bin_boundaries=[-1.0, 0.0, 1.0]), (4,)),
        "Dot": _merging(lambda: _l.Dot(axes=2, normalize=True)),
        "Dropout": _random(lambda: _l.Dropout(0.5), (5,)),
        "ELU": _between(lambda: _l.ELU(0.7), shape=(5,)),
        "EinsumDense": _between(
            lambda: _l.EinsumDense("abc,cd->abd", output_shape=(None, 6), bias_axes="d"),
            lambda: _l.EinsumDense("abc,bcd->abd", output_shape=(5, 3)),
            lambda: _l.EinsumDense("abc,cde->abde", output_shape=(5, 2, 3), bias_axes="de"),
            shape=(5,),
        ),
        "Embedding": _of_tokens(lambda: _l.Embedding(_TOKENS, 3)),
        "Flatten": _between(_l.Flatten, shape=(3, 2)),
        "GRU": _recurrent(lambda **options: _l.GRU(3, **options)),
        "GRUCell": _recurrent(lambda **options: _l.RNN(cell["GRUCell"](3, reset_after=False), **options)),
        "GaussianDropout": _random(lambda: _l.GaussianDropout(0.5), (5,)),
        "GaussianNoise": _random(lambda: _l.GaussianNoise(0.5), (5,)),
        "GroupNormalization": _between(lambda: _l.GroupNormalization(2), lambda: _l.GroupNormalization(-1), shape=(5, 4)),
        "HashedCrossing": KerasCase(_hashed_crossing),
        "Hashing": _of_tokens(lambda: _l.Hashing(5)),
        "Identity": _between(_l.Identity, shape=()),
        "IntegerLookup": _of_tokens(lambda: _l.IntegerLookup(vocabulary=[1, 2, 3])),
        "LSTM": _recurrent(lambda **options: _l.LSTM(3, **options)),
        "LSTMCell": _recurrent(lambda **options: _l.RNN(cell["LSTMCell"](3), **options)),
        "Lambda": _between(lambda: _l.Lambda(_squares), shape=()),
        "LayerNormalization": _between(
            _l.LayerNormalization, lambda: _l.LayerNormalization(axis=[1, 2]), lambda: _l.LayerNormalization(scale=False), shape=(5, 4)
        ),
        "LeakyReLU": _between(_l.LeakyReLU, shape=(5,)),
        "Masking": _between(lambda: lambda hidden: _l.LSTM(3)(_l.Masking()(hidden)), shape=(5,)),
        "MultiHeadAttention": _between(
            lambda: lambda hidden: _l.MultiHeadAttention(2, 3)(hidden, hidden),
            lambda: lambda hidden: _l.MultiHeadAttention(2, 3)(hidden, hidden, use_causal_mask=True),
            shape=(5,),
        ),
        "Normalization": _in_front(lambda: _l.Normalization(mean=[0.5] * 4, variance=[2.0] * 4), (4,)),
        "PReLU": _between(_l.PReLU, lambda: _l.PReLU(shared_axes=[1]), shape=(5,)),
        "Permute": _between(lambda: _l.Permute((2, 1)), lambda: _l.LocallyConnected1D(2, 2), shape=(5,)),
        "RNN": _recurrent(lambda **options: _l.RNN([_l.GRUCell(3), _l.LSTMCell(3)], **options)),
        "RandomFourierFeatures": _between(lambda: _l.experimental.RandomFourierFeatures(4), shape=()),
        "ReLU": _between(_l.ReLU, lambda: _l.ReLU(0.5, negative_slope=0.1, threshold=0.1), shape=(5,)),
        "RepeatVector": _between(lambda: _l.RepeatVector(3), shape=()),
        "Rescaling": _between(lambda: _l.Rescaling(0.5, 1.0), shape=(5,)),
        "Reshape": _between(lambda: _l.Reshape((4, 5)), shape=(5,)),
        "Resizing": _between(
            *(functools.partial(_l.Resizing, 5, 9, way) for way in ("bilinear", "nearest", "bicubic")), shape=(7, 6)
        ),
        "Resizing (area)": _between(functools.partial(_l.Resizing, 5, 9, "area"), shape=(7, 6)),
        "LocallyConnected2D (implementation=2)": _between(lambda: _l.LocallyConnected2D(2, 2, implementation=2), shape=(4, 5)),
        "Resizing (lanczos3)": _between(functools.partial(_l.Resizing, 5, 9, "lanczos3"), shape=(7, 6)),
        "SimpleRNN": _recurrent(lambda **options: _l.SimpleRNN(3, **options)),
        "SimpleRNNCell": _recurrent(lambda **options: _l.RNN(cell["SimpleRNNCell"](3), **options)),
        "Softmax": _between(_l.Softmax, lambda: _l.Softmax(axis=1), shape=(5,)),
        "SpectralNormalization": _between(lambda: _l.SpectralNormalization(_l.Dense(3)), shape=()),
        "StackedRNNCells": _recurrent(lambda **options: _l.RNN(_l.StackedRNNCells([_l.LSTMCell(3), _l.SimpleRNNCell(3)]), **options)),
        "StringLookup": _of_strings(lambda: _l.StringLookup(vocabulary=["1", "2"])),
        "SyncBatchNormalization": _between(_l.experimental.SyncBatchNormalization, shape=()),
        "TextVectorization": _of_strings(lambda: _l.TextVectorization(vocabulary=["1", "2"], output_sequence_length=3)),
        "ThresholdedReLU": _between(lambda: _l.ThresholdedReLU(0.2), shape=(5,)),
        "TimeDistributed": _between(lambda: _l.TimeDistributed(_l.Conv2D(2, 2)), lambda: _l.TimeDistributed(_l.Dense(3)), shape=(3, 4, 4)),
        "UnitNormalization": _between(_l.UnitNormalization, lambda: _l.UnitNormalization(axis=1), shape=(5,)),
    }
    for name in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"):
        cases[name] = _merging(getattr(_l, name))
    for name, arguments in {
        "RandomBrightness": (0.2,),
        "RandomContrast": (0.2,),
        "RandomCrop": (5, 4),
        "RandomFlip": (),
        "RandomHeight": (0.2,),
        "RandomRotation": (0.2,),
        "RandomTranslation": (0.2, 0.2),
        "RandomWidth": (0.2,),
        "RandomZoom": (0.2,),
    }.items():
        cases[name] = KerasCase(functools.partial(_augmented, getattr(_l, name), arguments))
    for rank in (1, 2, 3):
        cases.update(_convolutions(rank))
        cases.update(_images(rank))
    return cases


def _augmented(layer: Callable[..., Any], arguments: Sequence[Any]) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(1)
    inputs = tf.keras.Input((7, 6, 3))
    outputs = layer(*arguments)(inputs)
    return tf.keras.Model(inputs, _l.Dense(1)(_l.GlobalAveragePooling2D()(_l.Conv2D(2, 2)(outputs))))


def _hashed_crossing() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(1)
    inputs = {name: tf.keras.Input((1,), dtype=tf.int64, name=name) for name in ("a", "b")}
    crossed = _l.HashedCrossing(5, output_mode="one_hot")((inputs["a"], inputs["b"]))
    return tf.keras.Model(inputs, _l.Dense(1)(crossed))


def activation_cases() -> dict[str, KerasCase]:
    return {name: _between(lambda name=name: _l.Activation(getattr(tf.keras.activations, name)), shape=(5,)) for name in activation_names()}


def _with_loss(loss: tf.keras.losses.Loss, label: Any, *, units: int = 3, activation: Any = None, shape: Sequence[int] = (), label_spec=None) -> KerasCase:
    def make() -> tf.keras.Model:
        tf.keras.utils.set_random_seed(1)
        inputs = tf.keras.Input((*shape, 4))
        return tf.keras.Model(inputs, _l.Dense(units, activation=activation)(_l.Dense(5, activation="tanh")(inputs)))

    return KerasCase(make, loss, label=label, label_spec=label_spec)


def loss_cases() -> dict[str, list[KerasCase]]:
    """Loss -> its models: from probabilities and logits, and sparse ones with labels of every shape."""
    k = tf.keras.losses

    def probabilities(loss: type, label: Any, activation: str) -> list[KerasCase]:
        return [_with_loss(loss(), label, activation=activation), _with_loss(loss(from_logits=True), label)]

    def sparse(shape: Sequence[int], label_shape: Sequence[Optional[int]], **options: Any) -> KerasCase:
        activation = None if options.get("from_logits") else "softmax"
        spec = tf.TensorSpec([None, *label_shape], tf.int64)
        return _with_loss(k.SparseCategoricalCrossentropy(**options), 3, activation=activation, shape=shape, label_spec=spec)

    return {
        "BinaryCrossentropy": [*probabilities(k.BinaryCrossentropy, "binary", "sigmoid"), _with_loss(k.BinaryCrossentropy(label_smoothing=0.1), "binary", activation="sigmoid")],
        "BinaryFocalCrossentropy": probabilities(k.BinaryFocalCrossentropy, "binary", "sigmoid"),
        "CategoricalCrossentropy": [*probabilities(k.CategoricalCrossentropy, "one_hot", "softmax"), _with_loss(k.CategoricalCrossentropy(label_smoothing=0.1), "one_hot", activation="softmax")],
        "CategoricalFocalCrossentropy": probabilities(k.CategoricalFocalCrossentropy, "one_hot", "softmax"),
        "CategoricalHinge": [_with_loss(k.CategoricalHinge(), "one_hot")],
        "CosineSimilarity": [_with_loss(k.CosineSimilarity(), "normal")],
        "Hinge": [_with_loss(k.Hinge(), "sign"), _with_loss(k.Hinge(), "binary")],
        "Huber": [_with_loss(k.Huber(0.5), "normal")],
        "KLDivergence": [_with_loss(k.KLDivergence(), "one_hot", activation="softmax")],
        "LogCosh": [_with_loss(k.LogCosh(), "normal")],
        "MeanAbsoluteError": [_with_loss(k.MeanAbsoluteError(), "normal")],
        "MeanAbsolutePercentageError": [_with_loss(k.MeanAbsolutePercentageError(), "positive")],
        "MeanSquaredError": [_with_loss(k.MeanSquaredError(), "normal")],
        "MeanSquaredLogarithmicError": [_with_loss(k.MeanSquaredLogarithmicError(), "positive", activation="softplus")],
        "Poisson": [_with_loss(k.Poisson(), "positive", activation="softplus")],
        "SparseCategoricalCrossentropy": [
            sparse((), ()),
            sparse((), (1,), from_logits=True),
            sparse((5,), (5,)),
            sparse((5,), (5,), from_logits=True),
            sparse((), (1,), from_logits=True, ignore_class=0),
        ],
        "SquaredHinge": [_with_loss(k.SquaredHinge(), "sign"), _with_loss(k.SquaredHinge(), "binary")],
    }


def examples(case: KerasCase, input_spec: tuple[Any, tf.TensorSpec], size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Examples of one client, under the keys of an example."""
    features, label = input_spec
    named = features if isinstance(features, dict) else {"x": features}
    values = {name: _values(spec, size, case.tokens, rng) for name, spec in named.items()}
    return {**values, "y": _labels(case.label, (size, *label.shape[1:]), rng)}


def _values(spec: tf.TensorSpec, size: int, tokens: int, rng: np.random.Generator) -> np.ndarray:
    shape = (size, *spec.shape[1:])
    if spec.dtype == tf.string:
        return rng.integers(0, tokens, shape).astype("S")
    return rng.integers(0, tokens, shape) if spec.dtype.is_integer else rng.normal(size=shape).astype(np.float32)


def _labels(kind: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if isinstance(kind, int):
        return rng.integers(0, kind, shape)
    normal = rng.normal(size=shape).astype(np.float32)
    if kind == "one_hot":
        return np.eye(shape[-1], dtype=np.float32)[normal.argmax(-1)]
    return {"normal": normal, "binary": (normal > 0).astype(np.float32), "sign": np.sign(normal), "positive": np.abs(normal) + 0.1}[kind]
