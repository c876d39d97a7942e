"""The text of a page: style, script and data put into one HTML file that asks for nothing else."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any

# In this order; each uses what stands before it.
SCRIPTS = ("decode.js", "state.js", "colours.js", "planes.js", "pointer.js", "panel.js", "start.js")
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def render_page(title: str, model: str, facts: Mapping[str, Any], data: Mapping[str, str]) -> str:
    """One HTML file.

    The page's own policy lets the browser run this script and no other, and load nothing.

    Args:
        title: heading, any text.
        model: name of the model, any text.
        facts: what the script needs to know, plain values.
        data: packed volumes `hu`, `score` and `labels` (empty without findings).
    """
    style = asset("page.css")
    script = "\n".join(asset(name) for name in SCRIPTS)
    values = {
        "title": plain(title),
        "model": plain(model),
        "policy": policy(style, script),
        "style": style,
        "script": script,
        "facts": _json_in_html(facts),
        **data,
    }
    return fill(asset("page.html"), values)


def asset(name: str) -> str:
    """Text of a file that belongs to the viewer."""
    return files("screener_nnu.viewer").joinpath(name).read_text(encoding="utf-8")


def fill(template: str, values: Mapping[str, str]) -> str:
    """Puts values into `{{name}}`, in one pass: a value that looks like a place stays a value."""
    return _PLACE.sub(lambda match: values[match[1]], template)


def plain(text: str) -> str:
    """Text for HTML; file names may hold bytes that are no text at all."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def policy(style: str, script: str = "") -> str:
    """Content security policy: this style, this script, pictures inside the page."""
    parts = ["default-src 'none'", "img-src data:", f"style-src {_hash(style)}"]
    if script:
        parts.append(f"script-src {_hash(script)}")
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _json_in_html(values: Mapping[str, Any]) -> str:
    """JSON that no text in it can end early, for within a script element."""
    text = json.dumps(values, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
