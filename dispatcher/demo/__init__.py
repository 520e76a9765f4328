"""The demonstration: synthetic recipients, two real incidents as data, and an audit of both."""
