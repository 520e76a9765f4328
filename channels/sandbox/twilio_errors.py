"""Twilio's error codes, their words and the magic test numbers, as data.

https://www.twilio.com/docs/api/errors and https://www.twilio.com/docs/iam/test-credentials
"""

import orjson

from channels.sandbox.answers import reply

# code -> (HTTP status, message; %s is the value that was refused)
ERRORS: dict[int, tuple[int, str]] = {
    20001: (400, "Invalid parameter"),
    20003: (401, "Authenticate"),
    20004: (405, "Method not allowed"),
    20404: (404, "The requested resource %s was not found"),
    20429: (429, "Too Many Requests"),
    20500: (500, "Internal Server Error"),
    20503: (503, "Service Unavailable"),
    21211: (400, "The 'To' number %s is not a valid phone number."),
    21212: (400, "The 'From' number %s is not a valid phone number, shortcode, or alphanumeric sender ID."),
    21217: (400, "Phone number does not appear to be valid"),
    21408: (403, "Permission to send an SMS has not been enabled for the region indicated by the 'To' number: %s."),
    21602: (400, "Message body is required."),
    21603: (400, "A 'From' phone number is required."),
    21604: (400, "A 'To' phone number is required."),
    21606: (400, "The 'From' phone number %s is not a valid, SMS-capable inbound phone number or short code for your account."),
    21609: (400, "The 'StatusCallback' URL is not a valid URL."),
    21610: (400, "Attempt to send to unsubscribed recipient"),
    21611: (429, "This 'From' number has exceeded the maximum number of queued messages"),
    21612: (400, "The 'To' phone number %s is not currently reachable using the 'From' phone number via SMS."),
    21614: (400, "'To' number %s is not a valid mobile number"),
    21617: (400, "The concatenated message body exceeds the 1600 character limit."),
    21624: (400, "Invalid validity period value"),
    21635: (400, "'To' number cannot be a landline"),
    21701: (400, "The Messaging Service does not exist"),
    30409: (400, "This message cannot be canceled"),
    35114: (400, "SendAt time must be at least 300 seconds and at most 35 days in the future"),
    35118: (400, "MessagingServiceSid is required to schedule a message"),
    63017: (429, "Rate limit exceeded"),
    63038: (429, "Account exceeded the daily messages limit"),
}  # fmt: skip

MAGIC_FROM = {"+15005550001": 21212, "+15005550007": 21606, "+15005550008": 21611}
MAGIC_TO = {
    "+15005550001": 21211,
    "+15005550002": 21612,
    "+15005550003": 21408,
    "+15005550004": 21610,
    "+15005550009": 21614,
}


class Refused(Exception):
    """A request that Twilio refuses with one of its codes."""

    def __init__(self, code: int, value: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.status, text = ERRORS[code]
        self.message = text % value if "%s" in text else text


def error(code: int, status: int, message: str | None = None) -> bytes:
    """The whole answer for an error, in the shape that the SDK reads."""
    body = {
        "code": code,
        "message": message or ERRORS.get(code, (status, "Error"))[1].replace("%s", "").strip(),
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    headers = b'WWW-Authenticate: Basic realm="Twilio API"\r\n' if status == 401 else b""
    return reply(status, orjson.dumps(body), b"application/json;charset=utf-8", headers=headers)
