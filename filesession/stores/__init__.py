"""Where sessions are kept, and what a store of one's own must do."""

from filesession.stores.file.store import FileStore
from filesession.stores.memory import MemoryStore
from filesession.stores.node.store import NodeFileStore
from filesession.stores.protocol import AsyncStore, Store

__all__ = ["AsyncStore", "FileStore", "MemoryStore", "NodeFileStore", "Store"]
