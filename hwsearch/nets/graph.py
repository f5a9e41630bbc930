"""Operations of one forward pass, recorded on the meta device: shapes without arithmetic.

Any eager ``torch.nn.Module`` can be recorded, a user's own included, because the recording listens
below autograd where only a few dozen kinds of operations remain. It takes 20 to 300 ms.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hwsearch.errors import BackboneError


@dataclass(kw_only=True)
class Operation:
    """One recorded operation.

    Attributes:
        op: aten name without overload and without the in-place underscore ("relu").
        inputs: indices of the operations that made its activation inputs, in order; -1 is the
            picture itself.
        parameters: names of the parameters and buffers among its inputs, by argument position.
        arguments: the positional arguments that are not tensors, by position.
        in_shapes: shapes of the activation inputs.
        shape: shape of the (first) output.
        scope: path of the module that was running.
    """

    index: int
    op: str
    inputs: tuple[int, ...]
    parameters: dict[int, str]
    parameter_shapes: dict[int, tuple[int, ...]]
    arguments: dict[int, Any]
    in_shapes: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    scope: str


@dataclass(kw_only=True)
class Recording:
    """All operations of one forward pass, and which of them made the output."""

    operations: list[Operation] = field(default_factory=list)
    input_shape: tuple[int, ...]
    output: int = -1


def record(model: nn.Module, input_shape: tuple[int, ...]) -> Recording:
    """Record the forward pass of a model on the meta device, in evaluation mode.

    Args:
        model: all of its parameters are on the meta device. Its mode is restored.
        input_shape: (1, channels, height, width).

    Raises:
        BackboneError: the model does not run on this input, or does not return (1, classes).
    """
    recording = Recording(input_shape=input_shape)
    was_training = model.training
    model.eval()
    picture = torch.empty(input_shape, device="meta")
    recorder = _Recorder(recording, model, picture)
    try:
        with torch.no_grad(), _scopes(model, recorder.scope), recorder, torch.device("meta"):
            output = model(picture)
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackboneError(
            f"the backbone does not run on a {input_shape[2]} px input: {text}; "
            "give another input size or backbone"
        ) from error
    finally:
        model.train(was_training)
    if not isinstance(output, Tensor) or output.dim() != 2:
        raise BackboneError("the backbone must return one tensor of shape (batch, classes)")
    recording.output = recorder.source_of(output)
    return recording


@contextmanager
def _scopes(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keep the path of the running module on ``stack``."""
    handles = []
    for path, module in model.named_modules():

        def enter(_module: nn.Module, _inputs: object, path: str = path) -> None:
            stack.append(path)

        def leave(_module: nn.Module, _inputs: object, _output: object) -> None:
            stack.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own base
    """Follows tensors by identity; every tensor seen is kept alive so that ids stay unique."""

    def __init__(self, recording: Recording, model: nn.Module, picture: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = recording
        self.scope: list[str] = []
        self._alive: list[Tensor] = [picture]
        self._made_by: dict[int, int] = {id(picture): -1}
        self._constant: dict[int, str] = {}
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._constant[id(tensor)] = name
            self._alive.append(tensor)

    def source_of(self, tensor: Tensor) -> int:
        """The operation that made a tensor."""
        if id(tensor) not in self._made_by:
            raise BackboneError("the output of the backbone does not depend on its input")
        return self._made_by[id(tensor)]

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch hands over any operator
        types: Any,  # noqa: ANN401
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        outputs = [t for t in _flat(result) if isinstance(t, Tensor)]
        if not outputs:
            return result
        self._alive.extend(outputs)
        activations: list[Tensor] = []
        parameters: dict[int, str] = {}
        parameter_shapes: dict[int, tuple[int, ...]] = {}
        plain: dict[int, Any] = {}
        for position, argument in enumerate((*args, *(kwargs or {}).values())):
            tensors = [t for t in _flat(argument) if isinstance(t, Tensor)]
            if not tensors:
                plain[position] = argument
            for tensor in tensors:
                if id(tensor) in self._made_by:
                    activations.append(tensor)
                elif id(tensor) in self._constant:
                    parameters[position] = self._constant[id(tensor)]
                    parameter_shapes[position] = tuple(tensor.shape)
        if not activations:
            # Arithmetic on weights alone (a standardized or reshaped weight): a runtime folds it.
            name = next(iter(parameters.values()), "")
            for tensor in outputs:
                self._constant[id(tensor)] = name
            return result
        operation = Operation(
            index=len(self.recording.operations),
            op=func.overloadpacket.__name__.rstrip("_"),
            inputs=tuple(self._made_by[id(tensor)] for tensor in activations),
            parameters={at: name for at, name in parameters.items() if name},
            parameter_shapes=parameter_shapes,
            arguments=plain,
            in_shapes=tuple(tuple(tensor.shape) for tensor in activations),
            shape=tuple(outputs[0].shape),
            scope=self.scope[-1] if self.scope else "",
        )
        self.recording.operations.append(operation)
        for tensor in outputs:
            self._made_by[id(tensor)] = operation.index
        return result


def _flat(value: Any) -> Iterator[Any]:  # noqa: ANN401
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value
