"""The page of a report: tables and figures as Markdown and as HTML.

    text = html('Report on digits', tables, [('Training curves', '', path)])
"""

import base64
from collections.abc import Sequence
from pathlib import Path

from nat_jax.reports.tables import LONG, Table

# For each figure: (caption, note or '', path of the PNG or None).
Drawn = Sequence[tuple[str, str, Path | None]]

TEMPLATE = 'page.html.jinja'


def markdown(title: str, tables: Sequence[Table], drawn: Drawn) -> str:
  """The page as Markdown, with links to the PNGs in the folder `figures` beside it."""
  parts = [f'# {title}', '', *(t.markdown() for t in tables)]
  for caption, note, path in drawn:
    parts += [f'## {caption}\n', f'![{caption}](figures/{path.name})\n' if path else '',
              f'{note}\n' if note else '']
  return '\n'.join(parts)


def html(title: str, tables: Sequence[Table], drawn: Drawn) -> str:
  """The page as one HTML file that embeds its figures."""
  import jinja2

  shown = [(caption, note, path and _data_url(path)) for caption, note, path in drawn]
  pages = jinja2.Environment(
      loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
      trim_blocks=True, lstrip_blocks=True)
  return pages.get_template(TEMPLATE).render(
      title=title, tables=tables, figures=shown, long=LONG)


def _data_url(path):
  data = base64.b64encode(path.read_bytes()).decode()
  return f'data:image/{path.suffix[1:]};base64,{data}'
