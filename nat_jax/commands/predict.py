"""Classifies a user's own pictures, with the answer "none of these" where unconfident.

    found = predict('runs/digits', ['photos/'])     # writes runs/digits/predictions.csv
    print(text(found))

Pictures are decoded in threads and predicted in batches, and rows are written as they
come, so that the memory that is used does not grow with the number of pictures.
"""

import itertools
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm
from scipy import special

from nat_jax import classifier, metrics, runs, schema
from nat_jax.classifier import Classifier
from nat_jax.commands import calibrate, flags, predictions
from nat_jax.commands.predictions import ACCEPTED, UNREADABLE
from nat_jax.data import picture_paths
from nat_jax.metrics import selective
from nat_jax.reports import figures, pictures, tables
from nat_jax.runtime import results, writers
from nat_jax.tasks import TASKS
from nat_jax.tasks.classify import rule
from nat_jax.tasks.classify.rule import NONE

PREDICTIONS = 'predictions.csv'
LISTED = 20  # most pictures that are shown line by line
POOR = 0.5  # share of a negative set above which accepting it deserves a warning
REPORT_EVERY = 10.0  # seconds between two lines of progress
SHEET = 16  # pictures of each kind on a sheet
TOP = 3  # classes in a row
# Flags that a task with a `predict` of its own does not have.
OF_PICTURES = (flags.THRESHOLD, flags.TOP, flags.SHEET, flags.SHARE, flags.STRICT)


class Promise(NamedTuple):
  """The rule of a prediction and what is known about it.

  Attributes:
    rule: the rule.
    origin: where it is from, for the summary.
    accept: least share of positives that it is to accept; None: not known.
    negatives: set -> {'share' (accepted), 'n', 'seen_in_training'} of held-out
      negatives.
    least: the share of new positives that it accepts with a confidence of 95 %, by the
      held-out ones; None: not known.
  """

  rule: rule.Rule
  origin: str
  accept: float | None
  negatives: Mapping[str, Mapping[str, Any]]
  least: float | None


class Found(NamedTuple):
  """The result of a prediction.

  Attributes:
    path: of the written file.
    counts: (verdict, class) -> number of pictures; the class is '' but for accepted.
    errors: the first few (unreadable file, reason).
    rows: the rows, if there are at most `LISTED`, else [].
    promise: the rule and what is known about it.
    resumed: number of rows of an interrupted prediction that was continued.
    sheet: path of the sheet of pictures, or ''.
  """

  path: str
  counts: Mapping[tuple[str, str], int]
  errors: Sequence[tuple[str, str]]
  rows: Sequence[Mapping[str, Any]]
  promise: Promise
  resumed: int
  sheet: str

  def total(self, verdict: str) -> int:
    """The number of pictures with a verdict."""
    return sum(n for (each, _), n in self.counts.items() if each == verdict)


