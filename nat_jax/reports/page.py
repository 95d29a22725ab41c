"""The page of a report: verdict, facts, tables and figures as Markdown and as HTML.

    text = html(Page('Report on digits', verdict, facts, tables, figures))
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from nat_jax.reports.tables import LONG, Table

TEMPLATE = 'page.html.jinja'
LEGIBLE = 0.75  # narrowest width of a figure, as a share of its own, in a narrow window


class Page(NamedTuple):
  """The content of a report.

  Attributes:
    title: of the page.
    verdict: (headline or '', sentences) for each paragraph.
    facts: (term, text) about the runs.
    tables: in their order.
    figures: (caption, note or '', path of the picture or None) of each.
  """

  title: str
  verdict: Sequence[tuple[str, Sequence[str]]]
  facts: Sequence[tuple[str, str]]
  tables: Sequence[Table]
  figures: Sequence[tuple[str, str, Path | None]]


def paragraph(headline: str, sentences: Sequence[str]) -> list[str]:
  """The lines of a paragraph of a verdict as text: a headline and a list."""
  if not headline:
    return [' '.join(sentences)]
  return [headline, '', *(f'- {sentence}' for sentence in sentences)]


def markdown(page: Page) -> str:
  """The page as Markdown, with links to the pictures in the folder `figures`."""
  parts = [f'# {page.title}', '']
  for headline, sentences in page.verdict:
    parts += [*paragraph(headline and f'**{headline}**', sentences), '']
  parts += [f'- {term}: {text}' for term, text in page.facts]
  parts += ['', *(table.markdown() for table in page.tables)]
  for caption, note, path in page.figures:
    parts += [f'## {caption}\n', f'![{caption}](figures/{path.name})\n' if path else '',
              f'{note}\n' if note else '']
  return '\n'.join(parts)


def html(page: Page) -> str:
  """The page as one HTML file that embeds its pictures."""
  import jinja2

  shown = [(caption, note, path and _picture(path))
           for caption, note, path in page.figures]
  pages = jinja2.Environment(
      loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
      trim_blocks=True, lstrip_blocks=True)
  pages.filters['whole'] = lambda text: text.replace(' %', '\u00a0%')  # on one line
  return pages.get_template(TEMPLATE).render(
      **page._replace(figures=shown)._asdict(), long=LONG)


def _picture(path):
  """The picture as a data URL, its size, and the least width at which it is legible."""
  content = path.read_bytes()
  with Image.open(io.BytesIO(content)) as image:
    width, height = image.size
  data = base64.b64encode(content).decode()
  return {'url': f'data:image/{path.suffix[1:]};base64,{data}', 'width': width,
          'height': height, 'least': round(LEGIBLE * width)}
