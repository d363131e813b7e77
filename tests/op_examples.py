"""Calls of every operation of the scan's allow list that can succeed, as layers, losses, metrics and preprocessing make them.

scripts/fuzz-allowed-ops records them and goes on from there. Importing this runs TensorFlow.
"""

# ruff: noqa: E501 - a table of calls

from __future__ import annotations

import contextlib
import math
from typing import Any

import tensorflow as tf


def _gradient_of(function: Any, *arguments: Any) -> Any:
    arguments = [tf.convert_to_tensor(argument) for argument in arguments]
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(arguments)
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = [part for part in tf.nest.flatten(function(*arguments)) if part.dtype.is_floating]
        first = [part for part in tape.gradient(result, arguments) if part is not None]
    with contextlib.suppress(LookupError, tf.errors.OpError):
        # Not every gradient has one of its own.
        outer.gradient(first, arguments)


def _f(*shape: int) -> Any:
    return tf.reshape(tf.range(math.prod(shape), dtype=tf.float32) / 7.0 + 0.1, shape)


_raw = tf.raw_ops
_SPARSE = tf.sparse.SparseTensor([[0, 0], [1, 2]], [1.0, 2.0], [2, 3])
_SETS = tf.sparse.SparseTensor(tf.constant([[0, 0], [1, 2]], tf.int64), [1, 2], [2, 3])
_RAGGED = tf.RaggedTensor.from_row_splits([1, 2, 3], [0, 2, 3])
_INDICES = tf.constant([[0, 0], [1, 2]], tf.int64)
_SHAPE = tf.constant([2, 3], tf.int64)
_VALUES = tf.constant([1.0, 2.0])
_SEED = tf.constant([1, 2], tf.int64)
_IMAGE = _f(1, 6, 6, 3)
_BOXES = tf.constant([[0.0, 0.0, 0.5, 0.5], [0.1, 0.1, 0.9, 0.9]])
_SCORES = tf.constant([0.9, 0.8])
_MATRIX = _f(1, 3, 3) + 2 * tf.eye(3)
_LIST = _raw.TensorListFromTensor(tensor=_f(3, 2), element_shape=[2])
_VECTORS = tf.TensorShape([2])
_VARIABLE = tf.Variable(_f(3, 2))
_GRU = {"x": _f(2, 3), "h_prev": _f(2, 4), "w_ru": _f(7, 8), "w_c": _f(7, 4), "b_ru": _f(8), "b_c": _f(4)}
_LSTM = {"cs_prev": _f(2, 4), "h_prev": _f(2, 4), "w": _f(7, 16), "wci": _f(4), "wcf": _f(4), "wco": _f(4), "b": _f(16)}


def _unary() -> None:
    for name in (
        "Abs Acos Acosh Asin Asinh Atan Atanh BesselI0 BesselI0e BesselI1 BesselI1e Ceil Cos Cosh Digamma Erf Erfc Erfinv Exp Expm1 "
        "Floor Inv IsFinite IsInf IsNan L2Loss Lgamma Log Log1p LogSoftmax Ndtri Neg OnesLike Rank Reciprocal Relu Relu6 Rint Round Rsqrt "
        "Selu Elu Shape Sigmoid Sign Sin Sinh Size Softmax Softplus Softsign Sqrt Square Tan Tanh ZerosLike LeakyRelu"
    ).split():
        function = getattr(_raw, name)
        argument = [arg for arg in function.__signature__.parameters if arg != "name"][0] if hasattr(function, "__signature__") else None
        for key in filter(None, (argument, "x", "features", "input", "t", "logits")):
            try:
                function(**{key: _f(2, 3)})
                break
            except TypeError:
                continue


def _binary() -> None:
    for name in (
        "Add AddV2 Atan2 Div DivNoNan Equal FloorDiv FloorMod Greater GreaterEqual Igamma IgammaGradA Igammac InvGrad Less LessEqual "
        "Maximum Minimum Mod Mul MulNoNan NextAfter NotEqual Polygamma Pow RealDiv ReciprocalGrad RsqrtGrad SigmoidGrad SqrtGrad "
        "SquaredDifference Sub TanhGrad TruncateDiv TruncateMod Xdivy Xlog1py Xlogy Zeta"
    ).split():
        for keys in (("x", "y"), ("a", "x"), ("y", "dy"), ("x", "q"), ("x1", "x2")):
            try:
                getattr(_raw, name)(**dict.fromkeys(keys, _f(2, 3)))
                break
            except TypeError:
                continue


