"""Simulators of the providers, speaking the providers' own wire protocols on one port.

Owns what a provider would answer and what it took (the outbox). It must know nothing of
incidents, ledgers, Celery or our adapters: a vendor's unmodified SDK is its only client.

    python -m channels.sandbox --port 0 --announce FILE
"""
