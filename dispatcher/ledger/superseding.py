"""When an older update of an incident is not worth telling a person any more."""


def told_since(*, update: str, recipient: str) -> str:
    """A condition: a later update of the same incident tells this person, or spares them.

    `update` and `recipient` are SQL expressions for an update's and a recipient's id.
    """
    return (
        "EXISTS (SELECT FROM incident_update older JOIN incident_update newer"
        " ON newer.incident_id = older.incident_id AND newer.id > older.id"
        " JOIN delivery told ON told.update_id = newer.id AND told.recipient_id = "
        f"{recipient} WHERE older.id = {update}"
        " AND NOT (told.state = 'skipped' AND told.reason <> 'shared_contact'))"
    )
