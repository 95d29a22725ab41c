"""Eight CPU devices, strict ranks, the checker for reused keys, a cache of its own."""

import gc
import os
import pathlib
import shutil
import signal

# Two workers whose linear algebra has a thread for each core wait for each other. numpy
# reads this when it is imported.
if 'PYTEST_XDIST_WORKER' in os.environ:
  for variable in ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS'):
    os.environ.setdefault(variable, '1')

import jax  # noqa: E402
import pytest  # noqa: E402

# Most of the time of the tests is compilation, of programs that run for milliseconds;
# two thirds of it are the emitters of fusions. The processes that tests start compile
# as users do. A flag that XLA does not know ends the program: not for later versions.
if jax.__version_info__ < (0, 11):
  os.environ['XLA_FLAGS'] = (
      os.environ.get('XLA_FLAGS', '') + ' --xla_cpu_use_fusion_emitters=false'
      ' --xla_cpu_parallel_codegen_split_count=1')
# etils reads it once, when the first path is made. With TensorFlow, which tests of tfds
# need, test_store.py's stand-in for an object store would be passed over.
os.environ['EPATH_USE_TF'] = '0'
# Tests write many files, and what is saved is synchronised with the disk: in memory,
# where there is room, they do not wait for it.
MEMORY_FOLDER = pathlib.Path('/dev/shm')
if os.access(MEMORY_FOLDER, os.W_OK) and shutil.disk_usage(MEMORY_FOLDER).free > 4e9:
  os.environ.setdefault('PYTEST_DEBUG_TEMPROOT', str(MEMORY_FOLDER))
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)
jax.config.update('jax_disable_most_optimizations', True)

# A shell has jobs in the background ignore SIGINT, and `nohup` SIGHUP; the processes
# that tests start would inherit it.
for number, handler in ((signal.SIGINT, signal.default_int_handler),
                        (signal.SIGHUP, signal.SIG_DFL)):
  if signal.getsignal(number) == signal.SIG_IGN:
    signal.signal(number, handler)


PROGRAMS = 'programs'
MAX_BYTES = 1_000_000_000  # of compiled programs; all of them were 0.1 GB at first


def pytest_configure(config):
  """Deletes the programs of former runs once they are many."""
  cache = getattr(config, 'cache', None)
  if cache and not hasattr(config, 'workerinput'):
    folder = cache.mkdir(PROGRAMS)
    if sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) > MAX_BYTES:
      shutil.rmtree(folder)


def pytest_collection_modifyitems(config, items):
  """Leaves slow tests out unless -m names `slow`, whatever other marks it names."""
  if 'slow' not in config.option.markexpr:
    left_out = [item for item in items if item.get_closest_marker('slow')]
    items[:] = [item for item in items if not item.get_closest_marker('slow')]
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish():
  """Tracing makes many objects, and looking for dead ones took a tenth of the time."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(100_000, 50, 100)


@pytest.fixture(scope='session', autouse=True)
def no_cache_of_the_home_folder(tmp_path_factory):
  """Neither used nor filled, by the tests and by the processes that they start."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('NAT_JAX_CACHE', str(tmp_path_factory.mktemp('nat_jax_cache')))
    patch.setenv('TFDS_DATA_DIR', str(tmp_path_factory.mktemp('tfds')))
    yield


@pytest.fixture(scope='session', autouse=True)
def programs_are_compiled_once(request, tmp_path_factory):
  """Tests share their programs, also with later runs in this checkout.

  Without pytest's cache (-p no:cacheprovider) the programs are kept for one run.
  """
  from nat_jax.runtime import compilation  # not before EPATH_USE_TF is set

  cache = getattr(request.config, 'cache', None)
  folder = cache.mkdir(PROGRAMS) if cache else tmp_path_factory.mktemp(PROGRAMS)
  name = f'jax{jax.__version__}-{compilation.processor()}'
  jax.config.update('jax_compilation_cache_dir', str(folder / name))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  yield
  jax.config.update('jax_compilation_cache_dir', None)


@pytest.fixture(scope='module', autouse=True)
def one_device():
  """Runs are compiled for one device, in half the time that eight take.

  Steps on eight devices are tested beside those on one (`toy.run_on_devices`), and
  whole runs by the tests that take `eight_devices`.
  """
  from nat_jax.runtime import parallel  # not before EPATH_USE_TF is set

  make_mesh = parallel.make_mesh
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parallel, 'make_mesh', lambda devices=None: make_mesh(
        jax.devices()[:1] if devices is None else devices))
    yield


@pytest.fixture
def eight_devices(monkeypatch):
  """Runs use all eight devices."""
  from nat_jax.runtime import parallel

  make_mesh = parallel.make_mesh
  monkeypatch.setattr(parallel, 'make_mesh', lambda devices=None: make_mesh(
      jax.devices() if devices is None else devices))


@pytest.fixture(scope='module')
def as_users_compile():
  """For tests of bits that XLA's optimisations may change."""
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', True)
