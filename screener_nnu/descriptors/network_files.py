"""Networks in files of three kinds, read without unpickling Python objects."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from screener_nnu.descriptors.exported_program import load_exported_program
from screener_nnu.errors import ScreenerError

logger = logging.getLogger(__name__)

ENDINGS = {".pt": "TorchScript", ".pt2": "exported program", ".onnx": "ONNX"}
# Of all operators that torch registers for scripts: those that touch files or other processes.
_REACHING_OUT = re.compile(rb"\b(save|from_file|rpc_async|rpc_remote|rpc_sync)\b")


def load_network(path: Path, data: bytes) -> nn.Module:
    """The network of a file, frozen and in evaluation mode.

    A graph (`.pt2`, `.onnx`) is in the mode that it was exported in.

    Args:
        path: its ending tells the kind: `.pt`, `.pt2` or `.onnx`.
        data: what the file holds; the same bytes are hashed.

    Raises:
        ScreenerError: another kind, damaged, or holding more than a network.
    """
    loaders = {".pt": torchscript, ".pt2": load_exported_program, ".onnx": OnnxNetwork}
    if path.suffix not in loaders:
        kinds = ", ".join(f"{kind} ({ending})" for ending, kind in ENDINGS.items())
        raise ScreenerError(
            f"{path} is not read: a network comes as {kinds}. A file of weights or a pickled "
            "module (.pth) has no network in it that could be run without code of a stranger"
        )
    try:
        network = loaders[path.suffix](data)
    except ScreenerError as error:
        raise ScreenerError(f"{path} cannot be used: {error}") from error
    for module in network.modules():
        # A frozen script is in evaluation mode for good, and says so by lacking the attribute.
        if hasattr(module, "training"):
            module.training = False
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


def torchscript(data: bytes) -> nn.Module:
    """The network of a TorchScript file.

    `torch.jit.load` reads weights with an unpickler of its own, which makes tensors and the types
    of the script and imports no Python. It does run the script, in torch's own language, with any
    operator of torch: a script can compute for ever and fill the memory. Operators that write or
    read files, or call other processes, are looked for by name beforehand and refused. A script
    cannot start a program or load a library. This is no sandbox: take networks from people whom
    you trust.

    Raises:
        ScreenerError: it is damaged, no TorchScript, or names such an operator.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            code = [archive.read(n) for n in names if n.endswith(".py")]
    except (zipfile.BadZipFile, ValueError, RuntimeError) as error:
        raise ScreenerError("it is damaged, or no TorchScript") from error
    scripted = any(n.split("/", 1)[-1] == "constants.pkl" for n in names) and code
    if not scripted or len(set(names)) != len(names):
        raise ScreenerError(
            "it is a pickle of torch.save and no TorchScript, and is not read, since it could run "
            "code of a stranger: save the network with torch.jit.save"
        )
    for text in code:
        if found := _REACHING_OUT.search(text):
            raise ScreenerError(
                f"its script has '{found[0].decode()}', the name of an operator that reaches out "
                "of the network"
            )
    try:
        return torch.jit.load(io.BytesIO(data), map_location="cpu")
    except Exception as error:  # whatever torch makes of damage
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ScreenerError(f"torch {torch.__version__} cannot load it ({reason})") from error


class OnnxNetwork(nn.Module):
    """A network that onnxruntime computes.

    An ONNX file is a list of operators and their weights, without code. Weights must be in the file
    itself: it alone is hashed.

    Args:
        data: the file.

    Raises:
        ScreenerError: onnx or onnxruntime are not installed; the file is damaged, has its weights
            elsewhere, or not one input and one output.
    """

    def __init__(self, data: bytes) -> None:
        """Opens one session on the processor; one on a GPU when it is first asked for."""
        super().__init__()
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise ScreenerError(
                f"{error.name} is not installed: pip install 'screener_nnu[onnx]'"
            ) from error
        try:
            graph = onnx.load_model_from_string(data).graph
            outside = any(t.data_location == onnx.TensorProto.EXTERNAL for t in graph.initializer)
        except Exception as error:  # the decoder of protocol buffers has errors of its own
            raise ScreenerError("it is damaged, or no ONNX file") from error
        if outside:
            raise ScreenerError("its weights are in another file: export it with them inside")
        self._runtime: Any = onnxruntime
        self._data = data
        self._sessions: dict[str, Any] = {}
        session = self._session("cpu")
        sides = (session.get_inputs(), session.get_outputs())
        if any(len(side) != 1 for side in sides):
            raise ScreenerError(
                f"it has {len(sides[0])} inputs and {len(sides[1])} outputs, and one of each is "
                "needed"
            )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """What the graph gives, on the device of the image."""
        session = self._session(image.device.type)
        name = session.get_inputs()[0].name
        (result,) = session.run(None, {name: image.cpu().numpy()})
        return torch.from_numpy(np.asarray(result)).to(image.device)

    def _session(self, device: str) -> Any:
        if device not in self._sessions:
            options = self._runtime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3
            available = self._runtime.get_available_providers()
            providers = ["CPUExecutionProvider"]
            if device == "cuda" and "CUDAExecutionProvider" in available:
                providers.insert(0, "CUDAExecutionProvider")
            elif device != "cpu":
                logger.warning(
                    "onnxruntime has no provider for %s here, so that the network runs on the "
                    "processor: install onnxruntime-gpu, or export it as TorchScript", device
                )  # fmt: skip
            try:
                session = self._runtime.InferenceSession(self._data, options, providers=providers)
            except Exception as error:  # onnxruntime has a class for each way to fail
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise ScreenerError(f"onnxruntime cannot load it ({reason})") from error
            self._sessions[device] = session
        return self._sessions[device]
