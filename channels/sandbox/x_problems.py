"""How X words what it refuses, as data and as problem documents.

https://docs.x.com/x-api/fundamentals/response-codes-and-errors
"""

from typing import Any

PROBLEMS = "https://api.twitter.com/2/problems/"
DUPLICATE = "You are not allowed to create a Tweet with duplicate content."
TOO_LONG = (
    "Your Tweet text is too long. For more information on how Twitter determines text length "
    "see https://github.com/twitter/twitter-text."
)
GONE = "You attempted to reply to a Tweet that is deleted or not visible to you."
REPLY_RULE = (
    "Reply to this conversation is not allowed because you have not been mentioned or "
    "otherwise engaged by the author of the post you are replying to."
)
APP_ONLY = (
    "Authenticating with OAuth 2.0 Application-Only is forbidden for this endpoint.  Supported "
    "authentication types are [OAuth 1.0a User Context, OAuth 2.0 User Context]."
)


class Refused(Exception):
    """A request that X refuses."""

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(status)
        self.status = status
        self.body = problem(status, detail) | more


def problem(status: int, detail: str) -> dict[str, Any]:
    """A problem document without a type of its own."""
    titles = {
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
        429: "Too Many Requests",
        503: "Service Unavailable",
    }
    title = titles.get(status, "Internal Server Error")
    return {"detail": detail, "type": "about:blank", "title": title, "status": status}


def invalid(message: str) -> Refused:
    """A request whose body or query is not what the schema says."""
    return Refused(
        400,
        "One or more parameters to your request was invalid.",
        errors=[{"parameters": {}, "message": message}],
        title="Invalid Request",
        type=f"{PROBLEMS}invalid-request",
    )


def not_found(kind: str, value: str) -> Refused:
    """A resource that is not there, named by its kind."""
    return Refused(404, f"Could not find {kind} with id: [{value}].", title="Not Found Error",
                    type=f"{PROBLEMS}resource-not-found")  # fmt: skip
