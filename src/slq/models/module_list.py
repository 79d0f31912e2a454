"""The list of transformers' model modules, made once instead of twice; import it before anything else of `transformers.models`.

`transformers` and `transformers.models` each make this list by reading the source of every model, 2,500 files, which takes half a second of
CPU. The second is given what the first has made. Where a version of transformers makes its lists in another way, nothing happens.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import transformers

FOLDER = Path(transformers.__file__).parent / "models"


def import_models() -> None:
    """Import `transformers.models` with the list that `transformers` has made."""
    utils: Any = sys.modules["transformers.utils.import_utils"]
    make, known = utils.define_import_structure, known_models()

    def given(path: Any, *further: Any, **options: Any) -> Any:
        asked = not further and not options and Path(path).parent == FOLDER
        return known if asked else make(path, *further, **options)

    utils.define_import_structure = given
    try:
        import transformers.models  # noqa: F401
    finally:
        utils.define_import_structure = make


def known_models() -> dict[frozenset[str], dict[str, set[str]]]:
    """What `transformers.models` exports, by the libraries that it takes and by module, from the list that `transformers` remembers.

    Raises:
        LookupError: if there is no such list.
    """
    utils: Any = sys.modules["transformers.utils.import_utils"]
    whole, found = utils.define_import_structure(FOLDER, prefix="models"), {}
    for needed, modules in whole.items():
        if own := {name.removeprefix("models."): exported for name, exported in modules.items() if name.startswith("models.")}:
            found[needed] = own
    if not found:
        raise LookupError("The list of transformers holds no models.")
    return found


if "transformers.models" not in sys.modules:
    with suppress(AttributeError, LookupError, TypeError):  # of a version in which one of these names is something else
        import_models()
