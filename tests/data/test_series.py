"""Series of sensors: the generated one, and what is read from CSV files or refused."""

import numpy as np
import pytest

from nat_jax import data
from nat_jax.data import Reading, series

SWAT = Reading(time='Timestamp', time_format='%d/%m/%Y %I:%M:%S %p')


def test_anomalies_of_the_generated_series():
  make = data.SERIES['sines']
  base = make(num=3000, start=8000, noise=0.0, reading=Reading())
  found = make(num=3000, segments=12, start=8000, noise=0.0, reading=Reading())
  assert found.kinds == ('normal', 'flip', 'frequency', 'stuck')
  assert np.bincount(found.label).tolist() == [2700, 100, 100, 100]
  np.testing.assert_array_equal(found.values[found.label == 0],
                                base.values[found.label == 0])
  first = np.flatnonzero(np.diff(found.label, prepend=0) > 0)
  assert len(first) == 12
  j = np.arange(series.SEGMENT)
  for k, at in enumerate(first):
    changed = np.flatnonzero((found.values != base.values)[at + j].any(0))
    assert len(changed) == 1, 'of one sensor'
    x, y = found.values[at + j, changed[0]], base.values[:, changed[0]]
    if at + 2 * j[-1] >= len(y):
      continue
    expected = {'flip': -y[at + j], 'frequency': y[at + 2 * j],
                'stuck': np.full(len(j), y[at])}[found.kinds[1 + k % 3]]
    np.testing.assert_allclose(x, expected, atol=1e-5)


def test_parts_of_the_generated_series_share_the_mixture_and_not_the_noise():
  make = data.SERIES['sines']
  whole, part, noisy = (make(num=num, start=start, noise=noise, reading=Reading())
                        for num, start, noise in (
                            (300, 0, 0.0), (100, 200, 0.0), (100, 200, 0.1)))
  np.testing.assert_allclose(whole.values[200:], part.values, atol=1e-5)
  assert (noisy.values - part.values).std() == pytest.approx(0.1, rel=0.1)
  first = make(num=100, noise=0.1, reading=Reading()).values - whole.values[:100]
  assert abs(np.corrcoef(first.ravel(), (noisy.values - part.values).ravel())[0, 1]
             ) < 0.2
  with pytest.raises(ValueError, match='12 segments need num of 600'):
    make(num=599, segments=12, reading=Reading())


def test_windows_are_a_view():
  values = np.arange(20.0).reshape(10, 2)
  found = data.windows(values, 4, 3)
  assert found.shape == (3, 4, 2) and np.shares_memory(found, values)
  for k, begin in enumerate((0, 3, 6)):
    np.testing.assert_array_equal(found[k], values[begin:begin + 4])


def write(path, text):
  path.write_text(text)
  return str(path)


def test_the_layout_of_swat(tmp_path):
  """Spaces around names, a line before them, days first, and 'A ttack'."""
  path = write(tmp_path / 'swat.csv', (
      ',P1,,P1,\n'
      ' Timestamp,FIT101,LIT101, MV101,Normal/Attack\n'
      ' 28/12/2015 11:59:58 AM,2.4,522.8,2,Normal\n'
      ' 28/12/2015 11:59:59 AM,2.5,522.9,2,Attack\n'
      ' 28/12/2015 12:00:00 PM,2.6,523.0,1,A ttack\n'
      ' 28/12/2015 12:00:01 PM,2.7,523.1,1,Normal\n\n'))
  found = data.load_series(
      {'name': 'csv', 'path': path, 'label': 'Normal/Attack', 'header': 1}, SWAT)
  assert found.columns == ('FIT101', 'LIT101', 'MV101')
  assert found.kinds == ('Normal', 'Attack') and found.label.tolist() == [0, 1, 1, 0]
  np.testing.assert_allclose(found.values, [
      [2.4, 522.8, 2], [2.5, 522.9, 2], [2.6, 523.0, 1], [2.7, 523.1, 1]], rtol=1e-6)
  assert found.values.dtype == np.float64 and found.given.all()
  assert found.time[2] == '28/12/2015 12:00:00 PM'


@pytest.mark.parametrize('times', [
    ('0', '0.5', '1.0'), ('2024-01-31', '2024-02-01', '2024-02-02'),
    ('2024-01-31T23:59:59Z', '2024-02-01T00:00:00Z', '2024-02-01T00:00:01+00:00')])
def test_numbers_and_dates_without_a_format(times, tmp_path):
  rows = '\n'.join(f'{time},{k},{-k}' for k, time in enumerate(times))
  path = write(tmp_path / 'x.csv', f'time,a,b\n{rows}')
  found = data.load_series({'name': 'csv', 'path': path}, Reading())
  np.testing.assert_array_equal(found.values, [[0, 0], [1, -1], [2, -2]])
  assert found.time.tolist() == list(times) and found.label is None
  some = data.load_series({'name': 'csv', 'path': path}, Reading(columns=('b', 'a')))
  np.testing.assert_array_equal(some.values, found.values[:, ::-1])


def test_time_steps_of_another_file_are_those_of_the_training_file(tmp_path):
  path = write(tmp_path / 'x.csv', 'time,a\n0,0\n5,1\n10,2\n')
  spec = {'name': 'csv', 'path': path}
  assert data.load_series(spec, Reading()).time_step == 5
  assert data.load_series(spec, Reading(time_step=5)).values.tolist() == [[0], [1], [2]]
  with pytest.raises(ValueError, match=r"line 3: 4 time steps are missing between '0' "
                     r"and '5'; a time step is 1 \(data.time_step\)"):
    data.load_series(spec, Reading(time_step=1))
  with pytest.raises(ValueError, match='line 3: the time step is too short.*of 20'):
    data.load_series(spec, Reading(time_step=20))