def predict(
    workdir: str, images: Sequence[str], step: int | None = None,
    threshold: float | None = None, out: str | None = None, top: int = TOP,
    sheet: bool = False, keep: float = 0.95, share: tuple[int, int] = (1, 1),
) -> Found:
  """Classifies pictures and writes a row for each of them.

  The rule is that of calibration.json. Without this file it is the highest threshold of
  the maximum probability that keeps the share `keep` of the positives of part
  'calibration'. A picture is accepted by its score alone, and its class is the
  likeliest one, so that a background output takes its share of the probability only.

  Rows have: file, verdict ('accepted', 'none of these' or 'unreadable'), the likeliest
  class and its probability, score, the next classes and their probabilities, and an
  error (the reason why a picture is unreadable). File names keep their bytes, UTF-8 or
  not: read CSV with open(path, encoding='utf-8', errors='surrogateescape', newline='').
  A cell of CSV that starts with = + - @ tab, carriage return, newline or ' gets a
  leading ' so that spreadsheets do not run it; readers must remove that character.

  An older file is replaced at the end. An interrupted prediction is continued by the
  same call (`predictions.open_rows`).

  Args:
    workdir: of a run.
    images: files, folders, patterns, '@FILE' or '-', see `data.picture_paths`.
    step: of the checkpoint; None: the newest.
    threshold: least maximum probability of an accepted picture (after the temperature
      of calibration.json, if that belongs to the checkpoint); None: see above.
    out: file to write, .csv, .jsonl or .parquet; None: predictions.csv in the workdir.
    top: number of classes in a row.
    sheet: whether to draw pictures with verdicts, into a .sheet.png beside the rows.
    keep: share of calibration positives; only used without threshold and calibration.
    share: (k, n): every n-th picture from the k-th on, so that n calls, each with its
      own `out`, share the pictures; `out` is then by default predictions-k-of-n.csv.

  Raises:
    ValueError: an argument that is not valid, no checkpoint, no picture, no positives
      to take a threshold from, or no evaluation of this checkpoint on them.
  """
  rule.check_threshold(threshold)
  if top < 1:
    raise ValueError(f'top must be 1 or more, got {top}')
  if not 1 <= share[0] <= share[1]:
    raise ValueError(
        f'share must be k/n with 1 <= k <= n, such as 2/4, got {share[0]}/{share[1]}')
  out = out or os.path.join(workdir, PREDICTIONS if share[1] == 1 else (
      f'predictions-{share[0]}-of-{share[1]}.csv'))
  picture_paths.check(images)
  clf = classifier.restore(workdir, step, threshold, keep)
  predictions.check_out(out, images)
  if clf.basis.note:
    print(clf.basis.note)
  _ = clf.view, clf.score_fit  # what is missing is told before anything is written
  promise, names = promised(clf), clf.classes_.tolist()
  top = min(top, len(names))
  settings = {
      'images': [one.rstrip('/') or one for one in images], 'share': list(share),
      'folder': _folder(images), 'step': clf.run.step, 'crc32': clf.run.crc32,
      **promise.rule._asdict(), 'top': top, 'classes': names}
  with predictions.open_rows(out, settings) as rows:
    chosen = Chosen() if sheet else None
    if rows.resumed:
      print(f'{out}: {rows.resumed:,} rows of an interrupted prediction are kept',
            flush=True)
    batches = _classify(clf, _left(rows, images, share), top, chosen)
    try:
      for batch in progress(batches, images, rows.resumed, share):
        rows.write(batch)
    except KeyboardInterrupt:
      raise KeyboardInterrupt(
          f'interrupted; {rows.total():,} rows are in {rows.file.name}, from where the '
          'same command goes on') from None
    if not rows.total():
      raise ValueError('no picture is named: the list is empty' if share[1] == 1 else
                       f'there are fewer than {share[0]} pictures, so that the share '
                       f'{share[0]}/{share[1]} is empty')
    shown = list(rows) if rows.total() <= LISTED else []
    rows.finish()
  path = chosen.save(f'{os.path.splitext(out)[0]}.sheet.png', names) if chosen else ''
  return Found(out, rows.counts, rows.errors, shown, promise, rows.resumed, path)


def _folder(images):
  """In which relative paths are; '' if there are none."""
  return '' if all(map(os.path.isabs, images)) else os.getcwd()


def _left(rows, images, share):
  """The paths of a share of the pictures that have no row yet."""
  named = _find(images, share)
  if any(map(picture_paths.is_list, images)):  # which may be another list now
    return rows.without(named)
  return (path for path in named if not rows.has(path))


def _find(images, share):
  """Yields the paths of a share of the pictures."""
  return itertools.islice(picture_paths.find(images), share[0] - 1, None, share[1])


def _classify(clf, paths, top, chosen):
  """Yields the rows of pictures, batch by batch."""
  names = clf.classes_.tolist()

  def rows_of(batch, decided):
    row = 0
    for path, found in batch:
      name = predictions.as_text(path)
      if isinstance(found, str):
        yield {'file': name, 'verdict': UNREADABLE, 'error': found}
        continue
      ranked = [
          {'class': names[k], 'probability': float(decided.probability[row, k])}
          for k in decided.order[row, :top]]
      yield {'file': name, 'verdict': ACCEPTED if decided.accepted[row] else NONE,
             **ranked[0], 'score': float(decided.score[row]), 'top': ranked}
      row += 1

  for batch, decided in clf.decide_each(paths):
    if chosen and decided:
      chosen.add([x for _, x in batch if not isinstance(x, str)], decided)
    yield list(rows_of(batch, decided))


def progress(
    batches: Iterable[list[Any]], images: Sequence[str], done: int = 0,
    share: tuple[int, int] = (1, 1),
) -> Iterator[list[Any]]:
  """Passes batches on and shows how many pictures are done, and the time left.

  The pictures are counted before, but for standard input, whose number is not known.

  Args:
    batches: lists with an element for each picture.
    images: what was named, see `data.picture_paths`.
    done: number of pictures that are in no batch, since they are done already.
    share: of the pictures, see `predict`.
  """
  total = None
  if picture_paths.STDIN not in images:
    total = sum(1 for _ in _find(images, share))
  start = done
  begun = told = time.monotonic()
  bar = None
  if sys.stdout.isatty() and (total or LISTED + 1) > LISTED:
    bar = tqdm.tqdm(
        total=total, initial=start, file=sys.stdout, unit=' pictures', leave=False)
  try:
    for batch in batches:
      yield batch
      done += len(batch)
      now = time.monotonic()
      if bar is not None:
        bar.update(len(batch))
      elif now - told >= REPORT_EVERY:
        rate, told = (done - start) / (now - begun), now
        left = f' of {total:,}' if total else ''
        eta = f'  ETA {writers.clock((total - done) / rate)}' if total else ''
        print(f'{done:,}{left} pictures  {rate:,.0f}/s{eta}', flush=True)
  finally:
    if bar is not None:
      bar.close()


