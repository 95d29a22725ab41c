"""Your own pictures with a pretrained network, EfficientNet-Lite0, that is trained on.

    python -m nat_jax.main --config configs/finetune.py:pets,others --workdir runs/tuned

The folders and tables, the four parts and the plain classifier `baseline:pets,others`
are as in configs/pictures.py. The weights are model.safetensors of
https://huggingface.co/timm/tf_efficientnet_lite0.in1k, looked for as
tf_efficientnet_lite0.in1k.safetensors in ~/.cache/nat_jax/backbones (or in
$NAT_JAX_CACHE/backbones); --config.weights=FILE names another place. Only the start of
a training needs them, and the package safetensors (pip install '.[pretrained]').

The stem and the first five of seven groups keep their weights
(--config.model.frozen=6; 8 trains the output layer only, 0 everything), the others
learn the slower the farther they are from the output. Pictures have 224 pixels.
docs/photographs.md compares it with other ways, and says how long it takes on a CPU.
"""

PERIOD = 50  # updates from one evaluation to the next


def get_config(variant='pets,others'):
  from nat_jax.commands import config_file  # imported here because it imports JAX
  from nat_jax.runtime import backbones

  network = 'efficientnet_lite0'
  config = config_file.load('pictures', variant)
  config.model = {'name': network, 'frozen': 6}
  config.weights = f'{backbones.timm_name(network)}.safetensors'
  config.layer_decay = 0.7
  config.steps = 300
  config.patience = 3 * PERIOD
  config.optimizer = {'name': 'adamw', 'weight_decay': 0.05}
  config.schedule = {'name': 'cosine', 'learning_rate': 1e-3, 'warmup': 30}
  config.eval_batch_size = 64
  config.data.update(image_size=224, batch_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
  if config.data.negatives_per_batch:
    config.data.negatives_per_batch = (16, 16)
  for entry in config.evals.values():
    if 'corrupt' in entry:
      entry.corrupt.num = 100  # 500 would take minutes on a CPU
  config.evals.noise.source.num = 200  # 0.6 MB each
  config.run.update(log_every=10, eval_every=PERIOD, checkpoint_every=PERIOD)
  return config
