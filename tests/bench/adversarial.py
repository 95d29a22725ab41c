"""AdvGAN beside other attacks, and what adversarial negatives give: digits, seeds.

    python tests/bench/adversarial.py                     # 3 seeds
    python tests/bench/adversarial.py --runs runs/adv     # keeps its runs, and goes on

configs/digits.py with an MLP. First table: attacks on the plain classifier (AdvGAN of
configs/advgan.py, `white`, also without the discriminator's term, and `black`), and the
success of the same pictures on a plain classifier of another seed. Second table:
classifiers that were trained in different ways, each attacked anew by an AdvGAN that is
trained against it and by PGD:
  baseline    cross-entropy
  nat         NAT, negatives: digits 6 and 7
  nat_advgan  NAT, negatives: 6 and 7, and as many of adversarial.npz of the AdvGAN
              against the baseline of the same seed
  nat_pgd     NAT, negatives: 6 and 7; and the trainer adversarial, labels='negative'
  adv_advgan  cross-entropy; the pictures of adversarial.npz are positives too
  adv_pgd     cross-entropy and the trainer adversarial, labels='own'
Third table: nat_pgd with other budgets, not attacked.

Each number is a mean over seeds, ± the sample standard deviation. All are of held-out
pictures.
"""

import argparse
import contextlib
import io
import os
import tempfile

import numpy as np
from steps import machine

from nat_jax import data, train
from nat_jax.commands import config_file

CONFIGS = os.path.join(os.path.dirname(__file__), '..', '..', 'configs')
ARMS = ('baseline', 'nat', 'nat_advgan', 'nat_pgd', 'adv_advgan', 'adv_pgd')
ATTACKS = {  # -> (variant of the AdvGAN, name of the attack in its figures)
    'random signs': ('white', 'noise'), 'AdvGAN': ('white', 'advgan'),
    'AdvGAN without the discriminator': ('alone', 'advgan'),
    'AdvGAN, black box': ('black', 'advgan'),
    'FGSM on the student of the black box': ('black', 'fgsm_student'),
    'PGD on the student of the black box': ('black', 'pgd_student'),
    'FGSM': ('white', 'fgsm'), 'PGD': ('white', 'pgd'),
    'PGD for confidence': ('white', 'pgd_confident')}
BUDGETS = (0.02, 0.05, 0.3)  # of the third table, besides --budget
OTHER = 1000  # added to the seed of the classifier that pictures transfer to


def trained(config, workdir):
  """The figures of a training; of a finished run those that it has."""
  config['compare_with'] = ''
  config['run'] |= {'tensorboard': False, 'checkpoint_every': 0, 'eval_every': 0}
  with contextlib.redirect_stdout(io.StringIO()):
    return train.train(config, workdir)['evals']


def classifier(arm, seed, budget, folder, name=''):
  """Trains a classifier of an arm; returns its figures."""
  nat = arm.startswith('nat')
  config = config_file.load(
      os.path.join(CONFIGS, 'digits.py'), 'nat' if nat else 'baseline').to_dict()
  config |= {'model': {'name': 'mlp'}, 'seed': seed, 'variant': arm}
  changed = os.path.join(folder, f'advgan-baseline-{seed}', 'adversarial.npz')
  if arm == 'nat_advgan':
    config['data']['negatives']['advgan'] = {
        'source': {'name': 'arrays', 'path': changed}}
    config['data']['negatives_per_batch'] *= 2
  if arm == 'adv_advgan':
    both = os.path.join(folder, f'positives-{seed}.npz')
    positives = data.load(config['data']['positives'])
    with np.load(changed) as file:
      np.savez(both, image=np.concatenate([positives.image, file['image']]),
               label=np.concatenate([positives.label, file['label']]),
               names=np.array(positives.names))
    config['data']['positives'] = {'name': 'arrays', 'path': both}
  if arm.endswith('_pgd'):
    config['trainer'] = {
        'name': 'adversarial', 'budget': budget,
        'labels': 'negative' if nat else 'own'}
  return trained(config, os.path.join(folder, f'{name or arm}-{seed}'))


