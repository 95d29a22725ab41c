"""The JSON interface of the server as OpenAPI 3.1.

    openapi(['cat', 'dog'], Limits())
"""

from collections.abc import Sequence
from typing import Any

import nat_jax
from nat_jax.serving import guards


def openapi(classes: Sequence[str], limits: guards.Limits) -> dict[str, Any]:
  """The description of the interface.

  Args:
    classes: their names.
    limits: what requests may cost.

  Reference: https://spec.openapis.org/oas/v3.1.0
  """
  errors = {
      '400': 'a form without a picture', '408': 'the request was sent too slowly',
      '413': f'more than {limits.max_bytes} bytes or {limits.max_pixels} pixels',
      '415': f'no picture, as {", ".join(guards.FORMATS)}',
      '429': f'more than {limits.rate:g} pictures per second',
      '500': 'the server failed; its log has the reason',
      '503': 'too many pictures are waiting'}
  picture = {'schema': {'type': 'string', 'format': 'binary'}}
  return {
      'openapi': '3.1.0',
      'info': {'title': 'nat_jax', 'version': nat_jax.__version__},
      'paths': {
          '/api/predict': {'post': {
              'summary': 'Classifies a picture, or answers "none of these".',
              'requestBody': {'required': True, 'content': {
                  'image/*': picture, 'application/octet-stream': picture,
                  'multipart/form-data': {'schema': {
                      'type': 'object', 'required': ['image'],
                      'properties': {'image': picture['schema']}}}}},
              'responses': {
                  '200': _json('the answer', _answer(classes)),
                  **{code: _json(text, {
                      'type': 'object', 'required': ['error'],
                      'properties': {'error': {'type': 'string'}}})
                     for code, text in errors.items()}}}},
          '/health': {'get': {
              'summary': 'Counts, latency in milliseconds, mean size of the batches.',
              'responses': {'200': _json('the state', {'type': 'object'})}}}}}


def _answer(classes):
  number = {'type': 'number'}
  share = {'type': 'number', 'minimum': 0, 'maximum': 1}
  fields = {
      'verdict': {'enum': ['accepted', 'none of these']},
      'class': {'enum': list(classes), 'description': 'the likeliest class'},
      'probability': {**share, 'description': 'of the likeliest class'},
      'score': {**number, 'description': 'accepted where at least the threshold'},
      'threshold': number,
      'probabilities': {
          'type': 'object', 'required': list(classes), 'additionalProperties': False,
          'properties': {name: share for name in classes}},
      'similar': {'type': 'array', 'items': {
          'type': 'object', 'required': ['name', 'positive', 'similarity'],
          'properties': {
              'name': {'type': 'string', 'description': 'class or set of negatives'},
              'positive': {'type': 'boolean'},
              'similarity': {**number, 'description': 'cosine of the features'}}}},
      'checkpoint': {
          'type': 'object', 'required': ['step', 'crc32'],
          'properties': {'step': {'type': 'integer'}, 'crc32': {'type': 'integer'}}}}
  return {'type': 'object', 'required': list(fields), 'properties': fields}


def _json(description, schema):
  return {'description': description, 'content': {'application/json': {
      'schema': schema}}}
