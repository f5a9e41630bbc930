"""An ONNX file as nodes with known shapes, at batch 1.

The graph is made static (one picture of one size), shapes are inferred by ``onnx`` itself, and what
depends on weights and shapes alone is folded, as every runtime does when it loads a file. Weights
are never read, only their shapes.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hwsearch.errors import BackboneError, HostError

if TYPE_CHECKING:
    import numpy as np
    import onnx

Shape = tuple[int, ...]

#: Tensors up to this many elements may decide a shape, so their values are kept.
_MOST_VALUES: Final = 1024
#: Where torch notes the modules around a node, as a list of paths and the name of the operation.
_SCOPES: Final = "pkg.torch.onnx.name_scopes"
#: Operators whose output depends on the shape of their input alone.
_SHAPES: Final = frozenset({"Shape", "Size"})
#: What exporters leave of the arithmetic on shapes.
_FOLDED: Final = frozenset(
    {
        "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Div", "Equal",
        "Expand", "Floor", "Gather", "Greater", "Less", "Max", "Min", "Mod", "Mul", "Neg", "Not",
        "Range", "ReduceProd", "Reshape", "Slice", "Sqrt", "Squeeze", "Sub", "Transpose",
        "Unsqueeze", "Where",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operator.

    Attributes:
        name: unique in the graph: as the exporter called it, or made up from operator and place.
        scope: path of the module that it is of ("layer1.0.conv1"), "" where the file does not tell.
        op: with its domain, where that is not ONNX's own ("com.microsoft::FusedConv").
        inputs: names of tensors; "" for an optional input that is left out.
        outputs: names of tensors.
        spelled: stands for several nodes that compute one function of one tensor.
    """

    name: str
    scope: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    spelled: bool = False

    @property
    def label(self) -> str:
        """For messages: "Conv '/stem/Conv'"."""
        return f"{self.op} '{self.name}'"


@dataclass(frozen=True, kw_only=True)
class OnnxGraph:
    """The nodes that reach an output, in order, with the shapes of all tensors.

    Attributes:
        picture: name of the input.
        picture_axis: where its channels are: 1, or 3 in files that TensorFlow made.
        nodes: without those that depend on constants alone.
        shapes: of every tensor, constants included.
        element_types: names of ONNX's element types ("FLOAT16") of every tensor.
        constants: tensors that do not depend on the picture.
        constant_nodes: what computes a constant that was not folded, by its name.
        values: of the small constants.
        outputs: names of the graph's outputs.
    """

    name: str
    input_px: int
    picture: str
    picture_axis: int
    nodes: tuple[Node, ...]
    shapes: Mapping[str, Shape]
    element_types: Mapping[str, str]
    constants: frozenset[str]
    constant_nodes: Mapping[str, Node]
    values: Mapping[str, "np.ndarray[Any, Any]"]
    outputs: frozenset[str]

    def activations(self, node: Node) -> tuple[str, ...]:
        """The inputs that depend on the picture, in order, as often as they are read."""
        return tuple(name for name in node.inputs if name and name not in self.constants)

    def weights(self, node: Node) -> tuple[str, ...]:
        """The constant inputs, in order."""
        return tuple(name for name in node.inputs if name in self.constants)


def read_graph(path: Path, *, input_px: int | None, known: frozenset[str]) -> OnnxGraph:
    """Read an ONNX file.

    Args:
        path: of the file; weights in files beside it are not needed.
        input_px: height and width of the picture where the file leaves them open.
        known: operators that the caller can use; any other is refused before anything is inferred.

    Raises:
        BackboneError: not an ONNX file, an operator that is not known, more or other than one
            square picture as input, a size that the file does not allow, or a shape that does not
            follow from the input.
        HostError: the package ``onnx`` is not installed.
    """
    model = _loaded(path)
    graph = model.graph
    constants, constant_nodes, live = _divided(graph)
    for node in live:
        if node.op not in known:
            raise BackboneError(
                f"operator {node.label} of {path} has no cost model; replace it, or cut the "
                "network before it"
            )
    picture, px, axis = _made_static(path, model, input_px)
    types, values = _inferred(path, model)
    shapes = {name: shape for name, (shape, _) in types.items() if shape is not None}
    for node in live:
        for name in (*node.inputs, node.outputs[0]):
            if name and (name not in shapes or 0 in shapes[name]):
                raise BackboneError(
                    f"the shape of tensor {name} at {node.label} of {path} does not follow from "
                    "the input; export the network for fixed shapes"
                )
    return OnnxGraph(
        name=path.name,
        input_px=px,
        picture=picture,
        picture_axis=axis,
        nodes=tuple(live),
        shapes=shapes,
        element_types={name: kind for name, (_, kind) in types.items()},
        constants=frozenset(constants),
        constant_nodes=constant_nodes,
        values=values,
        outputs=frozenset(output.name for output in graph.output),
    )


# -- reading ---------------------------------------------------------------------------------------


