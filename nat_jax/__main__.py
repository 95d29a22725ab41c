"""Runs `nat_jax.main`: the command `nat-jax`, and `python -m nat_jax`."""

import runpy


def run() -> None:
  """Runs the program as `python -m nat_jax.main` does."""
  # As the main module, where --help looks for the description and the flags.
  runpy.run_module('nat_jax.main', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  run()
