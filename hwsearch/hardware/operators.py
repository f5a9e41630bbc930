"""The operators that have a cost model, by what fusion makes of them.

One row serves both front ends: the operators of torch (``hwsearch.nets.trace``) and those of ONNX
files (``hwsearch.hardware.onnx_network``). A new operator is a new word here.
"""

from enum import StrEnum, auto
from typing import Final


class OpKind(StrEnum):
    """What an operation is to a fuser."""

    VIEW = auto()  # shares the data of its input, or is another notation of it
    PART = auto()  # a view of some of the elements, unless all of them are asked for
    TRANSPOSE = auto()
    CLONE = auto()  # the same data in order, free where it is in order already
    CAST = auto()
    CONVOLUTION = auto()
    LINEAR = auto()
    PRODUCT = auto()  # of two activations
    BATCH_NORM = auto()
    ADD = auto()  # the only operator that takes a residual into a layer
    STRAIGHT = auto()  # arithmetic, and activations that the saturation of integers replaces
    CURVED = auto()  # other functions of each element alone, or of pairs of elements
    NORM = auto()
    NORM_PART = auto()  # joins the part before it
    SOFTMAX = auto()
    POOLING = auto()
    COPY = auto()
    CONCATENATION = auto()


#: Kinds whose output is no new data.
VIEW_KINDS: Final = frozenset({OpKind.VIEW, OpKind.PART, OpKind.TRANSPOSE})
#: Kinds that work on each element alone, or on pairs of elements.
POINTWISE_KINDS: Final = frozenset({OpKind.ADD, OpKind.STRAIGHT, OpKind.CURVED})

#: Kind, operators of torch (aten names without overload and underscore), operators of ONNX.
_ROWS: Final = (
    (
        OpKind.VIEW,
        "_unsafe_view alias detach expand flatten lift_fresh reshape squeeze unflatten unsqueeze "
        "view",
        "DequantizeLinear Dropout Expand Flatten Identity QuantizeLinear Reshape Squeeze Unsqueeze",
    ),
    (OpKind.PART, "chunk select slice split split_with_sizes unbind", "Gather Slice Split"),
    (OpKind.TRANSPOSE, "permute t transpose", "Transpose"),
    (OpKind.CLONE, "clone _to_copy", ""),
    (OpKind.CAST, "", "Cast"),
    (OpKind.CONVOLUTION, "convolution _convolution", "Conv"),
    (OpKind.LINEAR, "addmm linear mm", "Gemm MatMul"),
    (OpKind.PRODUCT, "baddbmm bmm", ""),
    (
        OpKind.BATCH_NORM,
        "batch_norm cudnn_batch_norm native_batch_norm _native_batch_norm_legit_no_training",
        "BatchNormalization",
    ),
    (OpKind.ADD, "add", "Add"),
    (
        OpKind.STRAIGHT,
        "clamp clamp_min div hardtanh mul neg relu rsub sub",
        "Clip Div Mul Neg Relu Sub",
    ),
    (
        OpKind.CURVED,
        "abs celu elu erf exp gelu hardsigmoid hardswish leaky_relu log maximum minimum mish pow "
        "prelu _prelu_kernel reciprocal rsqrt selu sigmoid silu softplus sqrt square tanh where",
        "Abs Celu Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Log Max Min Mish PRelu Pow "
        "Reciprocal Selu Sigmoid Softplus Softsign Sqrt Swish Tanh ThresholdedRelu Where",
    ),
    (
        OpKind.NORM,
        "native_layer_norm native_group_norm rms_norm _fused_rms_norm",
        "GroupNormalization InstanceNormalization LRN LayerNormalization LpNormalization "
        "MeanVarianceNormalization RMSNormalization",
    ),
    (OpKind.SOFTMAX, "softmax _softmax _safe_softmax _log_softmax", "LogSoftmax Softmax"),
    (
        OpKind.POOLING,
        "adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d amax avg_pool2d "
        "max_pool2d_with_indices mean sum upsample_bilinear2d upsample_nearest2d",
        "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool ReduceL1 ReduceL2 "
        "ReduceMax ReduceMean ReduceMin ReduceSum Resize Upsample",
    ),
    (
        OpKind.COPY,
        "constant_pad_nd copy pixel_shuffle roll",
        "DepthToSpace Pad SpaceToDepth Tile",
    ),
    (OpKind.CONCATENATION, "cat stack", "Concat"),
)

#: The kind of each operator of torch, and of each operator of ONNX.
TORCH: Final = {name: kind for kind, names, _ in _ROWS for name in names.split()}
ONNX: Final = {name: kind for kind, _, names in _ROWS for name in names.split()}
