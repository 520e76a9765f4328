"""Who is spoken to, how, and who speaks: audiences and the organisation, read from `templates/`.

A pack is a folder of templates. An overlay is a second folder (or only a file
`organisation.toml`) that a scenario brings: its tables replace those of the same name,
its audience folders are added or replace those of the same name.
"""

from dispatcher.audiences.files import line_of, load, read_toml
from dispatcher.audiences.values import (
    PRIVATE_USE,
    SLOWEST,
    Audience,
    ChannelStep,
    Lane,
    Organisation,
    PackError,
    PackProblem,
    Packs,
    PublicAccount,
    QuietHours,
    Reach,
    Scope,
    Sender,
    SenderKind,
    Support,
    matches,
    within,
)

__all__ = [
    "PRIVATE_USE",
    "SLOWEST",
    "Audience",
    "ChannelStep",
    "Lane",
    "Organisation",
    "PackError",
    "PackProblem",
    "Packs",
    "PublicAccount",
    "QuietHours",
    "Reach",
    "Scope",
    "Sender",
    "SenderKind",
    "Support",
    "line_of",
    "load",
    "matches",
    "read_toml",
    "within",
]
