"""Names, built-ins and plugins: what is listed, what is loaded, and whose fault it is when something cannot be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from slq.errors import InputError, PluginError
from slq.registry import Registry

GROUP = "slq.example"
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution on the search path: its metadata as pip writes it, and one module."""
    monkeypatch.delenv("SLQ_LOAD_PLUGINS", raising=False)

    def add(distribution: str, source: str = "VALUE = 1", **entries: str) -> None:
        folder = tmp_path / distribution
        info = folder / f"{distribution}-2.5.dist-info"
        info.mkdir(parents=True)
        (folder / f"{distribution}_code.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")
        monkeypatch.syspath_prepend(str(folder))

    return add


def test_names_are_listed_without_an_import(install: Install) -> None:
    install("lazy", "raise SystemExit('imported')", outside="lazy_code:VALUE")
    registry = Registry[int](GROUP, builtins={"inside": "lib2to3_is_gone:nothing"})

    assert registry.names() == ("inside", "outside")
    assert "outside" in registry and "nothing" not in registry
    assert "lazy_code" not in sys.modules


def test_values_come_from_a_decorator_a_path_and_a_plugin(install: Install) -> None:
    install("extra", "VALUE = object()", outside="extra_code:VALUE")
    registry = Registry[object](GROUP, builtins={"join": "os.path:join"})

    @registry.register("decorated")
    class Decorated: ...

    assert registry.get("decorated") is Decorated
    assert registry.get("join") is Path.home.__globals__["os"].path.join
    assert registry.get("outside") is sys.modules["extra_code"].VALUE
    assert registry.get("outside") is registry.get("outside")


def test_an_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    registry = Registry[object](GROUP, builtins={"info_nce": "os:sep", "orthogonality": "os:sep"})
    with pytest.raises(InputError, match=r"Unknown name 'infonce' in slq\.example.*Did you mean 'info_nce'\?"):
        registry.get("infonce")


@pytest.mark.parametrize(
    ("source", "value", "reason"),
    [
        ("import a_library_that_is_not_there", "broken_code:VALUE", "No module named 'a_library_that_is_not_there'"),
        ("raise RuntimeError('no licence')", "broken_code:VALUE", "RuntimeError: no licence"),
        ("", "broken_code:VALUE", "VALUE"),
    ],
)
def test_a_plugin_that_fails_is_named_and_breaks_no_other(install: Install, source: str, value: str, reason: str) -> None:
    install("broken", source, bad=value)
    install("healthy", "VALUE = 7", good="healthy_code:VALUE")
    registry = Registry[int](GROUP)

    assert registry.get("good") == 7
    with pytest.raises(PluginError, match=r"'bad' of slq\.example, from broken 2\.5") as caught:
        registry.get("bad")
    assert reason in str(caught.value)
    listed = {plugin.name: plugin for plugin in registry.plugins()}
    assert (listed["good"].distribution, listed["good"].version, listed["good"].error) == ("healthy", "2.5", None)
    assert reason in (listed["bad"].error or "")
    sys.modules.pop("broken_code", None)
    sys.modules.pop("healthy_code", None)


def test_a_plugin_without_the_methods_of_the_protocol_is_refused(install: Install) -> None:
    class Shape(Protocol):
        def area(self) -> float: ...

    install("flat", "class Square:\n    area = lambda self: 1.0\nclass Point: ...", square="flat_code:Square", point="flat_code:Point")
    registry = Registry[type](GROUP, Shape)

    assert registry.get("square").__name__ == "Square"
    with pytest.raises(PluginError, match=r"'point'.*lacks area"):
        registry.get("point")


def test_a_name_taken_twice_names_both_distributions(install: Install) -> None:
    install("first", same="first_code:VALUE", alone="first_code:VALUE")
    install("second", same="second_code:VALUE", builtin="second_code:VALUE")
    registry = Registry[int](GROUP, builtins={"builtin": "os:sep"})

    with pytest.raises(PluginError, match=r"'same' of slq\.example is taken by (first and by second|second and by first)"):
        registry.get("same")
    with pytest.raises(PluginError, match=r"'builtin' .* is taken by slq and by second"):
        registry.get("builtin")
    assert registry.get("alone") == 1


def test_a_name_of_this_package_is_taken_once() -> None:
    registry = Registry[object](GROUP)
    registry.register("name")(int)
    registry.register("name")(int)  # a module that is reloaded registers the same object again
    with pytest.raises(PluginError, match=r"'name' of slq\.example is taken twice"):
        registry.register("name")(str)


@pytest.mark.parametrize(("chosen", "names"), [(None, ("a", "b")), ("", ()), ("First", ("a",)), ("first, second", ("a", "b")), ("x", ())])
def test_the_environment_chooses_among_distributions(
    install: Install, monkeypatch: pytest.MonkeyPatch, chosen: str | None, names: tuple[str, ...]
) -> None:
    install("first", a="first_code:VALUE")
    install("second", b="second_code:VALUE")
    if chosen is not None:
        monkeypatch.setenv("SLQ_LOAD_PLUGINS", chosen)
    assert Registry[int](GROUP).names() == names


def test_the_choice_of_distributions_is_read_again(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("first", a="first_code:VALUE")
    registry = Registry[int](GROUP)
    assert registry.names() == ("a",)
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "")
    assert registry.names() == ()


def test_threads_get_one_object(install: Install) -> None:
    from concurrent.futures import ThreadPoolExecutor

    install("slow", "import time\ntime.sleep(0.05)\nVALUE = object()", one="slow_code:VALUE")
    registry = Registry[object](GROUP)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: id(registry.get("one")), range(16)))
    assert len(found) == 1
