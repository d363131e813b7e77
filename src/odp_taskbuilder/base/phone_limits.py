"""What phones refuse, read in the sources of their module (spec: phone.md, section 1; the letter and number name the fact there)."""

# H1: a larger client checkpoint, uncompressed, is dropped, and training never starts. A flag of Google's may change it.
MAX_CLIENT_CHECKPOINT_BYTES = 50_000_000
# H4: of one serialized tf.train.Example.
MAX_EXAMPLE_BYTES = 50_000
# H3: training of one round; and how much slower than this machine a phone is taken to be.
MAX_TRAINING_SECONDS = 585
SLOWDOWN = 10
# H5: TensorFlow Lite on phones is a fork of 2022-08. What needs a later runtime than the first may not load, than the second does not.
DOUBTFUL_RUNTIME = "2.10.0"
MAX_RUNTIME = "2.12.0"
# Version code of the first module with federated learning, by the published guide.
FIRST_FEDERATED_MODULE = 341717000
