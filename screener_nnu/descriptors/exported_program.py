"""Exported programs (`.pt2`) of strangers, reduced to a graph of arithmetic before they are loaded.

`torch.export.load` unpickles stored example inputs, weights and objects, loads compiled libraries,
and evaluates texts of the file as Python: shapes, guards and the names in its graph. So the file is
not given to it. What is given is an archive of our own, with what a graph of tensors needs: plain
weights, and a description in which every text is a name, an operator of torch's `aten` or a formula
of shapes. Anything else is refused. Such a graph can compute, and ask for any amount of memory.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from typing import Any

import torch
from torch import nn

from screener_nnu.errors import ScreenerError

_MODEL = "models/model.json"
_EXAMPLE = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_MARKERS = ("archive_format", "archive_version", "byteorder", ".data/version")
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_TARGET = re.compile(
    r"torch\.ops\.aten\.(?!__|from_file\b)\w+\.(?!__)\w+"
    r"|torch\.sym_(max|min|not|float|int|ite|sum)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pos|pow|getitem|eq|ne|lt|le|gt|ge)"
    r"|math\.(ceil|floor|trunc|sqrt)"
)
_NAME = re.compile(r"[\w.]*")
_TEXT = re.compile(r"[\w., >+-]*")
_FORMULA: tuple[type[ast.AST], ...] = (
    ast.Expression, ast.keyword, ast.Load, ast.Constant, ast.UnaryOp, ast.USub,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Pow, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE,
    ast.Gt, ast.GtE,
)  # fmt: skip
_FUNCTIONS = set(
    "Symbol Integer Rational Float Mul Add Pow Max Min Mod PythonMod FloorDiv CeilDiv CleanDiv "
    "ModularIndexing Eq Ne Ge Gt Le Lt And Or Not Equality Unequality GreaterThan LessThan "
    "StrictGreaterThan StrictLessThan TruncToInt FloorToInt CeilToInt RoundToInt ToFloat "
    "FloatTrueDiv IntTrueDiv FloatPow PowByNatural TruncToFloat".split()
)
_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


class _RefusedError(Exception):
    """Something in the file that a graph of arithmetic has no need of."""


def load_exported_program(data: bytes) -> nn.Module:
    """The network of a `.pt2` file, nothing in which is unpickled or run as Python.

    Args:
        data: the file.

    Raises:
        ScreenerError: it is damaged, from a torch whose files differ, or holds more than a graph of
            arithmetic.
    """
    try:
        archive = _plain_archive(data)
    except _RefusedError as error:
        raise ScreenerError(
            f"it holds {error}, which could run code of a stranger, or which this version of torch "
            "does not write: export the network again with torch.export.save, or as ONNX"
        ) from error
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, IndexError) as error:
        raise ScreenerError("it is damaged, or no exported program of this torch") from error
    try:
        return torch.export.load(io.BytesIO(archive)).module()
    except Exception as error:  # whatever torch makes of another version
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ScreenerError(f"torch {torch.__version__} cannot load it ({reason})") from error


def _plain_archive(data: bytes) -> bytes:
    """The archive again, with nothing but what was checked."""
    with zipfile.ZipFile(io.BytesIO(data)) as given:
        names = given.namelist()
        root = names[0].split("/")[0]
        if len(set(names)) != len(names) or not all(n.startswith(f"{root}/") for n in names):
            raise _RefusedError("files under the same name or in several folders")
        kept: dict[str, bytes] = {}
        for name in (n.removeprefix(f"{root}/") for n in names):
            if name == _EXAMPLE:
                kept[name] = b""
            elif name in (*_MARKERS, _MODEL, *_CONFIGS) or _TENSOR.fullmatch(name):
                kept[name] = given.read(f"{root}/{name}")
            elif name != ".data/serialization_id":
                raise _RefusedError(f"the file {name}")
    kept[_MODEL] = json.dumps(_plain_model(json.loads(kept[_MODEL]))).encode()
    for name in _CONFIGS:
        _check_tensors(json.loads(kept[name]))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as plain:
        for name, content in kept.items():
            plain.writestr(f"model/{name}", content)
    return stream.getvalue()


def _check_tensors(config: dict[str, Any]) -> None:
    """Refuses weights that are not plain bytes."""
    _check(config)
    for entry in config["config"].values():
        file = f"/{entry['path_name']}"
        if entry["use_pickle"] is not False or not re.fullmatch(r"/(weight|tensor)_\d+", file):
            raise _RefusedError("a pickle")


def _plain_model(model: dict[str, Any]) -> dict[str, Any]:
    """The description of the graph without notes and guards, all its texts checked."""
    model = {**model, "guards_code": []}
    version = model.get("torch_version", "")
    _check_text(version, re.compile(r"[\w.+-]*"))
    graph = {**model["graph_module"], "metadata": {}}
    # Calls of inner modules serve to take a graph apart again.
    graph["module_call_graph"] = [e for e in graph["module_call_graph"] if e["fqn"] == ""]
    model["graph_module"] = _without_notes(graph)
    _check({**model, "torch_version": ""})
    return model


def _without_notes(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: {} if k == "metadata" else _without_notes(v) for k, v in value.items()}
    return [_without_notes(v) for v in value] if isinstance(value, list) else value


def _check(value: Any, key: str = "") -> None:
    """Refuses a text, anywhere below, that is not what its place asks for."""
    if isinstance(value, dict):
        if "as_graph" in value:
            raise _RefusedError("a graph inside the graph")
        if "inputs" in value and "target" in value:
            _check_text(value["target"], _TARGET)
        for name, inner in value.items():
            if key == "range_constraints":
                _check_formula(name)
            else:
                _check_text(name, _NAME)
            _check(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, key)
    elif isinstance(value, str):
        if key == "expr_str":
            _check_formula(value)
        elif key in ("in_spec", "out_spec"):
            _, tree = json.loads(value)
            _check_tree(tree)
        else:
            _check_text(value, _TEXT if key == "as_string" else _NAME)


def _check_text(text: str, allowed: re.Pattern[str]) -> None:
    if not allowed.fullmatch(text):
        raise _RefusedError(f"'{text[:60]}' in its graph")


def _check_formula(text: str) -> None:
    """Refuses what is no arithmetic of symbols: the text is evaluated as Python."""
    try:
        plain = all(map(_is_arithmetic, ast.walk(ast.parse(text, mode="eval"))))
    except SyntaxError:
        plain = False
    if not plain:
        raise _RefusedError(f"'{text[:60]}' as a size")


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or bool(re.fullmatch(r"[su]\d+|true|false", node.id))
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return bool(re.fullmatch(r"[a-z]\w*", node.value))
    return isinstance(node, _FORMULA)


def _check_tree(tree: dict[str, Any]) -> None:
    """Refuses inputs and outputs that are more than tuples, lists and dictionaries of tensors."""
    keys = json.loads(tree["context"] or "null")
    named = keys is None or isinstance(keys, list) and all(map(_is_name, keys))
    if tree["type"] not in _TREES or not named:
        raise _RefusedError(f"inputs or outputs of the kind {tree['type']}")
    for child in tree["children_spec"]:
        _check_tree(child)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None