def _loaded(path: Path) -> "onnx.ModelProto":
    try:
        import onnx
        import onnx.inliner
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise HostError(f"reading {path} needs the package onnx; pip install onnx") from error
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise BackboneError(f"{path} cannot be read ({error.strerror})") from None
    except DecodeError:
        raise BackboneError(f"{path} is not an ONNX file; export the network again") from None
    if not model.graph.node:
        raise BackboneError(f"{path} is not an ONNX file with a network; export it again")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    if model.graph.sparse_initializer:
        raise BackboneError(f"{path} holds sparse weights, which have no price; export them dense")
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > _MOST_VALUES:
            # Shape inference copies the model several times; only the shapes of weights matter.
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.ClearField("int32_data")
    return model


def _node(node: "onnx.NodeProto", position: int) -> Node:
    from onnx.helper import get_attribute_value

    op = node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}::{node.op_type}"
    return Node(
        name=node.name or f"{op}_{position}",
        scope=_scope(node),
        op=op,
        inputs=tuple(node.input),
        outputs=tuple(name for name in node.output if name),
        attributes={
            # The value of a Constant may be as large as a weight; it is read where it is needed.
            attribute.name: get_attribute_value(attribute)
            for attribute in node.attribute
            if node.op_type != "Constant"
        },
    )


def _scope(node: "onnx.NodeProto") -> str:
    """The module of a node, by either of torch's exporters.

    One notes the paths of all modules around it. The other names it after them, each part
    repeating a container before it: "/layer1/layer1.0/conv1/Conv" is of layer1.0.conv1.
    """
    noted = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), None)
    if noted is not None:
        paths: list[str] = re.findall(r"'([^']*)'", noted)
        return paths[-2] if len(paths) > 1 else ""
    parts = node.name.split("/")[1:-1] if node.name.startswith("/") else []
    kept: list[str] = []
    for part in parts:
        if kept and part.startswith(f"{kept[-1]}."):
            kept.pop()
        kept.append(part)
    return ".".join(kept)


def _made_static(
    path: Path, model: "onnx.ModelProto", input_px: int | None
) -> tuple[str, int, int]:
    """Set batch and size of the input; (its name, height and width, axis of its channels)."""
    initial = {tensor.name for tensor in model.graph.initializer}
    pictures = [value for value in model.graph.input if value.name not in initial]
    if len(pictures) != 1:
        names = ", ".join(value.name for value in pictures) or "none"
        raise BackboneError(f"{path} has the inputs {names}; hwsearch prices nets of one picture")
    picture = pictures[0]
    dims = picture.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise BackboneError(
            f"input {picture.name} of {path} has {len(dims)} dimensions; "
            "a picture has batch, channels, height and width"
        )
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    if sizes[0] not in (None, 1):
        raise BackboneError(
            f"{path} is exported for batches of {sizes[0]}; export it for a batch of 1, or dynamic"
        )
    axis = 3 if sizes[3] in (1, 3) and sizes[1] not in (1, 3) else 1
    if sizes[axis] is None:
        raise BackboneError(f"{path} leaves the channels of its picture open; export them fixed")
    height, width = (sizes[at] for at in range(1, 4) if at != axis)
    px = _picture_px(path, height, width, input_px)
    dims[0].dim_value = 1
    for at in range(1, 4):
        if at != axis:
            dims[at].dim_value = px
    # What the exporter noted for other sizes must not contradict what is inferred for this one.
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return picture.name, px, axis


def _picture_px(path: Path, height: int | None, width: int | None, input_px: int | None) -> int:
    fixed = [size for size in (height, width) if size is not None]
    if len(set(fixed)) > 1:
        raise BackboneError(
            f"{path} takes pictures of {height} x {width}; hwsearch prices square ones"
        )
    if input_px is None:
        if not fixed:
            raise BackboneError(
                f"{path} leaves the size of its picture open; say which, as in --px 224"
            )
        return fixed[0]
    if input_px < 1:
        raise BackboneError(f"a picture of {input_px} px is none; give a size such as --px 224")
    if fixed and fixed[0] != input_px:
        raise BackboneError(
            f"{path} is exported for {fixed[0]} px and cannot be priced at {input_px} px; "
            "leave --px out, or export it with a dynamic size"
        )
    return input_px


# -- shapes and constants --------------------------------------------------------------------------


def _inferred(
    path: Path, model: "onnx.ModelProto"
) -> tuple[dict[str, tuple[Shape | None, str]], dict[str, "np.ndarray[Any, Any]"]]:
    """Shapes and element types of all tensors, and the values of small constants.

    Inference and folding take turns until nothing more is known: a shape may depend on arithmetic
    on other shapes.
    """
    import onnx
    from onnx.numpy_helper import from_array, to_array

    graph = model.graph
    values = {
        tensor.name: to_array(tensor)
        for tensor in graph.initializer
        if math.prod(tensor.dims) <= _MOST_VALUES and not _is_external(tensor)
    }
    while True:
        try:
            inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            # The first node that does not fit, without those that lack its output.
            _, *reasons = " ".join(str(error).split()).split("(op_type:")
            reason = reasons[0].strip(" )") if reasons else str(error)
            raise BackboneError(
                f"the shapes of {path} do not fit together at {reason}; "
                "give another --px, or export it again"
            ) from None
        types = dict(_types(inferred.graph))
        folded = dict(_folded(model, types, values))
        if not folded:
            return types, values
        values |= folded
        kept = [node for node in graph.node if node.output[0] not in folded]
        del graph.node[:]
        graph.node.extend(kept)
        graph.initializer.extend(from_array(value, name) for name, value in folded.items())


