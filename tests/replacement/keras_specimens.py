"""One tiny model, or several, for every layer, activation and loss that Keras has.

The names are read from Keras: a layer that has no specimen here and is not among those that stand for another one fails a test.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, Callable

import numpy as np
import tensorflow as tf

layers, losses = tf.keras.layers, tf.keras.losses

_STEPS, _IMAGE, _VOLUME, _VECTOR = (6, 3), (8, 8, 2), (4, 4, 4, 2), (6,)


@dataclasses.dataclass(frozen=True)
class Specimen:
    """A tiny model around one thing of Keras.

    Attributes:
      kind: layer, activation or loss.
      name: Keras' name of it.
      variant: what the model chooses where there is a choice; unique among specimens of one name.
      input_shape: of one example's feature.
      input_dtype: its type; integers are drawn from 0 to 9.
      model: from the symbolic feature to the prediction.
      loss: what is trained.
      label: from a generator of random numbers and a number of examples to labels.
    """

    kind: str
    name: str
    variant: str
    input_shape: tuple[int, ...]
    input_dtype: tf.DType
    model: Callable[[Any], Any]
    loss: Callable[[], Any]
    label: Callable[[np.random.Generator, int], np.ndarray]

    def __str__(self) -> str:
        return f"{self.name}[{self.variant}]" if self.variant else self.name


def _regression(kind: str, name: str, variant: str, shape: tuple[int, ...], dtype: tf.DType, model: Callable) -> Specimen:
    return Specimen(kind, name, variant, shape, dtype, model, losses.MeanSquaredError, _targets)


def _targets(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.normal(size=(size, 2)).astype(np.float32)


def _ends(tensor: Any) -> Any:
    return layers.Dense(2)(layers.Flatten()(tensor))


def _layer(name: str, shape: tuple[int, ...], /, *, variant: str = "", dtype: tf.DType = tf.float32, wrap=None, **arguments: Any) -> Specimen:
    """A layer between dense ones, so that the gradient passes through it; `wrap` calls it where calling it takes more than the input."""

    def model(feature: Any) -> Any:
        hidden = layers.Dense(3, activation="tanh")(feature) if dtype == tf.float32 and len(shape) > 0 else feature
        layer = getattr(layers, name)(**arguments)
        return _ends(layer(hidden) if wrap is None else wrap(layer, hidden))

    if not variant:
        variant = ", ".join(f"{key}={value}" for key, value in arguments.items() if key not in ("filters", "units", "kernel_size", "pool_size"))
    return _regression("layer", name, variant, shape, dtype, model)


def _call_twice(layer: Any, hidden: Any) -> Any:
    return layer([hidden, layers.Dense(3)(hidden)])


def _layer_specimens() -> Iterator[Specimen]:
    one = _layer
    # Convolutions.
    for name, shape in (("Conv1D", _STEPS), ("Conv2D", _IMAGE), ("Conv3D", _VOLUME)):
        yield one(name, shape, filters=4, kernel_size=3)
        yield one(name, shape, filters=4, kernel_size=2, padding="same", strides=2, activation="relu")
        if name != "Conv3D":
            yield one(name, shape, filters=4, kernel_size=3, dilation_rate=2)
            yield one(name, shape, filters=6, kernel_size=3, groups=3)
    yield one("Conv2D", _IMAGE, filters=4, kernel_size=(3, 2), strides=(2, 1), padding="same")
    yield one("Conv2D", _IMAGE, filters=4, kernel_size=(5, 5), padding="same")
    yield one("Conv1D", _STEPS, filters=4, kernel_size=3, padding="causal")
    for name, shape in (("Conv1DTranspose", _STEPS), ("Conv2DTranspose", _IMAGE), ("Conv3DTranspose", _VOLUME)):
        yield one(name, shape, filters=4, kernel_size=3)
        yield one(name, shape, filters=4, kernel_size=3, strides=2, padding="same")
    yield one("Conv2DTranspose", _IMAGE, filters=4, kernel_size=3, dilation_rate=2)
    for name, shape in (("DepthwiseConv1D", _STEPS), ("DepthwiseConv2D", _IMAGE)):
        yield one(name, shape, kernel_size=3, depth_multiplier=2)
        yield one(name, shape, kernel_size=3, strides=2, padding="same")
        yield one(name, shape, kernel_size=3, dilation_rate=2)
    for name, shape in (("SeparableConv1D", _STEPS), ("SeparableConv2D", _IMAGE)):
        yield one(name, shape, filters=4, kernel_size=3)
        yield one(name, shape, filters=4, kernel_size=3, strides=2, padding="same", depth_multiplier=2)
    yield one("LocallyConnected1D", _STEPS, filters=4, kernel_size=3)
    yield one("LocallyConnected2D", _IMAGE, filters=4, kernel_size=3)
    # Pooling.
    for dimensions, shape in ((1, _STEPS), (2, _IMAGE), (3, _VOLUME)):
        for name in ("MaxPooling", "AveragePooling"):
            yield one(f"{name}{dimensions}D", shape, pool_size=2)
            yield one(f"{name}{dimensions}D", shape, pool_size=3, strides=2, padding="same")
            if dimensions < 3:
                yield one(f"{name}{dimensions}D", shape, pool_size=3, strides=1)
        yield one(f"GlobalMaxPooling{dimensions}D", shape)
        yield one(f"GlobalAveragePooling{dimensions}D", shape)
        yield one(f"Cropping{dimensions}D", shape, cropping=1)
        yield one(f"ZeroPadding{dimensions}D", shape, padding=1)
        yield one(f"UpSampling{dimensions}D", shape, size=2)
        yield one(f"SpatialDropout{dimensions}D", shape, rate=0.0)
    yield one("UpSampling2D", _IMAGE, size=2, interpolation="bilinear")
    yield one("UpSampling2D", _IMAGE, size=(3, 2))
    for interpolation in ("bilinear", "nearest", "area", "bicubic", "lanczos3", "lanczos5", "gaussian", "mitchellcubic"):
        yield one("Resizing", _IMAGE, height=5, width=12, interpolation=interpolation)
    yield one("CenterCrop", _IMAGE, height=4, width=6)
    # Normalization.
    yield one("BatchNormalization", _VECTOR)
    yield one("BatchNormalization", _IMAGE, variant="images")
    yield one("BatchNormalization", _IMAGE, trainable=False)
    yield one("LayerNormalization", _VECTOR)
    yield one("LayerNormalization", _STEPS, variant="of sequences")
    yield one("LayerNormalization", _IMAGE, axis=(1, 2, 3))
    yield one("GroupNormalization", _STEPS, groups=3)
    yield one("GroupNormalization", _IMAGE, groups=-1)
    yield one("UnitNormalization", _VECTOR)
    yield one("Normalization", _VECTOR, mean=[0.5] * 3, variance=[2.0] * 3, variant="given mean")
    yield _layer("SpectralNormalization", _VECTOR, wrap=lambda layer, hidden: layer(hidden), layer=layers.Dense(3), variant="of Dense")
    # Attention.
    yield one("MultiHeadAttention", _STEPS, num_heads=2, key_dim=4, wrap=lambda layer, hidden: layer(hidden, hidden), variant="self")
    yield one("MultiHeadAttention", _STEPS, num_heads=2, key_dim=4, wrap=lambda layer, hidden: layer(hidden, hidden, use_causal_mask=True), variant="causal")
    yield one("Attention", _STEPS, use_scale=True, wrap=_call_twice)
    yield one("AdditiveAttention", _STEPS, wrap=_call_twice)
    # Integers in.
    yield _layer("Embedding", (5,), dtype=tf.int64, input_dim=10, output_dim=4)
    yield _layer("Embedding", (5,), dtype=tf.int64, input_dim=10, output_dim=4, mask_zero=True, wrap=lambda layer, ids: layers.GlobalAveragePooling1D()(layer(ids)))
    yield _layer("CategoryEncoding", (3,), dtype=tf.int64, num_tokens=10, output_mode="multi_hot")
    yield _layer("Discretization", (3,), dtype=tf.int64, bin_boundaries=[2.0, 5.0], output_mode="one_hot", wrap=lambda layer, ids: layer(layers.Flatten()(tf.cast(ids[:, :1], tf.float32))))
    yield _layer("Hashing", (1,), dtype=tf.int64, num_bins=4, output_mode="one_hot", wrap=lambda layer, ids: layer(ids))
    yield _layer("HashedCrossing", (1,), dtype=tf.int64, num_bins=4, output_mode="one_hot", wrap=lambda layer, ids: layer((ids, ids)))
    yield _layer("IntegerLookup", (1,), dtype=tf.int64, vocabulary=list(range(10)), output_mode="one_hot", wrap=lambda layer, ids: layer(ids), variant="one_hot")
    yield _layer("StringLookup", (1,), dtype=tf.int64, vocabulary=[str(i) for i in range(10)], output_mode="one_hot", wrap=lambda layer, ids: layer(tf.strings.as_string(ids)), variant="one_hot")
    yield _layer("TextVectorization", (1,), dtype=tf.int64, vocabulary=["1", "2"], output_mode="multi_hot", wrap=lambda layer, ids: layer(tf.strings.as_string(ids)), variant="multi_hot")
    # Activations as layers.
    for name in ("ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax", "ThresholdedReLU"):
        yield one(name, _VECTOR)
    yield one("ReLU", _VECTOR, max_value=0.5, negative_slope=0.1, threshold=0.05)
    yield one("ReLU", _VECTOR, max_value=6.0)
    yield one("PReLU", _IMAGE, shared_axes=[1, 2])
    yield one("Softmax", _IMAGE, axis=(1, 2))
    # Merging.
    for name in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"):
        yield one(name, _STEPS, wrap=_call_twice)
    yield one("Dot", _STEPS, axes=2, wrap=_call_twice)
    # Shape.
    yield one("Flatten", _STEPS)
    yield one("Permute", _STEPS, dims=(2, 1))
    yield one("RepeatVector", _VECTOR, n=3)
    yield one("Reshape", _STEPS, target_shape=(3, 6))
    # Plain ones.
    yield one("Activation", _VECTOR, activation="relu")
    yield one("ActivityRegularization", _VECTOR, l2=0.1)
    yield one("Dense", _STEPS, units=4)
    yield one("EinsumDense", _STEPS, equation="abc,cd->abd", output_shape=(None, 4), bias_axes="d", variant="abc,cd->abd")
    yield one("Identity", _VECTOR)
    yield one("Lambda", _VECTOR, function=lambda x: x * x, variant="x * x")
    yield one("Masking", _STEPS, wrap=lambda layer, hidden: layers.GlobalAveragePooling1D()(layer(hidden)))
    yield one("Rescaling", _VECTOR, scale=2.0, offset=1.0)
    yield one("TimeDistributed", _STEPS, layer=layers.Dense(4), variant="of Dense")
    yield Specimen("layer", "InputLayer", "", _VECTOR, tf.float32, _ends, losses.MeanSquaredError, _targets)
    # Random: with a rate of 0 the plan must agree with TFF; what is drawn otherwise is another matter.
    yield one("Dropout", _VECTOR, rate=0.0)
    yield one("AlphaDropout", _VECTOR, rate=0.0)
    yield one("GaussianDropout", _VECTOR, rate=0.0)
    yield one("GaussianNoise", _VECTOR, stddev=0.0)
    for name, arguments in {
        "RandomBrightness": {"factor": 0.0},
        "RandomContrast": {"factor": 0.0},
        "RandomCrop": {"height": 8, "width": 8},
        "RandomFlip": {"mode": "horizontal"},
        "RandomHeight": {"factor": 0.0},
        "RandomRotation": {"factor": 0.0},
        "RandomTranslation": {"height_factor": 0.0, "width_factor": 0.0},
        "RandomWidth": {"factor": 0.0},
        "RandomZoom": {"height_factor": 0.0},
    }.items():
        yield one(name, _IMAGE, **arguments)
    # Recurrent.
    for name in ("SimpleRNN", "GRU", "LSTM"):
        yield one(name, _STEPS, units=4)
        yield one(name, _STEPS, units=4, return_sequences=True)
        yield one(name, _STEPS, units=4, unroll=True)
        cell = getattr(layers, f"{name}Cell")
        yield dataclasses.replace(one("RNN", _STEPS, cell=cell(4), variant=f"{name}Cell"), name=f"{name}Cell", variant="in RNN")
    yield one("RNN", _STEPS, cell=layers.GRUCell(4), variant="GRUCell")
    yield dataclasses.replace(
        one("RNN", _STEPS, cell=layers.StackedRNNCells([layers.LSTMCell(4), layers.LSTMCell(3)])), name="StackedRNNCells", variant=""
    )
    yield one("Bidirectional", _STEPS, layer=layers.LSTM(4), variant="of LSTM")
    yield one("ConvLSTM1D", (4, 6, 2), filters=3, kernel_size=2)
    yield one("ConvLSTM2D", (3, 6, 6, 2), filters=3, kernel_size=2)
    yield one("ConvLSTM3D", (3, 4, 4, 4, 2), filters=3, kernel_size=2)


# Names that stand for something else, and bases that do nothing by themselves.
NO_LAYERS = {
    "AbstractRNNCell": "a base class",
    "DenseFeatures": "takes feature columns, deprecated by Keras",
    "Layer": "a base class",
    "Wrapper": "a base class",
}


def layer_names() -> list[str]:
    """Every layer in tf.keras.layers, by the name of its class."""
    classes = (value for value in vars(layers).values() if inspect.isclass(value) and issubclass(value, layers.Layer))
    return sorted({layer.__name__ for layer in classes})


def activation_names() -> list[str]:
    """Every activation in tf.keras.activations."""
    functions = (name for name, value in vars(tf.keras.activations).items() if inspect.isfunction(value))
    return sorted(set(functions) - {"get", "serialize", "deserialize"})


def loss_names() -> list[str]:
    """Every loss class in tf.keras.losses."""
    classes = (value for value in vars(losses).values() if inspect.isclass(value) and issubclass(value, losses.Loss))
    return sorted({loss.__name__ for loss in classes} - {"Loss"})


def _activation_specimens() -> Iterator[Specimen]:
    for name in activation_names():

        def model(feature: Any, name: str = name) -> Any:
            return _ends(layers.Dense(4, activation=name)(feature))

        yield _regression("activation", name, "", _VECTOR, tf.float32, model)


def _loss(
    name: str, shape: tuple[int, ...], last: Any, label: Callable, /, *, variant: str = "", **arguments: Any
) -> Specimen:
    def model(feature: Any) -> Any:
        return layers.Dense(5, activation=last)(layers.Dense(4, activation="tanh")(feature))

    return Specimen("loss", name, variant, shape, tf.float32, model, lambda: getattr(losses, name)(**arguments), label)


def _one_hot(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.eye(5, dtype=np.float32)[rng.integers(0, 5, size)]


def _signs(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.where(rng.random((size, 5)) < 0.5, -1, 1).astype(np.float32)


def _zeros_and_ones(rng: np.random.Generator, size: int) -> np.ndarray:
    return (rng.random((size, 5)) < 0.5).astype(np.float32)


def _numbers(rng: np.random.Generator, size: int) -> np.ndarray:
    return (rng.random((size, 5)) + 0.1).astype(np.float32)


def _classes(*shape: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    return lambda rng, size: rng.integers(0, 5, (size, *shape))


def _loss_specimens() -> Iterator[Specimen]:
    yield _loss("BinaryCrossentropy", _VECTOR, "sigmoid", _zeros_and_ones)
    yield _loss("BinaryCrossentropy", _VECTOR, None, _zeros_and_ones, variant="from_logits", from_logits=True)
    yield _loss("BinaryFocalCrossentropy", _VECTOR, "sigmoid", _zeros_and_ones)
    yield _loss("CategoricalCrossentropy", _VECTOR, "softmax", _one_hot)
    yield _loss("CategoricalCrossentropy", _VECTOR, None, _one_hot, variant="from_logits", from_logits=True)
    yield _loss("CategoricalFocalCrossentropy", _VECTOR, "softmax", _one_hot)
    yield _loss("CategoricalHinge", _VECTOR, None, _one_hot)
    yield _loss("CosineSimilarity", _VECTOR, None, _numbers)
    yield _loss("Hinge", _VECTOR, "tanh", _signs)
    yield _loss("SquaredHinge", _VECTOR, "tanh", _signs)
    yield _loss("KLDivergence", _VECTOR, "softmax", _one_hot)
    yield _loss("Poisson", _VECTOR, "softplus", _numbers)
    for name in ("Huber", "LogCosh", "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredError"):
        yield _loss(name, _VECTOR, None, _numbers)
    yield _loss("MeanSquaredLogarithmicError", _VECTOR, "softplus", _numbers)
    sparse = "SparseCategoricalCrossentropy"
    yield _loss(sparse, _VECTOR, "softmax", _classes(1), variant="labels [B, 1]")
    yield _loss(sparse, _VECTOR, "softmax", _classes(), variant="labels [B]")
    yield _loss(sparse, _VECTOR, None, _classes(1), variant="labels [B, 1], from_logits", from_logits=True)
    yield _loss(sparse, _STEPS, None, _classes(6), variant="labels [B, T], from_logits", from_logits=True)
    yield _loss(sparse, _STEPS, "softmax", _classes(6), variant="labels [B, T]")
    yield _loss(sparse, _VECTOR, None, _classes(1), variant="ignore_class", from_logits=True, ignore_class=0)


def specimens() -> list[Specimen]:
    """All of them, in the order of their kinds."""
    return [*_layer_specimens(), *_activation_specimens(), *_loss_specimens()]
