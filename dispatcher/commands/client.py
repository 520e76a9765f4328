"""The command line's way to the HTTP interface: the same calls as curl's, with a key.

Knows requests, problem documents and where URL and key are found. Knows no call.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from dispatcher.commands.places import OPERATOR_KEY, URL_FILE, written
from dispatcher.settings import Settings

TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class ApiError(Exception):
    """A call that was refused or could not be made; `problem` is the API's own document."""

    def __init__(self, message: str, problem: Mapping[str, Any] | None = None) -> None:
        self.problem = dict(problem or {})
        super().__init__(message)

    def lines(self) -> Sequence[str]:
        """The failure, a line for it and one for each field that is wrong."""
        errors = [
            f"  {error.get('field') or 'the body'}: {error.get('reason')}"
            for error in self.problem.get("errors", ())
        ]
        return [str(self), *errors]


class Client:
    """Calls with one key. Use it in a `with` block."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=TIMEOUT,
            # A proxy of the environment is for the world outside; this is our own API.
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: str | int) -> Any:
        """The answer's JSON. Raises `ApiError`."""
        return self._call("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, key: str = "") -> Any:
        """Post JSON, with `key` as its Idempotency-Key. Raises `ApiError`."""
        headers = {"Idempotency-Key": key} if key else {}
        return self._call("POST", path, json=body, headers=headers)

    def upload(
        self, path: str, blocks: Iterator[bytes], *, content_type: str, **params: str
    ) -> Any:
        """Post a stream, however long the API takes over it. Raises `ApiError`."""
        return self._call(
            "POST",
            path,
            content=blocks,
            headers={"Content-Type": content_type},
            params=params,
            timeout=httpx.Timeout(None, connect=5.0),
        )

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise ApiError(
                f"The API at {self.url} does not answer ({type(error).__name__}):"
                " is it running? `dispatcher up` starts everything; DISPATCHER_API_URL names another."
            ) from None
        if answer.is_success:
            return answer.json() if answer.content else None
        raise _refusal(answer)


def _refusal(answer: httpx.Response) -> ApiError:
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict) or "title" not in problem:
        return ApiError(f"The API answered {answer.status_code} without saying why.")
    detail = problem.get("detail") or ""
    return ApiError(f"{problem['title']} ({answer.status_code}). {detail}".rstrip(), problem)


def connect(settings: Settings, *, key_file: Path | None = None) -> Client:
    """A client for the API as set, or as written in the data folder. Raises `ApiError`."""
    url = settings.api_url or written(settings.data_dir / URL_FILE)
    if url is None:
        raise ApiError(
            f"No API is known: set DISPATCHER_API_URL, or start `dispatcher up`"
            f" (it writes {settings.data_dir / URL_FILE})."
        )
    key = written(key_file) if key_file else settings.secret("api_key")
    key = key or (None if key_file else written(settings.data_dir / OPERATOR_KEY))
    if key is None:
        where = key_file or settings.data_dir / OPERATOR_KEY
        raise ApiError(
            f"No key is known: set DISPATCHER_API_KEY_FILE (there is none in {where});"
            " `dispatcher keys create` makes one."
        )
    return Client(url, key)
