"""Frozen values as `dataclasses` makes them, in a tenth of the time.

`dataclass` writes, compiles and runs the source of seven methods for each class: 0.6 ms, and
sixty classes are a third of the time that a command takes to start (bench/startup.py). Here all
classes share the same methods. Type checkers see the real `dataclass`, and so do `fields`,
`replace` and `asdict`; what we do not use of it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen, slots, kw_only):  # noqa: ANN001, ANN201, D103
        if not (frozen and slots and kw_only):
            raise TypeError("only frozen, slotted, keyword-only classes")
        return _made


__all__ = ["dataclass"]

T = TypeVar("T")


def _made(cls: type[T]) -> type[T]:
    """Return the class with its fields known to `dataclasses`, and the methods below."""
    from dataclasses import dataclass as known
    from dataclasses import fields

    bare = known(init=False, repr=False, eq=False, slots=True, kw_only=True)
    made: Any = bare(cls)
    for name, method in METHODS.items():
        if cls.__dict__.get(name) is None:  # `__eq__` of one's own sets `__hash__` to None
            setattr(made, name, method)
    made._cvl_fields = fields(made)  # noqa: SLF001 - ours
    setters = tuple((field.name, getattr(made, field.name).__set__) for field in made._cvl_fields)  # noqa: SLF001
    made._cvl_setters = setters  # noqa: SLF001
    made._cvl_defaults = _known(made._cvl_fields, "default")  # noqa: SLF001
    made._cvl_factories = _known(made._cvl_fields, "default_factory")  # noqa: SLF001
    return made  # type: ignore[no-any-return]


def _known(fields: Any, what: str) -> dict[str, Any]:
    """Return what the fields have of that, by name."""
    from dataclasses import MISSING

    values = ((field.name, getattr(field, what)) for field in fields)
    return {name: value for name, value in values if value is not MISSING}


def _init(self: Any, /, **given: object) -> None:
    """Set each field by its slot: tens of thousands are made of some classes, one by one."""
    setters = self._cvl_setters
    if len(given) != len(setters):
        made = {n: make() for n, make in self._cvl_factories.items() if n not in given}
        given = {**self._cvl_defaults, **made, **given}
    try:
        for name, put in setters:
            put(self, given[name])
    except KeyError as error:
        raise TypeError(f"{type(self).__name__} needs {error.args[0]}") from None
    if len(given) != len(setters):
        known = [name for name, _ in setters]
        raise TypeError(
            f"{type(self).__name__} has no {', '.join(n for n in given if n not in known)}"
        )
    if after := getattr(self, "__post_init__", None):
        after()


def _contents(self: Any) -> tuple[object, ...]:
    return tuple(getattr(self, field.name) for field in self._cvl_fields)


def _eq(self: object, other: object) -> bool:
    if other.__class__ is not self.__class__:
        return NotImplemented  # type: ignore[no-any-return]
    return bool(_contents(self) == _contents(other))


def _hash(self: object) -> int:
    return hash(_contents(self))


def _repr(self: Any) -> str:
    """Show what may be shown: a field with `repr=False` is a secret."""
    parts = [f"{f.name}={getattr(self, f.name)!r}" for f in self._cvl_fields if f.repr]
    return f"{type(self).__qualname__}({', '.join(parts)})"


def _set(_self: object, name: str, *value: object) -> None:
    """Refuse to assign, and without a value to delete."""
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot {'assign to' if value else 'delete'} field {name!r}")


def _setstate(self: Any, state: tuple[object, ...]) -> None:
    """What copies and pickles come back by."""
    for (_, put), value in zip(self._cvl_setters, state, strict=True):
        put(self, value)


METHODS = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _set,
    "__delattr__": _set,
    "__getstate__": _contents,
    "__setstate__": _setstate,
}
