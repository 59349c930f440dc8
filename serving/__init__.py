"""The server: HTTP around a recommender. It knows requests, limits and queues; it knows no tensors.

``genrec serve BUNDLE`` starts it; :func:`serving.app.create_app` makes the ASGI application.
"""
