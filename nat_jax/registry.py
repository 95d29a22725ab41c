"""Builds the object that a spec in a config names: `build(table, spec)`.

    >>> table = {'constant': lambda value: [value], 'zeros': lambda num: [0] * num}
    >>> build(table, {'name': 'zeros', 'num': 2})
    [0, 0]
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from nat_jax import names


def build(
    table: Mapping[str, Callable[..., Any]],
    spec: Mapping[str, Any],
    *,
    what: str = 'component',
    **extra: Any,
) -> Any:
  """Calls `table[spec['name']]` with the other entries of `spec` and with `extra`.

  Args:
    table: name -> function or class.
    spec: `{'name': ..., **kwargs}`, as in a config.
    what: kind of object, for error messages ('model', 'loss').
    **extra: arguments that the program adds to those of the config.

  Returns:
    The result of the function.

  Raises:
    ValueError: the spec has no name, or a name that is not in the table; the message
      lists the valid names.
    TypeError: an argument is unknown or missing; the message lists the arguments that
      the function takes.
  """
  kwargs = dict(spec)
  name = kwargs.pop('name', None)
  if name not in table:
    raise ValueError(names.unknown(what, name, sorted(table)))
  fn = table[name]
  signature = inspect.signature(fn)
  try:
    signature.bind(**kwargs, **extra)
  except TypeError as error:
    takes = [p for p in signature.parameters.values()
             if p.name not in extra and p.name not in ('parent', 'self')]
    known = [p.name for p in takes]
    wrong = next((key for key in kwargs if key not in known), '')
    listed = f': {", ".join(map(str, takes))}' if takes else ' no arguments'
    raise TypeError(
        f'{what} {name!r}: {error}{names.hint(wrong, known)}; it takes{listed}'
    ) from None
  return fn(**kwargs, **extra)


def arguments(settings: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Returns a decorator that tells what the **kwargs of a function may be.

  They are the fields of a class; the function's own arguments, of keywords only, come
  first. `build` then checks the arguments of the function against all of these.

      @arguments(Setup)          # a NamedTuple
      def gan(**settings):
        setup = Setup(**settings)

  Args:
    settings: a class, such as a NamedTuple.
  """
  def mark(fn):
    own = {name: p for name, p in inspect.signature(fn).parameters.items()
           if p.kind is p.KEYWORD_ONLY}
    fields = inspect.signature(settings).parameters
    fn.__signature__ = inspect.Signature([*own.values(), *(
        p.replace(kind=p.KEYWORD_ONLY) for name, p in fields.items()
        if name not in own)])
    return fn

  return mark
