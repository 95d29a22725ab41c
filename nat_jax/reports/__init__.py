"""Many workdirs -> tables, figures and one page.

  report        load_run, group, write: from workdirs to the files of a report
  tables        evaluations as tables of text; Table itself
  claims        the paper's claims tested over seeds; paper: its published figures
  figures       training curves, histograms, NCR_t against t; pictures: sheets of images
  page          tables and figures as Markdown and as HTML
"""

from nat_jax.reports.report import group, load_run, write

__all__ = ['group', 'load_run', 'write']
