"""The engine: the only caller of an adapter's `send`."""
