"""Names of cases are safe everywhere, and no two are alike."""

from __future__ import annotations

import re

from screener_nnu.importing.case_names import case_names


def test_names_are_safe() -> None:
    sources = ["a b/ö.png", "a/ß.png", "x (1).tif", "+.jpg", "../up.png", "日本.png", "b_0000.png"]
    names = case_names(sources, [])
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names)
    assert names[0] == "a-b_o" and names[2] == "x-1" and names[4] == "up" and names[6] == "b"


def test_no_two_are_alike() -> None:
    sources = [
        "a/b.png",
        "a_b.png",
        "A/B.png",
        "a b.png",
        "a/b.jpg",
        "other.png",
        "日.png",
        "本.png",
    ]
    names = case_names(sources, ["OTHER"])
    assert len({name.casefold() for name in [*names, "other"]}) == len(names) + 1
    assert names[3] == "a-b" and re.fullmatch("a_b_[0-9a-f]{8}", names[0])
    # The same path has the same name whatever order it comes in.
    assert case_names(sources[::-1], ["OTHER"])[::-1] == names


def test_long_names() -> None:
    names = case_names([f"{'d' * 200}/{index}.png" for index in range(3)], [])
    assert len(set(names)) == 3 and max(map(len, names)) <= 150


def test_absolute_paths_do_not_say_where_a_disk_is() -> None:
    assert case_names(["/home/me/a/1.png", "/home/me/b/1.png"], []) == ["a_1", "b_1"]
