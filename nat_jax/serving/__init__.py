"""A page and a JSON interface of a classifier.

    app = make_app(Classifier.restore('runs/pets'), Limits())     # an ASGI application

`app` has the routes, `batching` puts the pictures of several requests into one batch,
`guards` are the limits on what requests may cost, `similar` finds the training pictures
that are most similar to a picture. Needs the extra `serve` (Starlette and uvicorn).
"""

from nat_jax.serving.guards import Limits

__all__ = ['Limits']
