"""Many workdirs -> tables, figures and one page; see `nat_jax.reports.report`.

  report        load_run, tables, report: what the rest of the program calls
  tables        evaluations as tables of text; Table itself
  claims        the paper's claims tested over seeds; paper: its published figures
  figures       training curves, histograms, NCR_t against t; pictures: sheets of images
  page          tables and figures as Markdown and as HTML
  gan_report    the same for GANs, with gan_tables and gan_figures
"""
