"""A recurrent network on windows of a series, with an output for every time step.

    generator = LSTM(width=24, num_outputs=4, bounded=True)
    windows = generator.apply(variables, z)       # [n, l, 6] -> [n, l, 4], in (-1, 1)
"""

import flax.linen as nn
import jax


class LSTM(nn.Module):
  """One layer of LSTM cells and an affine output, [n, l, d] -> [n, l, num_outputs].

  The output of a time step depends on the inputs up to this step.

  Attributes:
    width: number of cells.
    num_outputs: values per time step.
    bounded: True: tanh of the outputs.

  Reference: Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation 1997.
  """

  width: int
  num_outputs: int
  bounded: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    # A loop of single steps: unrolled ones take XLA's CPU backend twice as long.
    hidden = nn.RNN(nn.OptimizedLSTMCell(self.width))(x)
    outputs = nn.Dense(self.num_outputs)(hidden)
    return nn.tanh(outputs) if self.bounded else outputs
