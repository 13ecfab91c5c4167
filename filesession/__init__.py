"""Server-side HTTP sessions, one file each, for Python web apps on one machine.

    store = FileStore("/var/lib/myapp/sessions", idle_timeout=1800)   # point at a directory
    app = SessionMiddleware(app, store, secret=SECRET)                # mount the middleware
    $ filesession janitor /var/lib/myapp/sessions                     # run the janitor

``SessionMiddleware`` is in ``filesession.asgi`` and, with the same keywords, in ``filesession.wsgi``.
"""