# Each runs operations that are recorded with what they were given.
EXAMPLES = [
    _unary,
    _binary,
    lambda: [getattr(_raw, n)(x=[1, 2], y=[1, 3]) for n in "BitwiseAnd BitwiseOr BitwiseXor LeftShift RightShift".split()],
    lambda: (tf.math.betainc(_f(3), _f(3), _f(3) / 9), tf.linalg.cross(_f(2, 3), _f(2, 3)), tf.clip_by_value(_f(3), 0.0, 1.0)),
    lambda: (tf.add_n([_f(2), _f(2)]), tf.bitwise.invert([1]), _raw.PopulationCount(x=[3])),
    lambda: (_raw.ApproximateEqual(x=_f(2), y=_f(2)), tf.logical_and([True], [False]), tf.logical_or([True], [False]), tf.logical_not([True])),
    lambda: (tf.where([True, False]), tf.where([True, False], _f(2), _f(2)), _raw.Select(condition=[True, False], x=_f(2), y=_f(2))),
    lambda: [f(tf.complex(_f(4, 4, 4), _f(4, 4, 4))) for f in (tf.signal.fft, tf.signal.ifft, tf.signal.fft2d, tf.signal.ifft2d, tf.signal.fft3d, tf.signal.ifft3d)],
    lambda: [f(_f(4, 4, 4)) for f in (tf.signal.rfft, tf.signal.rfft2d, tf.signal.rfft3d)],
    lambda: [f(tf.complex(_f(4, 4, 4), _f(4, 4, 4))) for f in (tf.signal.irfft, tf.signal.irfft2d, tf.signal.irfft3d, tf.abs, tf.math.angle, tf.math.conj, tf.math.real, tf.math.imag)],
    lambda: [f(_f(2, 3), 1) for f in (tf.reduce_max, tf.reduce_mean, tf.reduce_min, tf.reduce_prod, tf.reduce_sum, tf.math.reduce_euclidean_norm, tf.argmax, tf.argmin, tf.cumsum, tf.math.cumprod, tf.math.cumulative_logsumexp)],
    lambda: (tf.reduce_all([[True]], 1), tf.reduce_any([[True]], 1), tf.histogram_fixed_width(_f(4), [0.0, 1.0], 4), _raw.Bucketize(input=_f(3), boundaries=[0.2, 0.5])),
    lambda: (_raw.Bincount(arr=[1, 2], size=3, weights=_f(2)), _raw.DenseBincount(input=[1, 2], size=3, weights=_f(2)), _raw.DenseBincount(input=[[1, 2]], size=3, weights=_f(0))),
    lambda: (_raw.SparseBincount(indices=_INDICES, values=[1, 2], dense_shape=_SHAPE, size=4, weights=_VALUES), _raw.RaggedBincount(splits=tf.constant([0, 1, 2], tf.int64), values=[1, 2], size=4, weights=_VALUES)),
    lambda: (_raw.InTopK(predictions=_f(2, 3), targets=[0, 1], k=1), _raw.InTopKV2(predictions=_f(2, 3), targets=[0, 1], k=1), _raw.ListDiff(x=[1, 2], y=[1]), _raw.NthElement(input=_f(3), n=1)),
    lambda: (tf.searchsorted(_f(1, 3), _f(1, 2)), tf.searchsorted(_f(1, 3), _f(1, 2), "right"), tf.math.top_k(_f(3), 2)),
    lambda: [f(_f(3, 2), [0, 0, 1]) for f in (tf.math.segment_max, tf.math.segment_mean, tf.math.segment_min, tf.math.segment_prod, tf.math.segment_sum)],
    lambda: [f(_f(3, 2), [0, 0, 1], 2) for f in (tf.math.unsorted_segment_max, tf.math.unsorted_segment_min, tf.math.unsorted_segment_prod, tf.math.unsorted_segment_sum)],
    lambda: (tf.unique([1, 1]), tf.unique_with_counts([1, 1]), _raw.UniqueV2(x=[1, 1], axis=[0]), _raw.UniqueWithCountsV2(x=[1, 1], axis=[0])),
    lambda: (tf.space_to_batch(_f(1, 4, 4, 1), [2, 2], [[0, 0], [0, 0]]), tf.batch_to_space(_f(4, 2, 2, 1), [2, 2], [[0, 0], [0, 0]])),
    lambda: (_raw.SpaceToBatch(input=_f(1, 4, 4, 1), paddings=[[0, 0], [0, 0]], block_size=2), _raw.BatchToSpace(input=_f(4, 2, 2, 1), crops=[[0, 0], [0, 0]], block_size=2)),
    lambda: (_raw.BroadcastArgs(s0=[2, 1], s1=[3]), _raw.BroadcastGradientArgs(s0=[2, 1], s1=[3]), tf.broadcast_to(_f(1, 3), [2, 3]), _raw.Concat(concat_dim=0, values=[_f(2), _f(1)])),
    lambda: (_raw.ConcatOffset(concat_dim=0, shape=[[2], [1]]), tf.concat([_f(2), _f(1)], 0), _raw.ConjugateTranspose(x=_f(2, 3), perm=[1, 0]), tf.transpose(_f(2, 3))),
    lambda: (_raw.DataFormatDimMap(x=[0, 1]), _raw.DataFormatVecPermute(x=[0, 1, 2, 3]), tf.nn.depth_to_space(_f(1, 2, 2, 4), 2), tf.nn.space_to_depth(_f(1, 4, 4, 1), 2)),
    lambda: (_raw.Diag(diagonal=_f(2)), _raw.DiagPart(input=_f(2, 2)), tf.dynamic_partition(_f(3), [0, 1, 0], 2), tf.dynamic_stitch([[0], [1]], [_f(1), _f(1)])),
    lambda: (_raw.ParallelDynamicStitch(indices=[[0], [1]], data=[_f(1), _f(1)]), tf.gather(_f(3, 2), [0, 1]), tf.gather(_f(2, 3), [[0], [1]], axis=1, batch_dims=1), tf.gather_nd(_f(2, 3), [[0, 1]]), _raw.Gather(params=_f(3), indices=[0])),
    lambda: (_raw.InvertPermutation(x=[1, 0]), tf.linalg.band_part(_f(3, 3), 1, 1), tf.linalg.diag(_f(3)), tf.linalg.diag_part(_f(3, 3)), tf.linalg.set_diag(_f(3, 3), _f(3))),
    lambda: (_raw.MatrixDiag(diagonal=_f(3)), _raw.MatrixDiagPart(input=_f(3, 3)), _raw.MatrixSetDiag(input=_f(3, 3), diagonal=_f(3))),
    lambda: (_raw.MatrixDiagV2(diagonal=_f(2, 3), k=[0, 1], num_rows=3, num_cols=4, padding_value=0.0), _raw.MatrixDiagPartV2(input=_f(3, 3), k=[0, 1], padding_value=0.0), _raw.MatrixSetDiagV2(input=_f(3, 3), diagonal=_f(3), k=0)),
    lambda: (tf.pad(_f(3, 3), [[1, 1], [1, 1]], "REFLECT"), _raw.MirrorPadGrad(input=_f(5, 5), paddings=[[1, 1], [1, 1]], mode="REFLECT"), tf.pad(_f(2), [[1, 1]]), tf.pad(_f(2), [[1, 1]], constant_values=2.0)),
    lambda: (tf.one_hot([0, 1], 3), tf.stack([_f(2), _f(2)]), _raw.Reverse(tensor=_f(2), dims=[True]), tf.reverse_sequence(_f(2, 3), [1, 2], 1), tf.reverse(_f(2), [0]), tf.roll(_f(3), [1], [0])),
    lambda: (tf.scatter_nd([[0], [1]], _f(2), [3]), _raw.ScatterNdNonAliasingAdd(input=_f(3), indices=[[0]], updates=_f(1)), tf.slice(_f(3), [0], [2]), tf.split(_f(4), 2), tf.split(_f(4), [1, 3])),
    lambda: (_f(3, 3)[1:, 0], _raw.StridedSliceGrad(shape=[3, 3], begin=[0, 0], end=[1, 1], strides=[1, 1], dy=_f(1, 1)), _raw.TensorStridedSliceUpdate(input=_f(3), begin=[0], end=[1], strides=[1], value=_f(1))),
    lambda: [f(_f(3), [[0]], _f(1)) for f in (tf.tensor_scatter_nd_add, tf.tensor_scatter_nd_max, tf.tensor_scatter_nd_min, tf.tensor_scatter_nd_sub, tf.tensor_scatter_nd_update)],
    lambda: (tf.tile(_f(2), [2]), tf.unstack(_f(2, 2)), tf.linspace(0.0, 1.0, 3), tf.range(0, 3), tf.reshape(_f(4), [2, 2]), tf.squeeze(_f(1, 2)), tf.expand_dims(_f(2), 0), tf.fill([2], 1.0), tf.shape_n([_f(2), _f(2)]), tf.bitcast(_f(2), tf.int32), tf.cast(_f(2), tf.int32), tf.ensure_shape(_f(2), [2]), tf.identity_n([_f(2)])),
    lambda: (tf.matmul(_f(2, 3), _f(3, 2)), tf.matmul(_f(1, 2, 3), _f(1, 3, 2)), tf.linalg.cholesky(_MATRIX), tf.linalg.eig(_MATRIX), tf.einsum("ab,bc->ac", _f(2, 3), _f(3, 2)), tf.linalg.slogdet(_MATRIX), tf.linalg.det(_MATRIX), tf.linalg.inv(_MATRIX)),
    lambda: (tf.linalg.logm(tf.cast(_MATRIX, tf.complex64)), tf.linalg.solve(_MATRIX, _f(1, 3, 1)), tf.linalg.lstsq(_MATRIX, _f(1, 3, 1), fast=False), tf.linalg.sqrtm(_MATRIX), tf.linalg.triangular_solve(_MATRIX, _f(1, 3, 1))),
    lambda: (tf.linalg.qr(_MATRIX), tf.linalg.eigh(_MATRIX), _raw.SparseMatMul(a=_f(2, 3), b=_f(3, 2)), tf.linalg.svd(_MATRIX), tf.linalg.banded_triangular_solve(_f(2, 3), _f(3, 1)), _raw.CholeskyGrad(l=_MATRIX, grad=_MATRIX)),
    lambda: (tf.linalg.tridiagonal_solve(_f(3, 3), _f(3, 1)), tf.linalg.tridiagonal_matmul(_f(3, 3), _f(3, 1)), _raw.BatchMatMul(x=_f(1, 2, 3), y=_f(1, 3, 2)), _raw.BatchMatMulV3(x=_f(1, 2, 3), y=_f(1, 3, 2), Tout=tf.float32)),
    lambda: [_gradient_of(f, _f(2, 3)) for f in (tf.nn.elu, tf.nn.leaky_relu, tf.nn.relu, tf.nn.relu6, tf.nn.selu, tf.nn.softplus, tf.nn.softsign, tf.nn.log_softmax, tf.nn.softmax)],
    lambda: (_gradient_of(tf.nn.bias_add, _f(2, 3), _f(3)), _raw.BiasAddV1(value=_f(2, 3), bias=_f(3))),
    *[(lambda padding=padding: _gradient_of(lambda x, w: tf.nn.conv2d(x, w, 2, padding), _f(1, 6, 6, 2), _f(3, 3, 2, 2))) for padding in ("SAME", "VALID", [[0, 0], [1, 1], [1, 1], [0, 0]])],
    lambda: tf.nn.conv2d(_f(1, 6, 6, 2), _f(3, 3, 1, 2), 1, "SAME", dilations=2),
    lambda: _gradient_of(lambda x, w: tf.nn.conv3d(x, w, [1] * 5, "SAME"), _f(1, 4, 4, 4, 2), _f(2, 2, 2, 2, 2)),
    lambda: _gradient_of(lambda x, w: tf.nn.depthwise_conv2d(x, w, [1] * 4, "SAME"), _f(1, 4, 4, 2), _f(2, 2, 2, 1)),
    lambda: _gradient_of(lambda x, w: tf.nn.dilation2d(x, w, [1] * 4, "SAME", "NHWC", [1] * 4), _f(1, 4, 4, 2), _f(2, 2, 2)),
    *[(lambda f=f: _gradient_of(lambda x: f(x, 2, 2, "SAME"), _f(1, 4, 4, 2))) for f in (tf.nn.max_pool2d, tf.nn.avg_pool2d)],
    *[(lambda f=f: _gradient_of(lambda x: f(x, 2, 2, "SAME"), _f(1, 4, 4, 4, 2))) for f in (tf.nn.max_pool3d, tf.nn.avg_pool3d)],
    lambda: _gradient_of(lambda x: tf.nn.max_pool_with_argmax(x, 2, 2, "SAME")[0], _f(1, 4, 4, 2)),
    lambda: (_raw.MaxPoolV2(input=_f(1, 4, 4, 2), ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME"), _raw.MaxPoolGradV2(orig_input=_f(1, 4, 4, 2), orig_output=_f(1, 2, 2, 2), grad=_f(1, 2, 2, 2), ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME")),
    lambda: (_raw.MaxPoolGradGrad(orig_input=_f(1, 4, 4, 2), orig_output=_f(1, 2, 2, 2), grad=_f(1, 4, 4, 2), ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME"), _raw.MaxPoolGradGradV2(orig_input=_f(1, 4, 4, 2), orig_output=_f(1, 2, 2, 2), grad=_f(1, 4, 4, 2), ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME")),
    lambda: (tf.image.extract_patches(_IMAGE, [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "SAME"), _raw.ExtractVolumePatches(input=_f(1, 4, 4, 4, 1), ksizes=[1, 2, 2, 2, 1], strides=[1] * 5, padding="SAME")),
    *[(lambda f=f: _gradient_of(lambda x: f(x, [1, 1.5, 1.5, 1], seed=1)[0], _f(1, 6, 6, 1))) for f in (tf.nn.fractional_avg_pool, tf.nn.fractional_max_pool)],
    *[(lambda t=t: _gradient_of(lambda x, s, o: tf.compat.v1.nn.fused_batch_norm(x, s, o, *(() if t else (_f(2), _f(2))), is_training=t)[0], _f(1, 4, 4, 2), _f(2), _f(2))) for t in (True, False)],
    lambda: [getattr(_raw, n)(x=_f(1, 4, 4, 2), scale=_f(2), offset=_f(2), mean=_f(0), variance=_f(0)) for n in ("FusedBatchNorm", "FusedBatchNormV2")],
    lambda: [getattr(_raw, n)(y_backprop=_f(1, 4, 4, 2), x=_f(1, 4, 4, 2), scale=_f(2), reserve_space_1=_f(2), reserve_space_2=_f(2)) for n in ("FusedBatchNormGrad", "FusedBatchNormGradV2")],
    lambda: _gradient_of(tf.nn.local_response_normalization, _f(1, 4, 4, 2)),
    lambda: _raw.GRUBlockCell(**_GRU),
    lambda: _raw.GRUBlockCellGrad(**_GRU, r=_f(2, 4), u=_f(2, 4), c=_f(2, 4), d_h=_f(2, 4)),
    lambda: _raw.LSTMBlockCell(x=_f(2, 3), **_LSTM),
    lambda: _raw.LSTMBlockCellGrad(x=_f(2, 3), **_LSTM, **{k: _f(2, 4) for k in ("i", "cs", "f", "o", "ci", "co", "cs_grad", "h_grad")}, use_peephole=True),
    lambda: (_raw.BlockLSTM(seq_len_max=tf.constant(2, tf.int64), x=_f(2, 2, 3), **_LSTM), _raw.BlockLSTMV2(seq_len_max=tf.constant(2, tf.int64), x=_f(2, 2, 3), **_LSTM)),
    lambda: [getattr(_raw, n)(seq_len_max=tf.constant(2, tf.int64), x=_f(2, 2, 3), **_LSTM, **{k: _f(2, 2, 4) for k in ("i", "cs", "f", "o", "ci", "co", "h", "cs_grad", "h_grad")}, use_peephole=True) for n in ("BlockLSTMGrad", "BlockLSTMGradV2")],
    lambda: (tf.nn.ctc_greedy_decoder(_f(3, 1, 3), [3]), _raw.CTCBeamSearchDecoder(inputs=_f(3, 1, 3), sequence_length=[3], beam_width=2, top_paths=1)),
    lambda: _raw.CTCLoss(inputs=_f(3, 2, 3), labels_indices=_INDICES, labels_values=[1, 0], sequence_length=[3, 3], ignore_longer_outputs_than_inputs=True),
    lambda: tf.edit_distance(_SETS, _SETS),
    lambda: (_gradient_of(lambda x: tf.nn.softmax_cross_entropy_with_logits(_f(2, 3), x), _f(2, 3)), _gradient_of(lambda x: tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1], x), _f(2, 3))),
    lambda: _raw.TensorListFromTensor(tensor=_f(3, 2), element_shape=[2]),
    lambda: (_raw.TensorListReserve(element_shape=[2], num_elements=3, element_dtype=tf.float32), _raw.EmptyTensorList(element_shape=[2], max_num_elements=3, element_dtype=tf.float32)),
    lambda: (_raw.TensorListScatter(tensor=_f(2, 2), indices=[0, 1], element_shape=[2]), _raw.TensorListScatterV2(tensor=_f(2, 2), indices=[0, 1], element_shape=[2], num_elements=3), _raw.TensorListSplit(tensor=_f(3, 2), element_shape=[-1, 2], lengths=tf.constant([1, 2], tf.int64))),
    lambda: [getattr(_raw, f"TensorList{n}")(input_handle=_LIST, element_dtype=tf.float32, element_shape=[2], **more) for n, more in (("GetItem", {"index": 1}), ("PopBack", {}), ("Stack", {}), ("Gather", {"indices": [0, 2]}))],
    lambda: (_raw.TensorListConcat(input_handle=_LIST, element_dtype=tf.float32, element_shape=_VECTORS), _raw.TensorListConcatV2(input_handle=_LIST, element_dtype=tf.float32, element_shape=[2], leading_dims=tf.constant([], tf.int64)), _raw.TensorListConcatLists(input_a=_LIST, input_b=_LIST, element_dtype=tf.float32)),
    lambda: (_raw.TensorListElementShape(input_handle=_LIST, shape_type=tf.int32), _raw.TensorListLength(input_handle=_LIST), _raw.TensorListPushBack(input_handle=_LIST, tensor=_f(2)), _raw.TensorListPushBackBatch(input_handles=tf.stack([_LIST]), tensor=_f(1, 2)), _raw.TensorListResize(input_handle=_LIST, size=5)),
    lambda: (_raw.TensorListSetItem(input_handle=_LIST, index=1, item=_f(2)), _raw.TensorListScatterIntoExistingList(input_handle=_LIST, tensor=_f(2, 2), indices=[0, 1]), tf.add_n([_LIST, _LIST]), tf.zeros_like(_LIST), _raw.Identity(input=_LIST)),
    lambda: (_VARIABLE.read_value(), _raw.ResourceGather(resource=_VARIABLE.handle, indices=[0], dtype=tf.float32), _raw.ResourceGatherNd(resource=_VARIABLE.handle, indices=[[0]], dtype=tf.float32), _raw.VarIsInitializedOp(resource=_VARIABLE.handle), _raw.VariableShape(input=_VARIABLE.handle)),
    lambda: _raw.RaggedTensorFromVariant(encoded_ragged=_raw.RaggedTensorToVariant(rt_nested_splits=[tf.constant([0, 1, 2], tf.int64)], rt_dense_values=_f(2), batched_input=False), input_ragged_rank=1, output_ragged_rank=1, Tvalues=tf.float32),
    lambda: [getattr(tf.random, n)([2, 2], [1, 2]) for n in ("stateless_normal", "stateless_uniform", "stateless_truncated_normal")],
    lambda: (tf.random.stateless_uniform([2], [1, 2], 0, 9, tf.int32), tf.random.stateless_uniform([2], [1, 2], None, None, tf.int32), tf.random.stateless_binomial([2], [1, 2], _f(2), _f(2)), tf.random.stateless_gamma([2], [1, 2], _f(2)), tf.random.stateless_poisson([2], [1, 2], _f(2)), tf.random.stateless_categorical(_f(2, 3), 2, [1, 2]), tf.random.experimental.stateless_shuffle(_f(3), [1, 2]), _raw.RandomIndexShuffle(index=1, seed=tf.constant([1, 2, 3], tf.uint32), max_index=9)),
    lambda: [getattr(_raw, n)(shape=[2], seed=[1, 2]) for n in ("StatelessRandomNormal", "StatelessRandomUniform", "StatelessTruncatedNormal")],
    lambda: (_raw.StatelessRandomUniformInt(shape=[2], seed=[1, 2], minval=0, maxval=9), _raw.StatelessRandomUniformFullInt(shape=[2], seed=[1, 2]), _raw.StatelessRandomGammaV2(shape=[2], seed=[1, 2], alpha=_f(2))),
    lambda: tf.image.stateless_sample_distorted_bounding_box([6, 6, 3], _BOXES[None], [1, 2]),
    lambda: [getattr(_raw, n)(true_classes=tf.constant([[0], [1]], tf.int64), num_true=1, num_sampled=2, unique=True, range_max=5) for n in ("LearnedUnigramCandidateSampler", "LogUniformCandidateSampler", "UniformCandidateSampler")],
    lambda: (tf.random.categorical(_f(2, 3), 2), tf.random.gamma([2], _f(2)), tf.random.poisson([2], _f(2)), tf.random.shuffle(_f(3)), tf.random.normal([2]), tf.random.uniform([2]), tf.random.uniform([2], 0, 9, tf.int32), tf.random.truncated_normal([2]), _raw.RandomGammaGrad(alpha=_f(2), sample=_f(2)), _raw.ParameterizedTruncatedNormal(shape=[2, 2], means=_f(2), stdevs=_f(2), minvals=-_f(2), maxvals=_f(2) + 1)),
    lambda: (_raw.DenseCountSparseOutput(values=[[1, 2]], weights=_f(0), binary_output=False), _raw.SparseCountSparseOutput(indices=_INDICES, values=[1, 2], dense_shape=_SHAPE, weights=_f(0), binary_output=False), _raw.RaggedCountSparseOutput(splits=tf.constant([0, 1, 2], tf.int64), values=[1, 2], weights=_f(0), binary_output=False)),
    lambda: (tf.sets.intersection([[1, 2]], [[2, 3]]), tf.sets.intersection([[1, 2], [3, 4]], _SETS), tf.sets.union(_SETS, _SETS), tf.sets.size(_SETS)),
    lambda: (tf.ragged.cross([_RAGGED, [[1], [2]]]), tf.ragged.cross_hashed([_RAGGED, [[1], [2]]]), tf.gather(_RAGGED, [0, 1]), tf.ragged.range([0, 1], [2, 3]), _RAGGED.to_sparse(), _RAGGED.to_tensor(), _raw.RaggedFillEmptyRows(value_rowids=tf.constant([0, 2], tf.int64), values=_VALUES, nrows=tf.constant(3, tf.int64), default_value=0.0), _raw.RaggedFillEmptyRowsGrad(reverse_index_map=tf.constant([0, 1], tf.int64), grad_values=_f(3))),
    lambda: (_raw.RaggedTensorToVariant(rt_nested_splits=[tf.constant([0, 1, 2], tf.int64)], rt_dense_values=_f(2), batched_input=True), _raw.RaggedGather(params_nested_splits=[tf.constant([0, 1, 2], tf.int64)], params_dense_values=_f(2), indices=[0], OUTPUT_RAGGED_RANK=1)),
    lambda: (_raw.SparseAdd(a_indices=_INDICES, a_values=_VALUES, a_shape=_SHAPE, b_indices=_INDICES, b_values=_VALUES, b_shape=_SHAPE, thresh=0.0), _raw.SparseAddGrad(backprop_val_grad=_VALUES, a_indices=_INDICES, b_indices=_INDICES, sum_indices=_INDICES)),
    lambda: (tf.sparse.concat(0, [_SPARSE, _SPARSE]), _raw.SparseFillEmptyRowsGrad(reverse_index_map=tf.constant([0, 1], tf.int64), grad_values=_f(3)), _raw.SparseFillEmptyRows(indices=_INDICES, values=_VALUES, dense_shape=_SHAPE, default_value=0.0)),
    lambda: [getattr(_raw, f"SparseDenseCwise{n}")(sp_indices=_INDICES, sp_values=_VALUES, sp_shape=_SHAPE, dense=_f(2, 3)) for n in ("Add", "Div", "Mul")],
    lambda: [getattr(_raw, f"SparseReduce{n}")(input_indices=_INDICES, input_values=_VALUES, input_shape=_SHAPE, reduction_axes=[0]) for n in ("Max", "Sum")],
    lambda: (tf.sparse.reorder(_SPARSE), tf.sparse.reshape(_SPARSE, [3, 2]), tf.sparse.slice(_SPARSE, [0, 0], [1, 1]), tf.sparse.split(_SPARSE, 2, 0), tf.sparse.softmax(_SPARSE), tf.sparse.maximum(_SPARSE, _SPARSE), tf.sparse.minimum(_SPARSE, _SPARSE), tf.sparse.to_dense(_SPARSE), tf.sparse.sparse_dense_matmul(_SPARSE, _f(3, 2))),
    lambda: (_raw.SparseSliceGrad(backprop_val_grad=_VALUES, input_indices=_INDICES, input_start=tf.constant([0, 0], tf.int64), output_indices=_INDICES), _raw.SparseTensorDenseAdd(a_indices=_INDICES, a_values=_VALUES, a_shape=_SHAPE, b=_f(2, 3)), tf.sets.difference(_SETS, [[1, 2], [3, 4]])),
    lambda: [getattr(_raw, f"SparseSegment{n}")(data=_f(3, 2), indices=[0, 1], segment_ids=[0, 1]) for n in ("Mean", "SqrtN", "Sum")],
    lambda: [getattr(_raw, f"SparseSegment{n}WithNumSegments")(data=_f(3, 2), indices=[0, 1], segment_ids=[0, 1], num_segments=2) for n in ("Mean", "SqrtN", "Sum")],
    lambda: [getattr(_raw, f"SparseSegment{n}Grad")(grad=_f(2, 2), indices=[0, 1], segment_ids=[0, 1], output_dim0=3) for n in ("Mean", "SqrtN", "Sum")],
    lambda: (tf.as_string(_f(2)), tf.io.encode_base64(["a"]), tf.io.decode_base64(["YQ"]), tf.io.decode_raw(["abcd"], tf.int16), tf.io.decode_raw(["abcd"], tf.int16, fixed_length=4), tf.fingerprint(["a"]), tf.strings.reduce_join(["a", "b"]), tf.strings.regex_full_match(["a"], "a.*"), tf.strings.regex_replace(["a"], "a", "b"), _raw.RegexFullMatch(input=["a"], pattern="a"), _raw.RegexReplace(input=["a"], pattern="a", rewrite="b")),
    lambda: (tf.strings.format("{}", _f(2)), tf.strings.join(["a", "b"]), tf.strings.length(["a"]), tf.strings.lower(["A"]), tf.strings.upper(["a"]), tf.strings.strip([" a"]), tf.strings.ngrams([["a", "b"]], 2), tf.strings.split(["a b"]), _raw.StringSplit(input=["a b"], delimiter=" "), tf.strings.to_number(["1"]), tf.strings.substr(["abc"], 0, 1)),
    lambda: (tf.strings.to_hash_bucket(["a"], 9), tf.strings.to_hash_bucket_fast(["a"], 9), tf.strings.to_hash_bucket_strong(["a"], 9, [1, 2]), tf.strings.unicode_decode(["a"], "UTF-8"), tf.strings.unicode_decode_with_offsets(["a"], "UTF-8"), tf.strings.unicode_encode([97], "UTF-8"), tf.strings.unicode_script([97]), tf.strings.unicode_transcode(["a"], "UTF-8", "UTF-16-BE"), tf.strings.unsorted_segment_join(["a", "b"], [0, 1], 2)),
    lambda: (tf.image.adjust_contrast(_IMAGE, 2.0), tf.image.adjust_hue(_IMAGE, 0.1), tf.image.adjust_saturation(_IMAGE, 2.0), tf.image.hsv_to_rgb(_IMAGE), tf.image.rgb_to_hsv(_IMAGE)),
    lambda: (tf.image.combined_non_max_suppression(_BOXES[None, :, None], _SCORES[None, :, None], 2, 2), tf.image.non_max_suppression(_BOXES, _SCORES, 2), tf.image.non_max_suppression_with_scores(_BOXES, _SCORES, 2), tf.image.non_max_suppression_padded(_BOXES, _SCORES, 2)),
    lambda: (_raw.NonMaxSuppression(boxes=_BOXES, scores=_SCORES, max_output_size=2), _raw.NonMaxSuppressionV2(boxes=_BOXES, scores=_SCORES, max_output_size=2, iou_threshold=0.5), _raw.NonMaxSuppressionV4(boxes=_BOXES, scores=_SCORES, max_output_size=2, iou_threshold=0.5, score_threshold=0.0)),
    lambda: _gradient_of(lambda x, b: tf.image.crop_and_resize(x, b, [0, 0], [2, 2]), _IMAGE, _BOXES),
    lambda: (tf.image.draw_bounding_boxes(_IMAGE, _BOXES[None], [[1.0, 0.0, 0.0]]), _raw.DrawBoundingBoxes(images=_IMAGE, boxes=_BOXES[None]), tf.image.extract_glimpse(_IMAGE, [2, 2], [[0.0, 0.0]]), _raw.ExtractGlimpse(input=_IMAGE, size=[2, 2], offsets=[[0.0, 0.0]])),
    lambda: (_raw.ImageProjectiveTransformV2(images=_IMAGE, transforms=_f(1, 8), output_shape=[2, 2], interpolation="BILINEAR"), _raw.ImageProjectiveTransformV3(images=_IMAGE, transforms=_f(1, 8), output_shape=[2, 2], fill_value=0.0, interpolation="BILINEAR")),
    lambda: tf.image.resize(_IMAGE, [3, 3], "area"),
    *[(lambda method=method: _gradient_of(lambda x: tf.image.resize(x, [3, 3], method), _IMAGE)) for method in ("bicubic", "bilinear", "nearest")],
    lambda: _gradient_of(lambda x: tf.image.resize(x, [3, 3], "bilinear", antialias=True), _IMAGE),
    lambda: (_raw.AudioSpectrogram(input=_f(16, 1), window_size=8, stride=4), _raw.Mfcc(spectrogram=_f(1, 4, 5), sample_rate=8000)),
    lambda: (_gradient_of(tf.quantization.fake_quant_with_min_max_args, _f(3)), _gradient_of(lambda x: tf.quantization.fake_quant_with_min_max_vars(x, 0.0, 1.0), _f(3)), _gradient_of(lambda x: tf.quantization.fake_quant_with_min_max_vars_per_channel(x, -_f(3), _f(3)), _f(2, 3))),
    lambda: (_raw.QuantizeAndDequantizeV2(input=_f(3), input_min=0.0, input_max=1.0), _raw.QuantizeAndDequantizeV3(input=_f(3), input_min=0.0, input_max=1.0, num_bits=8), _raw.QuantizeAndDequantizeV4(input=_f(3), input_min=0.0, input_max=1.0), _raw.QuantizeAndDequantizeV4Grad(gradients=_f(3), input=_f(3), input_min=0.0, input_max=1.0)),
    lambda: (_raw.ClipByValue(t=_f(3), clip_value_min=0.0, clip_value_max=0.3), _raw.LinSpace(start=0.0, stop=1.0, num=3), _raw.SoftplusGrad(gradients=_f(3), features=_f(3))),
    lambda: (_raw.PreventGradient(input=_f(3)), _raw.PlaceholderWithDefault(input=_f(3), shape=[3]), _raw.StatelessRandomGetAlg(), _raw.StatelessRandomGetKeyCounterAlg(seed=[1, 2])),
    lambda: (_raw.VarHandleOp(dtype=tf.float32, shape=[2]), _raw.AssignVariableOp(resource=_VARIABLE.handle, value=_f(3, 2)), _raw.DisableCopyOnRead(resource=_VARIABLE.handle)),
    lambda: (_raw.ShardedFilename(basename="a", shard=0, num_shards=1), _raw.SaveV2(prefix="a", tensor_names=["x"], shape_and_slices=[""], tensors=[_f(2)]), _raw.RestoreV2(prefix="a", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32]), _raw.MergeV2Checkpoints(checkpoint_prefixes=["a"], destination_prefix="b")),
    lambda: (tf.debugging.check_numerics(_f(3), "a"), _raw.CheckNumericsV2(tensor=_f(3), message="a"), _raw.Assert(condition=True, data=["a"])),
]
