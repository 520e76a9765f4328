"""The communications team's pages: write, preview, approve, send, watch, and account for it.

Server-rendered; what reads or approves works without JavaScript. Each module owns the routes
of one room, `pages/` holds their words, `static/` the look and the small scripts of live parts.
"""
