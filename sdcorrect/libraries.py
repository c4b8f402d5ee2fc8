"""Import diffusers and transformers without the parts that no job needs, which is faster."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from importlib import import_module, metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import packages_distributions
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

#: Packages that diffusers and transformers import if installed: for training, for other models and other
#: precisions, for sigmas, sound and watermarks that no job uses. They cost seconds, and some warn.
UNNEEDED = (
    "bitsandbytes",
    "gguf",
    "imwatermark",
    "peft",
    "scipy",
    "torchao",
    "torchaudio",
    "torchvision",
    "xformers",
)
#: The structure of a package in transformers: requirements -> modules that need them -> their names.
Structure = dict[frozenset[str], dict[str, set[str]]]
#: torch's compiler, and its decorators that libraries apply at import.
COMPILER, MARKS = "torch._dynamo", {"allow_in_graph", "assume_constant_result", "disable"}
#: Its submodule that transformers imports, which does not need the rest.
ALONE = f"{COMPILER}._trace_wrapped_higher_order_op"


@contextmanager
def lean_imports() -> Iterator[None]:
    """Import diffusers and transformers as if `UNNEEDED` were not installed, which they remember.

    Everything else can import these packages as usual, also within this context, where torch's compiler
    is loaded only if it is used. If diffusers or transformers is imported already, nothing changes.
    """
    if "diffusers" in sys.modules or "transformers" in sys.modules:
        yield
        return
    # imported objects stay alive: the collector would scan them again and again for nothing
    gc.disable()
    try:
        import torch  # noqa: F401 - first, because torch itself needs the real compiler

        with _compiler_on_demand():
            with _in_place(dict.fromkeys(UNNEEDED)):
                _import_transformers()
                _import_diffusers()
            yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Within this context, transformers does not warn of missing packages that no job needs.

    Diffusers names classes of it at import, each of which warns.
    """
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def plain_outlines() -> Iterator[None]:
    """Within this context, models on torch's meta device are built without its compiler and sympy.

    Embeddings are not initialised, because their weights are read later, and ranges are on the CPU.
    """
    import torch

    with (
        _replaced(torch.nn.Embedding, "reset_parameters", lambda _: None),
        _replaced(torch, "arange", partial(torch.arange, device="cpu")),
    ):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _in_place(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """Within this context, `modules` replace those of their names that are not imported yet.

    None makes a module look as if it were not installed.
    """
    placed = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(placed)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in placed.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


@contextmanager
def _compiler_on_demand() -> Iterator[None]:
    """Within this context, a stand-in is imported as torch's compiler until more of it is needed."""
    finder = _Submodules()
    sys.meta_path.insert(0, finder)
    try:
        with _in_place({COMPILER: _Marks()}):
            yield
    finally:
        sys.meta_path.remove(finder)


class _Marks(ModuleType):
    """A stand-in for torch's compiler: its decorators do nothing; any other name loads the real one."""

    def __init__(self) -> None:
        super().__init__(COMPILER)
        spec = find_spec(COMPILER)
        self.__path__ = (spec and spec.submodule_search_locations) or []

    def __getattr__(self, name: str) -> Any:
        if name in MARKS:
            return _mark
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real_compiler(), name)


class _Submodules(MetaPathFinder):
    """Loads torch's compiler before a submodule that needs more of it than the stand-in."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        in_place = isinstance(sys.modules.get(COMPILER), _Marks)
        if not (in_place and name.startswith(f"{COMPILER}.") and name != ALONE):
            return None
        _real_compiler()
        loaded = sys.modules.get(name)
        return spec_from_loader(name, _Loaded(loaded)) if loaded else None


class _Loaded(Loader):
    """Gives a module that has been imported in the meantime."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, _: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def _real_compiler() -> ModuleType:
    sys.modules.pop(COMPILER, None)
    return import_module(COMPILER)


def _mark(marked: Any = None, *_: Any, **__: Any) -> Any:
    return _mark if marked is None else marked


class _Distributions(Mapping[str, list[str]]):
    """`packages_distributions()`, called only on first use, because it reads the names of all files."""

    @cached_property
    def _found(self) -> Mapping[str, list[str]]:
        return packages_distributions()

    def __getitem__(self, package: str) -> list[str]:
        return self._found[package]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _import_transformers() -> None:
    """Import it as if torch had no distributed tensors; the library checks once and remembers.

    The files of its models are searched for names once, and not again for `transformers.models`.
    """
    import torch
    from transformers.utils import import_utils

    for package in UNNEEDED:
        getattr(import_utils, f"is_{package}_available", lambda: False)()
    with _replaced(torch.distributed, "is_available", lambda: False):
        import_utils.is_torch_distributed_available()
    define = getattr(import_utils, "define_import_structure", None)
    if define is not None:
        with _replaced(import_utils, "define_import_structure", partial(_structure, define)):
            import transformers.models  # noqa: F401


def _structure(define: Callable[..., Structure], path: Any, prefix: str | None = None) -> Structure:
    """The result of `define` for a package; for all models, derived from that for `transformers`."""
    import transformers

    models = Path(transformers.__path__[0], "models")
    if prefix is not None or Path(path) != models / "__init__.py":
        return define(path, prefix)
    return {
        needed: {
            name.removeprefix("models."): defined
            for name, defined in modules.items()
            if name.startswith("models.")
        }
        for needed, modules in define(models, prefix="models").items()
    }


def _import_diffusers() -> None:
    """Import it, and keep its check whether a model is compiled from importing the compiler."""
    with _replaced(metadata, "packages_distributions", _Distributions):
        from diffusers.utils import torch_utils

    is_compiled: Callable[[Any], bool] = torch_utils.is_compiled_module
    torch_utils.is_compiled_module = lambda module: _has_compiler() and is_compiled(module)


def _has_compiler() -> bool:
    return not isinstance(sys.modules.get(COMPILER), _Marks | None)
