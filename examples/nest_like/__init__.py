"""A FastAPI application in the shape of a NestJS one: a file a module, guards, a typed session.

    uvicorn nest_like.main:app --app-dir examples --workers 2
    filesession janitor var/sessions

What a Nest application has, and where it is here: ``AppModule`` and ``main.ts``: ``main.py``;
``ConfigModule``: ``settings.py``; controllers: a router in each other file; ``@Session()``:
``SessionDep``; a guard: ``auth.logged_in``; a gateway: ``chat.py``.
"""