def attack(arm, seed, args, folder, variant='white'):
  """Trains an AdvGAN against the classifier of an arm; returns its figures."""
  config = config_file.load(
      os.path.join(CONFIGS, 'advgan.py'),
      'black' if variant == 'black' else 'white').to_dict()
  source = config['evals']['test']['source']

  def of(name, number):
    return {'name': 'checkpoint', 'workdir': os.path.join(folder, f'{name}-{number}')}

  config |= {'seed': seed, 'target': of(arm, seed), 'evals': {'test': {
      'source': source}}}
  config['trainer']['budget'] = args.budget
  if arm == 'baseline':
    config['evals']['transfer'] = {
        'source': source, 'classifier': of('baseline', seed + OTHER)}
  if variant == 'alone':
    config['trainer']['gan_weight'] = 0.0
  name = 'advgan' if variant == 'white' else variant
  return trained(config, os.path.join(folder, f'{name}-{arm}-{seed}'))


def study(seed, args, folder):
  """({attack: figures}, {arm: figures}, {budget: figures}) of one seed."""
  figures = {}
  classifier('baseline', seed + OTHER, args.budget, folder)
  for arm in ARMS:
    found = classifier(arm, seed, args.budget, folder)
    made = attack(arm, seed, args, folder)
    if arm == 'baseline':
      by = {'white': made, **{variant: attack(arm, seed, args, folder, variant)
                              for variant in ('alone', 'black')}}
    figures[arm] = quality(found)
    for metric in ('success', 'confident_errors', 'accepted_errors'):
      figures[arm] |= {f'{metric}, {name}': made['test'][metric][name]
                       for name in ('advgan', 'pgd', 'pgd_confident')}
  attacks = {}
  for title, (variant, name) in ATTACKS.items():
    test, transfer = by[variant]['test'], by[variant]['transfer']
    attacks[title] = {
        'success': test['success'][name],
        'confident errors': test['confident_errors'][name],
        'success, other seed': transfer['success'][name],
        'mean change': test['change'][name]}
  budgets = {}
  for budget in sorted({*BUDGETS, args.budget}):
    name = 'nat_pgd' if budget == args.budget else f'nat_pgd_{budget}'
    budgets[str(budget)] = quality(classifier('nat_pgd', seed, budget, folder, name))
  return attacks, figures, budgets


def quality(found):
  """Some figures of a classifier that is not attacked."""
  unseen = found['digits_8_9']
  return {'accuracy': found['test']['accuracy'], 'PAR .8': unseen['par']['0.8'],
          **{f'{metric}, {name}': one for name, of in (
              ('8-9', unseen), ('noise', found['noise']))
             for metric, one in (('NCR .8', of['ncr']['0.8']),
                                 ('FPR95', of['fpr95_id_positive']),
                                 ('AUROC', of['auroc']))}}


def table(corner, found):
  """Prints a table of one dict {row: {column: number}} for each seed."""
  columns = list(next(iter(found[0].values())))
  print(f'\n| {corner} | {" | ".join(columns)} |\n|---{"|---" * len(columns)}|')
  for row in found[0]:
    values = np.array([[one[row][column] for column in columns] for one in found])
    cells = [f'{mean:.3f} ± {std:.3f}' for mean, std in zip(
        values.mean(0), values.std(0, ddof=1), strict=True)]
    print(f'| {row} | {" | ".join(cells)} |')


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--budget', type=float, default=0.15)
  parser.add_argument('--runs', default='', help="folder of the runs; '': temporary")
  args = parser.parse_args()
  if args.seeds < 2:
    parser.error('a standard deviation needs --seeds of 2 or more')
  print(f'{machine()}; {args.seeds} seeds, budget {args.budget}', flush=True)
  with tempfile.TemporaryDirectory() as folder:
    attacks, figures, budgets = zip(
        *(study(seed, args, args.runs or folder) for seed in range(args.seeds)),
        strict=True)
  table('attack on baseline', attacks)
  table('classifier', figures)
  table('budget of nat_pgd', budgets)


if __name__ == '__main__':
  main()
