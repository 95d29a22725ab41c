"""The page of a report: tables and figures as Markdown and as HTML.

    text = html('Report on digits', tables, [('Training curves', '', path)])
"""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from nat_jax.reports.tables import Table

# (caption, note or '', path of the PNG or None) of each figure.
Drawn = Sequence[tuple[str, str, Path | None]]

CSS = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 56rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
.scroll { overflow-x: auto; margin-bottom: 2rem } img { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: .9rem; font-feature-settings: "tnum" }
th, td { padding: .25rem .7rem; white-space: nowrap; border-bottom: 1px solid #ddd;
  text-align: right } th { border-bottom-color: #777 } .left { text-align: left }
"""


def markdown(title: str, tables: Sequence[Table], drawn: Drawn) -> str:
  """The page as Markdown, beside the folder `figures`."""
  parts = [f'# {title}', '', *(t.markdown() for t in tables)]
  for caption, note, path in drawn:
    parts += [f'## {caption}\n', f'![{caption}](figures/{path.name})\n' if path else '',
              f'{note}\n' if note else '']
  return '\n'.join(parts)


def html(title: str, tables: Sequence[Table], drawn: Drawn) -> str:
  """The page as one HTML file, the figures inside it."""
  title = escape(title)
  parts = [
      '<!doctype html><html lang="en"><head><meta charset="utf-8">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f'<title>{title}</title><style>{CSS}</style></head><body>',
      f'<h1>{title}</h1>', *(table.html() for table in tables)]
  for caption, note, path in drawn:
    caption = escape(caption)
    parts += [f'<h2>{caption}</h2>', f'<p>{escape(note)}</p>' if note else '']
    if path:
      kind = path.suffix[1:]
      data = base64.b64encode(path.read_bytes()).decode()
      parts.append(f'<img alt="{caption}" src="data:image/{kind};base64,{data}">')
  return '\n'.join([*parts, '</body></html>', ''])
