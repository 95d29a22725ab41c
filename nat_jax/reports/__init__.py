"""Many workdirs -> tables, figures and one page.

  report        load_run, group, write: from workdirs to the files of a report
  frames        the figures of all runs as one long data frame
  tables        the data frame as tables of text; Table itself
  claims        intervals over seeds, groups compared by tests; paper: published figures
  figures       training curves, histograms, NCR_t against t; pictures: sheets of images
  page          tables and figures as Markdown and as HTML
"""

from nat_jax.reports.frames import frame
from nat_jax.reports.report import group, load_run, write

__all__ = ['frame', 'group', 'load_run', 'write']
