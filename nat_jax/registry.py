"""The one dispatch from a name in a config to an object.

    MODELS = {'mlp': MLP, 'resnet18': resnet18}
    model = registry.build(MODELS, {'name': 'mlp', 'width': 64}, num_outputs=10)
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def build(
    table: Mapping[str, Callable[..., Any]],
    spec: Mapping[str, Any],
    *,
    what: str = 'component',
    **extra: Any,
) -> Any:
  """Calls `table[spec['name']]` with the other entries of `spec` and `extra`.

  Args:
    table: the valid names, and what builds each.
    spec: `{'name': ..., **kwargs}`, as it stands in a config.
    what: what is being built, for the error messages ("model", "loss").
    **extra: arguments that the program adds, not the config.

  Returns:
    Whatever the looked-up function returns.

  Raises:
    ValueError: no name, or a name that is not in the table (the valid ones are
      listed).
    TypeError: an argument the function does not take, or one it lacks (those it
      takes are listed).
  """
  kwargs = dict(spec)
  name = kwargs.pop('name', None)
  if name not in table:
    valid = ', '.join(sorted(table))
    raise ValueError(f'unknown {what} {name!r}; valid names: {valid}')
  fn = table[name]
  signature = inspect.signature(fn)
  try:
    signature.bind(**kwargs, **extra)
  except TypeError as error:
    takes = ', '.join(
        str(p) for p in signature.parameters.values()
        if p.name not in extra and p.name not in ('parent', 'self')
    )
    raise TypeError(f'{what} {name!r}: {error}; it takes: {takes}') from None
  return fn(**kwargs, **extra)


def arguments(settings: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """A function of **kwargs is checked by `build` as if it took those of `settings`.

      @arguments(Setup)          # a NamedTuple
      def gan(**settings):
        setup = Setup(**settings)
  """
  def mark(fn):
    fn.__signature__ = inspect.signature(settings)
    return fn

  return mark
