"""Keras models saved for a build: the saved functions compute what Keras does, and what cannot be saved is told before TFF stumbles over it."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from odp_taskbuilder import errors, save_keras_model, scan_model
from odp_taskbuilder.model.input_spec import check_examples, read_model_spec
from odp_taskbuilder.model.load import load_model

layers, losses = tf.keras.layers, tf.keras.losses
FLOATS = tf.TensorSpec([None, 4], tf.float32)


class Subclassed(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.last = layers.Dense(4, "tanh"), layers.Dense(2)

    def call(self, x, training=False):
        return self.last(self.hidden(x))


def subclassed():
    tf.keras.utils.set_random_seed(3)
    model = Subclassed()
    model(tf.keras.Input((4,)))
    return model


def partly_frozen():
    """Weights of one shape, some of which are frozen."""
    made = [layers.Dense(4, "tanh", trainable=trainable, bias_initializer="normal") for trainable in (True, False, True, False)]
    return tf.keras.Sequential([tf.keras.Input((4,)), *made, layers.Dense(2)])


def frozen_batch_normalization():
    layer = layers.BatchNormalization(trainable=False)
    model = tf.keras.Sequential([layers.Dense(4, input_shape=(4,)), layer, layers.Dense(2)])
    layer.set_weights([np.array(values, np.float32) for values in ([1, 2, 3, 4], [0, 1, 0, 1], [3, 2, 1, 0], [1, 4, 9, 16])])
    return model


def nested_and_shared():
    inner = tf.keras.Sequential([layers.Dense(4, "relu", input_shape=(4,)), layers.Dropout(0.5)])
    feature = tf.keras.Input((4,))
    return tf.keras.Model(feature, layers.Dense(2)(inner(inner(feature))))


def several_inputs(as_mapping):
    """Names that are not in alphabetical order."""
    ids, number = tf.keras.Input((1,), dtype=tf.int64, name="user"), tf.keras.Input((6,), name="age")
    hidden = layers.Concatenate()([layers.Flatten()(layers.Embedding(10, 3)(ids)), number])
    inputs = collections.OrderedDict(user=ids, age=number) if as_mapping else [ids, number]
    return tf.keras.Model(inputs, layers.Dense(2)(hidden))


MODELS = {
    "subclassed": (subclassed, {"feature_spec": FLOATS, "label_spec": tf.TensorSpec([None, 2], tf.float32)}),
    "partly frozen": (partly_frozen, {}),
    "frozen batch normalization": (frozen_batch_normalization, {}),
    "nested and shared": (nested_and_shared, {}),
    "inputs in a mapping": (lambda: several_inputs(True), {}),
    "inputs in a list": (lambda: several_inputs(False), {}),
    "recurrent with dropout": (lambda: tf.keras.Sequential([layers.LSTM(3, dropout=0.5, input_shape=(5, 2)), layers.Dense(2)]), {}),
}


def saved(model, path, loss="mse", **options):
    save_keras_model(model, path, loss=loss, **options)
    return load_model(path)


def example_of(spec):
    rng = np.random.default_rng(5)
    shape = (3, *spec.shape[1:])
    return tf.constant(rng.integers(0, 10, shape) if spec.dtype.is_integer else rng.normal(size=shape), spec.dtype)


def values(variables):
    return tuple(variable.read_value() for variable in variables)


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_computes_what_keras_predicts_and_frozen_weights_are_not_trained(name, tmp_path):
    make, options = MODELS[name]
    model = make()
    loaded = saved(make if name == "subclassed" else model, tmp_path / "saved", **options)
    x = tf.nest.map_structure(example_of, loaded.input_spec[0])
    weights = values(loaded.trainable), values(loaded.non_trainable)
    outputs = loaded.forward.inference(model_weights=weights, x=x, training=False)
    np.testing.assert_allclose(tf.nest.flatten(outputs)[0], model(x, training=False), rtol=1e-5, atol=1e-6)
    assert sorted(tuple(v.shape) for v in loaded.trainable) == sorted(tuple(v.shape) for v in model.trainable_variables)
    assert len(loaded.non_trainable) == len(model.non_trainable_variables)


def test_dropout_drops_in_training_and_not_in_evaluation(tmp_path):
    """Inputs of ones, a kernel of ones: a prediction is the number of kept units, each counted as 1 / (1 - 0.25)."""
    dense = layers.Dense(1, kernel_initializer="ones", use_bias=False)
    loaded = saved(tf.keras.Sequential([tf.keras.Input((1000,)), layers.Dropout(0.25), dense]), tmp_path / "saved")
    weights, ones = (values(loaded.trainable), ()), tf.ones([2, 1000])
    trained = tf.nest.flatten(loaded.forward.training(model_weights=weights, x=ones, training=True))[0].numpy()
    kept = trained * 0.75
    np.testing.assert_allclose(kept, np.round(kept), rtol=1e-5)
    # Four standard deviations of a binomial distribution, sqrt(1000 * 0.25 * 0.75).
    assert np.all(np.abs(kept - 750) < 4 * 13.7)
    assert kept[0] != kept[1]
    evaluated = tf.nest.flatten(loaded.forward.inference(model_weights=weights, x=ones, training=False))[0]
    np.testing.assert_allclose(evaluated, np.full((2, 1), 1000.0))


def of_shape(shape, *stack):
    return tf.keras.Sequential([tf.keras.Input(shape), *stack])


@pytest.mark.parametrize(
    "make, loss, feature, label",
    [
        (lambda: of_shape((4,), layers.Dense(3)), "sparse_categorical_crossentropy", FLOATS, ([None, 1], tf.int64)),
        (
            lambda: tf.keras.Sequential([layers.Embedding(9, 4, input_length=5), layers.Dense(9)]),
            losses.SparseCategoricalCrossentropy(),
            tf.TensorSpec([None, 5], tf.int64),
            ([None, 5], tf.int64),
        ),
        (
            lambda: several_inputs(True),
            losses.Hinge(),
            {"user": tf.TensorSpec([None, 1], tf.int64), "age": tf.TensorSpec([None, 6], tf.float32)},
            ([None, 2], tf.float32),
        ),
    ],
)
def test_the_input_spec_is_that_of_the_model_and_its_loss(make, loss, feature, label, tmp_path):
    loaded = saved(make(), tmp_path / "saved", loss=loss)
    assert loaded.input_spec == (feature, tf.TensorSpec(*label))


def test_recurrent_layers_are_saved_without_what_the_scan_refuses(tmp_path):
    recurrent = layers.Bidirectional(layers.LSTM(2))
    saved(of_shape((4, 3), layers.GRU(2, return_sequences=True), recurrent, layers.Dense(1)), tmp_path / "saved")
    assert not scan_model(tmp_path / "saved").findings


def test_a_loss_by_name_or_function_is_the_mean_over_examples(tmp_path):
    y, output = tf.constant([[1.0], [3.0]]), tf.constant([[0.0], [0.0]])
    for number, loss in enumerate(("mse", lambda label, prediction: tf.square(label - prediction)[:, 0])):
        loaded = saved(of_shape((4,), layers.Dense(1)), tmp_path / str(number), loss=loss)
        assert float(tf.nest.flatten(loaded.forward.loss(output, y, None))[0]) == 5.0


def test_penalties_that_are_left_out_are_told(tmp_path):
    with pytest.warns(UserWarning, match="1 penalties of regularizers"):
        saved(of_shape((4,), layers.Dense(3, kernel_regularizer="l2")), tmp_path / "saved")


def fickle():
    fickle.units += 1
    return of_shape((4,), layers.Dense(fickle.units))


fickle.units = 1


@pytest.mark.parametrize(
    "make, options, message",
    [
        (lambda: of_shape((4,), layers.Dense(4), layers.BatchNormalization(name="bn")), {}, "Layer 'bn' is a BatchNormalization.*moving averages"),
        (lambda: of_shape((4, 2), layers.TimeDistributed(layers.BatchNormalization(name="inner"))), {}, "Layer 'inner' is a Batch"),
        (lambda: string_lookup(), {}, "holds a table"),
        (lambda: of_shape((None, 2), layers.Dense(1)), {}, r"Feature 'x' of the model has shape \(None, None, 2\)"),
        (lambda: tf.keras.Sequential([layers.Dense(1)]), {}, "has no weights yet"),
        (lambda: of_shape((4,), layers.Dense(1, trainable=False)), {}, "no trainable weights"),
        (subclassed, {}, "does not know its inputs.\nPass feature_spec"),
        (subclassed, {"feature_spec": FLOATS}, "Pass label_spec"),
        (lambda: fickle, {}, "A copy of the Keras model has other weights"),
        (lambda: "model.h5", {}, "Expected a tf.keras.Model or a function that makes one, found a str"),
        (lambda: lambda: None, {}, "makes a NoneType"),
        (lambda: of_shape((4,), layers.Dense(1)), {"loss": "nothing"}, "Keras has no loss 'nothing'"),
        (lambda: of_shape((4,), layers.Dense(1)), {"loss": losses.Hinge}, r"Pass an instance, such as tf.keras.losses.Hinge\(\)"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_the_way_on_and_nothing_is_left(make, options, message, tmp_path):
    with pytest.raises(errors.ModelError, match=message):
        saved(make(), tmp_path / "saved", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "model"])
def test_what_keras_saved_is_refused_with_the_lines_that_make_a_functional_model_of_it(name, tmp_path, monkeypatch):
    keras_model = tf.keras.Sequential([tf.keras.Input((4,)), layers.Dense(3, "softmax")])
    keras_model.compile(loss="sparse_categorical_crossentropy")
    keras_model.save(tmp_path / name)
    with pytest.raises(errors.ModelError) as refused:
        check_examples(read_model_spec(tmp_path / name), None)
    _, heading, *lines = str(refused.value).splitlines()
    assert heading.startswith("These lines of Python make a FunctionalModel") and len(lines) == 3
    monkeypatch.chdir(tmp_path)
    exec("\n".join(line.strip() for line in lines), {})
    assert scan_model("saved_model").is_safe
    for ours, theirs in zip(load_model("saved_model").trainable, keras_model.get_weights()):
        np.testing.assert_array_equal(ours.numpy(), theirs)


def string_lookup():
    words = tf.keras.Input((1,), dtype=tf.string)
    return tf.keras.Model(words, layers.Dense(1)(layers.Flatten()(layers.Embedding(3, 2)(layers.StringLookup(vocabulary=["a"])(words)))))


def test_what_is_there_stays_unless_it_may_be_replaced(tmp_path):
    model, path = of_shape((4,), layers.Dense(1)), tmp_path / "saved"
    path.mkdir()
    (path / "notes").write_text("mine")
    with pytest.raises(errors.StorageError, match="saved exists"):
        saved(model, path)
    assert (path / "notes").read_text() == "mine"
    saved(model, path, overwrite=True)
    assert not (path / "notes").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["saved"]
