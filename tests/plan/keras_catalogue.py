"""Which layers, activations and losses of Keras train on phones, and why the others do not.

test_keras_catalogue.py proves every line with a model of its own (keras_models.py); scripts/generate-docs makes a table of it. What is in
no table here runs: the emitted plan needs nothing that phones lack, and trains as TensorFlow Federated does.
"""

from __future__ import annotations

# In Keras 2.14, under one name each.
LAYERS = (
    "Activation", "ActivityRegularization", "Add", "AdditiveAttention", "AlphaDropout", "Attention", "Average", "AveragePooling1D",
    "AveragePooling2D", "AveragePooling3D", "BatchNormalization", "Bidirectional", "CategoryEncoding", "CenterCrop", "Concatenate", "Conv1D",
    "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Conv3D", "Conv3DTranspose", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Cropping1D",
    "Cropping2D", "Cropping3D", "Dense", "DenseFeatures", "DepthwiseConv1D", "DepthwiseConv2D", "Discretization", "Dot", "Dropout", "ELU",
    "EinsumDense", "Embedding", "Flatten", "GRU", "GRUCell", "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalAveragePooling3D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D",
    "GroupNormalization", "HashedCrossing", "Hashing", "Identity", "IntegerLookup", "LSTM", "LSTMCell", "Lambda", "LayerNormalization",
    "LeakyReLU", "LocallyConnected1D", "LocallyConnected2D", "Masking", "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "Maximum", "Minimum",
    "MultiHeadAttention", "Multiply", "Normalization", "PReLU", "Permute", "RNN", "RandomBrightness", "RandomContrast", "RandomCrop",
    "RandomFlip", "RandomFourierFeatures", "RandomHeight", "RandomRotation", "RandomTranslation", "RandomWidth", "RandomZoom", "ReLU",
    "RepeatVector", "Rescaling", "Reshape", "Resizing", "SeparableConv1D", "SeparableConv2D", "SimpleRNN", "SimpleRNNCell", "Softmax",
    "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "SpectralNormalization", "StackedRNNCells", "StringLookup", "Subtract",
    "SyncBatchNormalization", "TextVectorization", "ThresholdedReLU", "TimeDistributed", "UnitNormalization", "UpSampling1D", "UpSampling2D",
    "UpSampling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
)  # fmt: skip
ACTIVATIONS = (
    "elu", "exponential", "gelu", "hard_sigmoid", "linear", "mish", "relu", "selu", "sigmoid", "softmax", "softplus", "softsign", "swish", "tanh",
)  # fmt: skip
LOSSES = (
    "BinaryCrossentropy", "BinaryFocalCrossentropy", "CategoricalCrossentropy", "CategoricalFocalCrossentropy", "CategoricalHinge",
    "CosineSimilarity", "Hinge", "Huber", "KLDivergence", "LogCosh", "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredError",
    "MeanSquaredLogarithmicError", "Poisson", "SparseCategoricalCrossentropy", "SquaredHinge",
)  # fmt: skip

_MOVING = "it changes weights while it trains, which a FunctionalModel cannot"
_TABLE = "it holds a table, which a FunctionalModel cannot"
# Neither TensorFlow Federated nor save_keras_model makes a saved model of it.
CANNOT_BE_SAVED = {
    "BatchNormalization": _MOVING,
    "SyncBatchNormalization": _MOVING,
    "SpectralNormalization": _MOVING,
    "IntegerLookup": _TABLE,
    "StringLookup": _TABLE,
    "TextVectorization": _TABLE,
}
# TensorFlow Federated cannot save it, save_keras_model can.
NEEDS_SAVE_KERAS_MODEL = {
    "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "RandomFourierFeatures", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D",
}  # fmt: skip
# It draws numbers, other ones than TensorFlow Federated does: the weights after training are compared with nothing.
DRAWS = {
    "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "RandomBrightness", "RandomFlip", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D",
}  # fmt: skip
# What `build` says of it, and why in words.
CANNOT_RUN = {
    "CategoryEncoding": ("'Assert'.*'DenseBincount'", "it asserts what its input is; `tf.one_hot` does the same without"),
    "ConvLSTM3D": ("'StridedSlice'", "its steps have six dimensions, more than TensorFlow Lite slices"),
    "Conv3D (dilated)": ("'SpaceToBatchND'", "TensorFlow Lite moves blocks of images only"),
    "Conv3D (groups)": ("would not compute Conv3D", "TensorFlow Lite convolves in three dimensions without groups"),
    "HashedCrossing": ("SparseCross", "the scan of models refuses its operation, which phones lack, too"),
    "RandomContrast": ("AdjustContrastv2", "TensorFlow has no gradient of it"),
    "RandomCrop": ("'RandomUniformInt'", "phones do not draw integers"),
    "RandomHeight": ("a height, width, depth or length is unknown", "its output has another height every time"),
    "RandomRotation": ("'ImageProjectiveTransformV3'", "phones do not transform images"),
    "RandomTranslation": ("'ImageProjectiveTransformV3'", "phones do not transform images"),
    "RandomWidth": ("a height, width, depth or length is unknown", "its output has another width every time"),
    "RandomZoom": ("'ImageProjectiveTransformV3'", "phones do not transform images"),
    "Resizing (area)": ("ResizeArea", "TensorFlow has no gradient of it"),
    "LocallyConnected2D (implementation=2)": ("'Sub'", "its masked kernel has six dimensions, more than TensorFlow Lite subtracts in"),
    "Resizing (lanczos3)": ("'ScaleAndTranslate'", "the scale is computed on the phone; so for lanczos5, gaussian and mitchellcubic"),
    "UpSampling2D (lanczos3)": ("'ScaleAndTranslate'", "the scale is computed on the phone; so for lanczos5, gaussian and mitchellcubic"),
    "UpSampling2D (area)": ("ResizeArea", "TensorFlow has no gradient of it"),
}


def markdown() -> str:
    """The table for people."""
    refused = {**{name: f"cannot be saved: {reason}" for name, reason in CANNOT_BE_SAVED.items()}}
    refused.update({name: reason for name, (_, reason) in CANNOT_RUN.items()})
    run = [name for name in LAYERS if name not in refused]
    lines = [
        f"Of the {len(LAYERS)} layers of Keras 2.14, {len(run)} train on phones: {', '.join(_marked(name) for name in run)}.",
        "",
        "¹ saved with `save_keras_model`, which TensorFlow Federated's own function cannot. ² draws numbers; its training is compared with nothing.",
        "",
        "| Does not | Why |",
        "|---|---|",
        *(f"| {name} | {reason} |" for name, reason in sorted(refused.items())),
        "",
        f"All activations do: {', '.join(ACTIVATIONS)}. So do all losses: {', '.join(LOSSES)}.",
    ]
    return "\n".join(lines)


def _marked(name: str) -> str:
    return f"{name}{'¹' if name in NEEDS_SAVE_KERAS_MODEL else ''}{'²' if name in DRAWS else ''}"