# The rule and what is known about it.


def promised(clf: Classifier) -> Promise:
  """What is known about the rule of a classifier."""
  basis, found = clf.basis, clf.basis.calibration or {}
  shown = calibrate.shown_threshold(basis.rule._asdict())
  if basis.origin == rule.GIVEN:
    origin = f'threshold {special.expit(basis.rule.threshold):g}, as given'
  elif basis.origin == rule.DEFAULT:
    origin = (
        f'threshold {shown}: keeps {basis.accept:.0%} of the positives that were held '
        'out for calibration (--mode=calibrate chooses one with a guarantee)')
  else:
    origin = (
        f'{basis.rule.score} {shown}, from {rule.CALIBRATION}: accepts at least '
        f'{tables.percent(basis.accept)} of new positives '
        f'({tables.percent(found["confidence"])} confidence, {found["n"]:,} '
        'held-out positives)')
  least = basis.accept
  if basis.n:  # the threshold is an estimate, without a guarantee
    least, _ = metrics.proportion_interval(round(basis.accept * basis.n), basis.n)
  return Promise(basis.rule, origin, basis.accept, {
      **accepted_shares(clf, positive=False), **found.get('negatives', {})}, least)


def accepted_shares(clf: Classifier, positive: bool) -> dict[str, dict[str, Any]]:
  """The shares of held-out pictures that the rule accepts, from scores/*.npz.

  They are those of the evaluation of this checkpoint; {} if there is none. No threshold
  is chosen by them.

  Args:
    clf: the classifier.
    positive: whether the sets of positives are wanted, or those of negatives.

  Returns:
    {set: `calibrate.share` and 'seen_in_training'}. Sets of part 'validation', and
    positives of part 'calibration', are left out.
  """
  left_out = (schema.VALIDATION, *[schema.CALIBRATION] * positive)
  workdir, step, config = clf.workdir, clf.run.step, clf.run.config
  evaluation = results.read_evaluation(workdir)
  if (not evaluation or evaluation['step'] != step
      or clf.basis.rule.score in selective.FEATURE_SCORES):  # not known from logits
    return {}
  found = {}
  for name, spec in config['evals'].items():
    if (bool(spec.get('positive')) != positive
        or spec.get('part', schema.TEST) in left_out):
      continue
    arrays = results.read_arrays(workdir, f'{results.SCORES}/{name}', step)
    if arrays and 'logits' in arrays:
      decided = rule.decide(arrays['logits'], config['num_classes'], clf.basis.rule)
      found[name] = {
          **calibrate.share(decided.accepted), 'seen_in_training':
          evaluation['evals'].get(name, {}).get('seen_in_training', False)}
  return found


# The summary.


def text(found: Found) -> str:
  """The rows, if they are few, and a summary of a prediction."""
  lines = [_line(row) for row in found.rows]
  lines += [''] if lines else []
  accepted, refused, unreadable = map(found.total, (ACCEPTED, NONE, UNREADABLE))
  readable = accepted + refused
  for (verdict, name), count in sorted(
      found.counts.items(), key=lambda item: -item[1]):
    if verdict == ACCEPTED:
      lines.append(f'{count:>9,}  {name}')
  lines += [f'{refused:>9,}  {NONE}', f'{unreadable:>9,}  {UNREADABLE}']
  lines += [f'           {name}: {reason}' for name, reason in found.errors]
  if unreadable > len(found.errors) > 0:
    lines.append(f'           and {unreadable - len(found.errors):,} more')
  about = ['rule: ' + found.promise.origin, *_about_negatives(found.promise)]
  if readable:
    low, high = metrics.proportion_interval(accepted, readable)
    percent = tables.percent
    about.append(
        f'accepted: {accepted:,} of {readable:,} readable pictures '
        f'({percent(accepted / readable)}; 95 % interval {percent(low)} - '
        f'{percent(high)})')
    least = found.promise.least
    if least is not None and high < least:
      about.append(
          f'warning: fewer than the {percent(least)} of positives that the rule keeps '
          'with a confidence of 95 %: some pictures are of none of the classes, or the '
          'positives are not like those that the threshold was taken from')
  if found.sheet:
    about.append(f'sheet: {found.sheet}')
  lines += [textwrap.fill(one, 88, subsequent_indent='  ', break_long_words=False,
                          break_on_hyphens=False) for one in about]
  return '\n'.join(lines)


