"""A base class for objects that any module can get by name, like MMEngine's ``ManagerMixin``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from otel_dllogger.errors import MisuseError

if TYPE_CHECKING:
    from typing_extensions import Self


class NamedInstance:
    """A base class that keeps one instance for each name and class.

    ``MessageHub("a")`` makes one that nobody else sees. ``MessageHub.get_instance("a")``
    returns the same one of that name in every module of the process.

    Args:
        name: Its name.

    Raises:
        MisuseError: If the name is not text, or is empty.
    """

    _instances: ClassVar[dict[str, Any]]
    _first_name: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls._instances = {}

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise MisuseError(f"name={name!r} is not a name: pass a non-empty string")
        self._instance_name = name

    @property
    def instance_name(self) -> str:
        """Return the name."""
        return self._instance_name

    @classmethod
    def get_instance(cls, name: str, **kwargs: Any) -> Self:
        """Return the instance of a name; make it if there is none.

        Args:
            name: Its name.
            **kwargs: The arguments to make it with. They do not change an existing instance,
                which gives a warning.

        Raises:
            MisuseError: If the name is not text, or is empty.
        """
        instance: Self | None = cls._instances.get(name) if isinstance(name, str) else None
        if instance is None:
            # Without a lock: the constructor of a user-defined class may wait for another thread.
            made = cls(name=name, **kwargs)
            instance = cls._instances.setdefault(name, made)
            if instance is made:
                return made
        if kwargs:
            warnings.warn(
                f"{cls.__name__} {name!r} already exists, so {sorted(kwargs)} had no effect: pass "
                "them where it is created",
                stacklevel=2,
            )
        return instance

    @classmethod
    def get_current_instance(cls) -> Self:
        """Return the instance that was made last.

        If there is none, make one under the class's default name.

        Raises:
            RuntimeError: If there is none, and the class has no default name.
        """
        if instances := list(cls._instances.values()):
            last: Self = instances[-1]
            return last
        if cls._first_name is None:
            raise RuntimeError(
                f"there is no {cls.__name__} yet: call {cls.__name__}.get_instance(name) first"
            )
        return cls.get_instance(cls._first_name)

    @classmethod
    def check_instance_created(cls, name: str) -> bool:
        """Return whether there is an instance of a name."""
        return name in cls._instances
