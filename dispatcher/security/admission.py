"""What somebody has to prove before they are let in: the one seam for second factors.

Sign-in collects proofs and asks `what_remains` after each; a session begins when nothing
does. To add a factor: name it in `Proof`, say here who needs it, and give it a page that
`dispatcher.console.signing` leads to while it remains. Pure: no I/O, no secret.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Protocol

from dispatcher.security.rights import Role


class Proof(StrEnum):
    """One thing that shows who somebody is."""

    PASSWORD = "password"


class Comer(Protocol):
    """Whoever wants to come in, as far as rules about them may look."""

    @property
    def id(self) -> str: ...

    @property
    def role(self) -> Role: ...


def what_remains(person: Comer, proofs: Collection[Proof]) -> tuple[Proof, ...]:
    """What `person` has still to prove, in the order to ask for it; empty lets them in."""
    needed = (Proof.PASSWORD,)
    return tuple(proof for proof in needed if proof not in proofs)