def test_labels_are_read_as_written(tmp_path):
  """NA, None and nan are labels, and numbers that are missing elsewhere."""
  rows = [('None', '1'), ('NA', 'NA'), ('nan', ''), ('null', 'nan'), ('N/A', '5')]
  path = write(tmp_path / 'x.csv', '\n'.join(
      ['time,kind,a', *(f'{k},{kind},{a}' for k, (kind, a) in enumerate(rows))]))
  found = data.load_series(
      {'name': 'csv', 'path': path, 'label': 'kind', 'normal': 'None'}, Reading(fill=3))
  assert [found.kinds[k] for k in found.label] == [kind for kind, _ in rows]
  np.testing.assert_allclose(found.values[:, 0], [1, 2, 3, 4, 5])


GAPS = 'time,a,b,kind\n0,0,0,ok\n1,1,,ok\n4,4,-4,bad\n5,,-5,ok\n6,6,-6,ok\n'


def test_short_gaps_are_interpolated(tmp_path):
  path = write(tmp_path / 'x.csv', GAPS)
  spec = {'name': 'csv', 'path': path, 'label': 'kind', 'normal': 'ok'}
  found = data.load_series(spec, Reading(fill=3))
  np.testing.assert_allclose(
      found.values, np.arange(7)[:, None] * [1, -1], atol=1e-6)
  assert found.given.tolist() == [1, 1, 0, 0, 1, 1, 1]
  assert found.label.tolist() == [0, 0, 0, 0, 1, 0, 0]
  assert found.time.tolist() == ['0', '1', '', '', '4', '5', '6']
  with pytest.raises(ValueError, match=r"line 4: 2 time steps are missing between '1' "
                     r"and '4'.*data.fill=2"):
    data.load_series(spec, Reading(fill=1))
  # Two steps without a row after a step without a value are three without a value.
  with pytest.raises(ValueError, match="line 3: the column 'b' has no value.*fill=3"):
    data.load_series(spec, Reading(fill=2))


@pytest.mark.parametrize('text, reading, label, named', [
    ('time,a\n0,1\n1,\n2,3', {}, '', "line 3: the column 'a' has no value.*fill=1"),
    ('time,a\n0,1\n\n2,3', {'fill': 5}, '', "line 3: the column of time.*got ''"),
    ('time,a\n0,1\n1,2\n3,3\n4,4', {}, '', 'line 4: 1 time steps are missing'),
    ('time,a\n0,1\n1,2\n1,3', {}, '', 'line 4: time does not increase.*Sort'),
    ('time,a\n0,1\n1,2\n1.2,3\n2.2,1', {}, '', 'line 4: the time step is too short'),
    ('time,a\n0,1\n1,2\n2.2,3\n3.6,1\n4.6,1', {}, '', 'line 5: there is no whole num'),
    ('time,a\nx,1\n1,2', {}, '', "line 2: the column of time 'time'.*'x'.*time_format"),
    ('time,a\n31/12/2015,1\n1/1/2016,2', {}, '', "line 2.*'31/12/2015'.*%d/%m/%Y"),
    ('time,a\n0,1\n1,two\n2,3', {}, '', "line 3: the column 'a'.*finite.*'two'"),
    ('time,a\n0,1\n1,inf\n2,3', {}, '', "line 3: the column 'a'.*finite.*inf"),
    ('Time,a\n0,1\n1,2', {}, '', "unknown column 'time'.*'Time'.*data.time"),
    ('time,a\n0,1\n1,2', {}, 'b', "unknown column 'b'.*time, a.*Set label"),
    ('time,a,b\n0,1,x\n1,2,y', {}, 'b', "no row has the label 'Normal'.*x, y"),
    ('time,a,b\n0,1,Normal\n1,2,', {}, 'b', "line 3: the column 'b' has no label"),
    ('time,a\n0,1\n1,2', {'columns': ('a', 'c')}, '', 'missing: c.*time, a'),
    ('time\n0\n1', {}, '', 'at least one.*has the columns time'),
    ('time,a, a\n0,1,2\n1,2,2', {}, '', "two columns 'a'"),
    ('time,a,b,a\n0,1,2,3\n1,2,2,3', {}, '', "two columns 'a'"),
    ('time,a\n0,1', {}, '', '2 rows or more, got 1'), ('', {}, '', 'CSV file'),
    ('time,a\n0,1\n1,2,3,4\n', {}, '', 'CSV file'),
    ('time,a\n0,1,2\n1,2,3\n', {}, '', 'CSV file'),
])
def test_mistakes_in_files(text, reading, label, named, tmp_path):
  path = write(tmp_path / 'x.csv', text)
  with pytest.raises(ValueError, match=f'(?s)x.csv.*{named}'):
    data.load_series({'name': 'csv', 'path': path, 'label': label}, Reading(**reading))


def test_unknown_files_and_series(tmp_path):
  with pytest.raises(ValueError, match='nothing.csv is not a file'):
    data.load_series({'name': 'csv', 'path': f'{tmp_path}/nothing.csv'}, Reading())
  with pytest.raises(ValueError, match="unknown series 'cvs'.*'csv'"):
    data.load_series({'name': 'cvs'}, Reading())
