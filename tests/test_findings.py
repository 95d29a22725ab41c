"""Results of docs/results.md that must hold again: trained here, one seed."""

import json
import os
import subprocess
import sys

import pytest
import toy


@pytest.mark.slow
@pytest.mark.process
def test_nat_gan_is_ahead_of_am_gan_and_of_the_plain_gan(tmp_path):
  """In Inception Score and AM score on digits, as in each of ten seeds."""
  variants = 'nat0', 'am', 'gan'
  subprocess.run(
      [sys.executable, '-m', 'nat_jax.main', '--mode=sweep', f'--workdir={tmp_path}',
       *(f'gan/digits:{variant}' for variant in variants), '--jobs=1',
       '--config.steps=2000', '--config.run.eval_every=2000',
       f'--config.measures.features.workdir={tmp_path}/classifier'],
      env=os.environ | {'JAX_NUM_CPU_DEVICES': '1', 'XLA_FLAGS': ''}, cwd=toy.ROOT,
      check=True)
  nat, *others = (
      json.loads((tmp_path / f'digits-{variant}-0' / 'eval.json').read_text())[
          'evals']['samples'] for variant in variants)
  for other in others:
    assert nat['inception_score'] > other['inception_score'] + 0.1
    assert nat['am_score'] < other['am_score'] - 0.02
