"""Reports on many runs: tables, figures and one page.

  report        load_run, group, write: from workdirs to the files of a report
  frames        the metrics of all runs as one long data frame
  tables        tables of text, made of the data frame
  claims        intervals over seeds, and tests between groups of runs
  paper         the values that the NAT paper printed
  figures       training curves, histograms, NCR_t against t
  pictures      sheets of images: mistakes, attention maps
  about         data, classes, duration and command of runs
  page          verdict, facts, tables and figures as Markdown and as HTML
"""

from nat_jax.reports.frames import frame
from nat_jax.reports.report import group, load_run, write

__all__ = ['frame', 'group', 'load_run', 'write']
