"""The NOC's HTTP interface: calls in, problem documents and streams out. No SQL, no rules."""
