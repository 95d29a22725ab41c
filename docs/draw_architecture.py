"""Draws the parts of nat_jax and the imports between them, read from the code.

    python docs/draw_architecture.py                  # writes docs/architecture.png
    python docs/draw_architecture.py somewhere.png

A room, as a part is called in this script, is a module or package directly in nat_jax/.
Dark arrows are imports that no chain of other imports implies; light ones all others.
"""

import ast
import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'nat_jax'
RANKS = (  # from the bottom: room -> x of its middle; imports point strictly downwards
    {'names': 5.05},
    {'schema': 2.7, 'task': 4.95, 'registry': 7.4},
    {'data': 1.0, 'losses': 5.65, 'models': 7.95, 'metrics': 10.2},
    {'runtime': 3.2},
    {'reports': 8.9},
    {'tasks': 6.2},
    {'runs': 2.0},
    {'train': 6.8, 'detectors': 9.6},
    {'classifier': 2.6, 'influence': 7.4},
    {'serving': 7.6},
    {'commands': 4.9},
    {'main': 6.9},
)
RANK_OF = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
WIDTH, HEIGHT, STEP = 2.15, 0.92, 1.5  # of a room; from rank to rank


def room_of(path: pathlib.Path) -> str:
  """The room that a file belongs to."""
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def rooms() -> dict[str, str]:
  """Room -> how its docstring begins; the names of its modules if it has none."""
  found = {}
  for path in sorted([*PACKAGE.glob('*.py'), *PACKAGE.glob('*/__init__.py')]):
    if path.parent != PACKAGE or not path.stem.startswith('__'):
      doc = ast.get_docstring(ast.parse(path.read_text())) or ''
      begin = re.split(r'[:.](?:\s|$)', doc)[0] or ', '.join(
          sorted(other.stem for other in path.parent.glob('[!_]*.py')))
      found[room_of(path)] = begin
  return found


def arrows() -> list[tuple[str, str]]:
  """(importing room, imported room), sorted; imports within functions count too."""
  found = set()
  for path in PACKAGE.rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [f'{node.module}.{alias.name}' for alias in node.names]
      else:
        continue
      for package, _, rest in (name.partition('.') for name in names):
        other = rest.partition('.')[0]
        if package == 'nat_jax' and other not in ('', room_of(path)):
          found.add((room_of(path), other))
  return sorted(found)


def implied(found: list[tuple[str, str]]) -> set[tuple[str, str]]:
  """The arrows that a chain of two or more others implies."""
  below = {}  # room -> all rooms that it reaches
  for room in sorted(RANK_OF, key=RANK_OF.get):
    direct = {other for one, other in found if one == room}
    below[room] = direct.union(*(below.get(other, set()) for other in direct))
  return {(one, other) for one, other in found if any(
      other in below[middle] for start, middle in found if start == one)}


def draw(path: str | pathlib.Path) -> None:
  """Writes the picture as a PNG."""
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import patches
  from matplotlib import pyplot as plt

  places = {room: (x, STEP * rank) for rank, row in enumerate(RANKS)
            for room, x in row.items()}
  figure, axes = plt.subplots(figsize=(10, 13), dpi=110)
  found = arrows()
  light = implied(found)
  for one, other in sorted(found, key=lambda arrow: arrow not in light):
    (x, y), (to_x, to_y) = places[one], places[other]
    lean = (to_x - x) * 0.12  # arrows of a room leave it side by side
    axes.add_patch(patches.FancyArrowPatch(
        (x + max(min(lean, 0.8), -0.8), y - HEIGHT / 2),
        (to_x - max(min(lean, 0.8), -0.8), to_y + HEIGHT / 2),
        arrowstyle='-|>', mutation_scale=11, shrinkA=0, shrinkB=0,
        linewidth=0.7 if (one, other) in light else 1.5,
        color='#b9c2cc' if (one, other) in light else '#1f3a5f'))
  for room, about in rooms().items():
    x, y = places[room]
    axes.add_patch(patches.FancyBboxPatch(
        (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, zorder=3,
        boxstyle='round,pad=0,rounding_size=0.08', facecolor='#eef3f8',
        edgecolor='#1f3a5f', linewidth=1))
    axes.text(x, y + 0.25, room, ha='center', va='center', weight='bold', zorder=4)
    lines = textwrap.wrap(about, 27, max_lines=3, placeholder=' ...')
    axes.text(x, y - 0.12, '\n'.join(lines), ha='center', va='center', fontsize=6.5,
              zorder=4)
  for rank in range(len(RANKS)):
    axes.text(-0.9, STEP * rank, f'rank {rank}', va='center', color='#6b7580')
  axes.set(xlim=(-1, 11.4), ylim=(-0.6, STEP * len(RANKS) - 0.6), aspect='equal')
  axes.axis('off')
  figure.savefig(path, bbox_inches='tight', metadata={'Software': None})
  plt.close(figure)


if __name__ == '__main__':
  draw(sys.argv[1] if sys.argv[1:] else ROOT / 'docs' / 'architecture.png')