def _types(graph: "onnx.GraphProto") -> Iterator[tuple[str, tuple[Shape | None, str]]]:
    """Shape (None where a dimension is open) and element type by tensor."""
    from onnx import TensorProto

    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        name = TensorProto.DataType.Name(kind.elem_type)
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            yield value.name, (tuple(dim.dim_value for dim in kind.shape.dim), name)
        else:
            yield value.name, (None, name)
    for tensor in graph.initializer:
        yield tensor.name, (tuple(tensor.dims), TensorProto.DataType.Name(tensor.data_type))


def _folded(
    model: "onnx.ModelProto",
    types: Mapping[str, tuple[Shape | None, str]],
    values: Mapping[str, "np.ndarray[Any, Any]"],
) -> Iterator[tuple[str, "np.ndarray[Any, Any]"]]:
    """The small tensors that follow from shapes and from small constants."""
    known = dict(values)
    for node in model.graph.node:
        shape = types.get(node.output[0], (None, ""))[0]
        if shape is None or math.prod(shape) > _MOST_VALUES:
            continue
        if node.op_type == "Constant":
            result = _constant(node)
        elif node.op_type == "Identity":
            result = known.get(node.input[0])
        elif node.op_type in _SHAPES:
            result = _of_shape(node, types.get(node.input[0], (None, ""))[0])
        elif node.op_type in _FOLDED and all(name in known for name in node.input if name):
            result = _evaluated(model, node, known)
        else:
            result = None
        if result is not None:
            known[node.output[0]] = result
            yield node.output[0], result


def _constant(node: "onnx.NodeProto") -> "np.ndarray[Any, Any] | None":
    import numpy as np
    from onnx.helper import get_attribute_value
    from onnx.numpy_helper import to_array

    [attribute] = node.attribute
    if attribute.name == "value":
        return None if _is_external(attribute.t) else to_array(attribute.t)
    if attribute.name in {"value_float", "value_floats"}:
        return np.asarray(get_attribute_value(attribute), dtype=np.float32)
    if attribute.name in {"value_int", "value_ints"}:
        return np.asarray(get_attribute_value(attribute), dtype=np.int64)
    return None


def _of_shape(node: "onnx.NodeProto", shape: Shape | None) -> "np.ndarray[Any, Any] | None":
    import numpy as np

    if shape is None:
        return None
    if node.op_type == "Size":
        return np.asarray(math.prod(shape), dtype=np.int64)
    ends = {attribute.name: attribute.i for attribute in node.attribute}
    return np.asarray(shape[ends.get("start", 0) : ends.get("end", len(shape))], dtype=np.int64)


def _evaluated(
    model: "onnx.ModelProto",
    node: "onnx.NodeProto",
    known: Mapping[str, "np.ndarray[Any, Any]"],
) -> "np.ndarray[Any, Any]":
    import numpy as np
    from onnx.reference import ReferenceEvaluator

    opsets = {entry.domain: entry.version for entry in model.opset_import}
    evaluator = ReferenceEvaluator(node, opsets=opsets)
    result = evaluator.run(None, {name: known[name] for name in node.input if name})
    assert isinstance(result, list), "a node has a list of outputs"
    return np.asarray(result[0])


def _divided(graph: "onnx.GraphProto") -> tuple[set[str], dict[str, Node], list[Node]]:
    """Constant tensors, the nodes that make some of them, and those that an output needs.

    A shape is constant, as the input has one size. Nodes on constants may be of any operator.
    """
    constants = {tensor.name for tensor in graph.initializer}
    made: dict[str, Node] = {}
    nodes = []
    used: set[str] = set()
    for position, proto in enumerate(graph.node):
        node = _node(proto, position)
        if node.name in used:
            node = dataclasses.replace(node, name=f"{node.name}#{position}")
        used.add(node.name)
        if node.op in _SHAPES or all(name in constants for name in node.inputs if name):
            constants.update(node.outputs)
            made.update(dict.fromkeys(node.outputs, node))
        else:
            nodes.append(node)
    return constants, made, _reaching(nodes, [output.name for output in graph.output])


def _reaching(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """The nodes that an output depends on: a runtime removes the others."""
    needed = set(outputs)
    live = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            live.append(node)
            needed.update(node.inputs)
    return live[::-1]


def _is_external(tensor: "onnx.TensorProto") -> bool:
    from onnx import TensorProto

    return tensor.data_location == TensorProto.EXTERNAL
