"""Find and run a Python program as ``python SCRIPT`` and ``python -m MODULE`` do."""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
import os
import pkgutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from otel_dllogger.cli.terminal import UserError
from otel_dllogger.runtime.exit_status import EXIT_STATUS

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was found, with what it is to see of itself.

    Attributes:
        file: Its file.
        name: The name by which its loader knows it.
        loader: What reads its code.
        argv: Its ``sys.argv``.
        package: Its ``__package__``.
        spec: Its ``__spec__``; None for a script. ``multiprocessing`` uses it, or else the
            file, to tell children what to import.
    """

    file: str
    name: str
    loader: Any
    argv: list[str]
    package: str | None
    spec: importlib.machinery.ModuleSpec | None

    def run(self) -> int:
        """Run the program as ``__main__``; whatever it raises is passed on to the interpreter.

        Returns:
            The exit code of a program that ran to its end.
        """
        # Never undone: threads and exit handlers of the program outlive this call.
        main = ModuleType("__main__")
        main.__dict__.update(
            __builtins__=builtins,
            __file__=self.file,
            __loader__=self.loader,
            __package__=self.package,
            __spec__=self.spec,
        )
        sys.modules["__main__"] = main
        sys.argv[:] = self.argv
        try:
            code: CodeType
            if self.spec is None:  # a script: python neither reads nor writes a cache of it
                code = self.loader.source_to_code(self.loader.get_data(self.file), self.file)
            else:
                code = self.loader.get_code(self.name)
            exec(code, main.__dict__)  # noqa: S102 - it is what was asked for
        except SystemExit as error:
            EXIT_STATUS.tell(error)
            raise
        except BaseException as error:
            EXIT_STATUS.tell(error)
            show_without_our_frames(error)
            raise
        EXIT_STATUS.tell(None)
        return 0


def find_script(path: str, arguments: Sequence[str]) -> Program:
    """Find ``python PATH``, and put its folder on ``sys.path``.

    Args:
        path: A script, or a folder or zip archive with a ``__main__.py``.
        arguments: The script's own arguments.

    Raises:
        UserError: If there is nothing to run.
    """
    if not Path(path).exists():
        raise UserError(
            f"no script {path!r} in {str(Path.cwd())!r}; check the path, or use -m for a module"
        )
    argv = [path, *arguments]
    file = os.path.abspath(path)  # noqa: PTH100 - keeps links, as python does
    importer = pkgutil.get_importer(file)
    if importer is None:
        _replace_first_path_entry(str(Path(path).resolve().parent))
        loader = importlib.machinery.SourceFileLoader("__main__", file)
        return Program(file, "__main__", _readable(loader), argv, None, None)
    spec = importer.find_spec("__main__")
    if spec is None or spec.loader is None:
        raise UserError(f"{path!r} has no __main__.py; name the script in it")
    _replace_first_path_entry(file)
    return Program(spec.origin or file, "__main__", spec.loader, argv, "", spec)


def find_module(name: str, arguments: Sequence[str]) -> Program:
    """Find ``python -m NAME``, and put the working directory on ``sys.path``.

    Args:
        name: A module, or a package with a ``__main__``; its parents are imported.
        arguments: The module's own arguments.

    Raises:
        UserError: If there is nothing to run.
    """
    _replace_first_path_entry(str(Path.cwd()))
    if name.endswith(".py"):
        raise UserError(f"{name!r} is a file, not a module; leave -m out, or leave .py out")
    spec = _find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = _find_spec(f"{name}.__main__")
        if spec is None:
            raise UserError(f"package {name!r} has no __main__ module; name a module in it")
    if spec is None:
        raise UserError(
            f"no module {name!r} in {str(Path.cwd())!r} or where Python looks; check the name and "
            "the working directory"
        )
    compiled = isinstance(spec.loader, importlib.machinery.ExtensionFileLoader)
    if spec.origin is None or not spec.has_location or compiled:
        raise UserError(f"module {name!r} has no Python code to run; name a script")
    return Program(
        spec.origin, spec.name, spec.loader, [spec.origin, *arguments], spec.parent, spec
    )


def show_without_our_frames(error: BaseException) -> None:
    """Make the interpreter show an exception as if the program had been started directly.

    The exception itself is raised again unchanged, so that exit code and exit handlers are
    Python's.

    Args:
        error: What the program raised.
    """
    hook, traceback = getattr(sys, "excepthook", _missing_hook), error.__traceback__
    while traceback is not None and _is_ours(traceback.tb_frame.f_code.co_filename):
        traceback = traceback.tb_next
    error_shown = type(error), error, traceback

    def show(*_raised: object) -> None:
        try:
            hook(type(error), error.with_traceback(traceback), traceback)
        except SystemExit:
            raise
        except BaseException as failure:
            failure.__traceback__ = failure.__traceback__ and failure.__traceback__.tb_next
            failed = type(failure), failure, failure.__traceback__
        else:
            return
        # As the interpreter does, which itself would show the frame above as well.
        _write_error("Error in sys.excepthook:\n")
        sys.__excepthook__(*failed)
        _write_error("\nOriginal exception was:\n")
        sys.__excepthook__(*error_shown)

    sys.excepthook = show


def _missing_hook(*raised: Any) -> None:
    _write_error("sys.excepthook is missing\n")
    sys.__excepthook__(*raised)


def _write_error(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)


def _is_ours(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen ")


def _find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            return None
        show_without_our_frames(error)
        raise
    except (ImportError, ValueError) as error:
        raise UserError(f"module {name!r} cannot be found: {error}; check the name") from error
    except Exception as error:  # a parent package that raises
        show_without_our_frames(error)
        raise


def _readable(loader: importlib.machinery.SourceFileLoader) -> Any:
    try:
        with Path(loader.path).open("rb"):
            return loader
    except OSError as error:
        raise UserError(f"{loader.path!r} cannot be read: {error.strerror}") from error


def _replace_first_path_entry(folder: str) -> None:
    """Replace our own script's folder on ``sys.path``, if the interpreter put it there."""
    if not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated):
        sys.path[0] = folder