def _about_negatives(promise: Promise) -> Iterator[str]:
  """Lines with the shares of held-out negatives that the rule refuses."""
  known = {name: one for name, one in promise.negatives.items() if one['n']}
  if not known:
    yield ('refuses: not known, since there are no scores of held-out negatives for '
           'this checkpoint; --mode=evaluate makes them')
    return
  yield 'refuses: ' + ', '.join(
      f'{tables.percent(1 - one["share"])} of {name}'
      + (' (a kind seen in training)' if one['seen_in_training'] else '')
      for name, one in known.items())
  poor = [f'{tables.percent(one["share"])} of {name}'
          for name, one in known.items() if one['share'] > POOR]
  if poor:
    yield (f'warning: a poor operating point, which accepts {", ".join(poor)}, '
           'although these are of none of the classes')


def _line(row):
  if row['verdict'] == UNREADABLE:
    return f'{row["file"]}: {UNREADABLE} ({row["error"]})'
  answer = row['class'] if row['verdict'] == ACCEPTED else NONE
  likeliest = ', '.join(
      f'{one["class"]} {one["probability"]:.3f}' for one in row['top'])
  return f'{row["file"]}: {answer} ({likeliest})'


class Chosen:
  """The pictures of a sheet: the accepted ones with the highest and with the lowest
  scores, and the refused ones with the highest."""

  def __init__(self):
    """Starts without pictures."""
    self.kept: dict[str, tuple[np.ndarray, ...]] = {}

  def add(self, pixels: Sequence[np.ndarray], decided: rule.Decisions) -> None:
    """Keeps those of a batch that belong on the sheet."""
    score = decided.score
    rows, likeliest = np.arange(len(score)), decided.order[:, 0]
    probability = decided.probability[rows, likeliest]
    for name, among, rank in (
        ('accepted, most certain', decided.accepted, -score),
        ('accepted, least certain', decided.accepted, score),
        (f'{NONE}, nearest to the threshold', ~decided.accepted, -score)):
      new = rank, np.stack(pixels), likeliest, probability
      new = [values[among] for values in new]
      if name in self.kept:
        new = [np.concatenate(pair)
               for pair in zip(self.kept[name], new, strict=True)]
      first = np.argsort(new[0], kind='stable')[:SHEET]
      if len(first):
        self.kept[name] = tuple(values[first] for values in new)

  def save(self, path: str, names: Sequence[str]) -> str:
    """Writes the sheet; returns its path, or '' if there is no picture for it."""
    sheets = {
        name: {'image': image, 'prediction': prediction, 'max_prob': probability}
        for name, (_, image, prediction, probability) in self.kept.items()}
    if not sheets:
      return ''
    figures.save(pictures.sheets(sheets, names), path)
    return path


def run(argv: Sequence[str] = ()) -> None:
  """--mode=predict: classifies pictures and prints a summary; or what the task does."""
  workdir = flags.needed(flags.WORKDIR, 'predict')
  images = [*(flags.IMAGES.value or ()), *argv]
  if not images:
    raise ValueError(
        '--mode=predict needs --images, pictures or a folder of them; or, of a '
        'detector of anomalies in time series, a CSV file')
  rule.check_threshold(flags.THRESHOLD.value)
  share = _share(flags.SHARE.value)
  task = TASKS[runs.about(workdir, flags.STEP.value)['config']['task']]
  if task.predict is not None:
    flags.refuse(OF_PICTURES, f'--mode=predict of {task.title}')
    restored = runs.restore(workdir, flags.STEP.value)
    print(task.predict(restored, workdir, images, flags.OUT.value))
    return
  found = predict(
      workdir, images, flags.STEP.value, flags.THRESHOLD.value, flags.OUT.value,
      TOP if flags.TOP.value is None else flags.TOP.value, flags.SHEET.value,
      share=share)
  print(text(found))
  print(f'written: {found.path}')
  unreadable = found.total(UNREADABLE)
  if unreadable and flags.STRICT.value:
    raise ValueError(
        f'{unreadable:,} pictures cannot be read (--strict); {found.path} has the '
        'reasons, and the verdicts on all others')


def _share(text):
  """'2/4' -> (2, 4)."""
  found = re.fullmatch(r'(\d+)/(\d+)', text)
  if not found:
    raise ValueError(f'--share must be k/n, such as 2/4, got {text}')
  return int(found[1]), int(found[2])
