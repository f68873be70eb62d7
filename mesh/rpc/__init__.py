"""gRPC over HTTP/2, in the event loop's own thread.

grpc's own Python server pays about 290 us of CPU for a call and its client 70: every call crosses
three threads and wakes each of them several times. Here HTTP/2 is a state machine of libnghttp2 (by
the package `ngh2`) that is fed with what arrives and asked for what is to be sent, both for many
calls at once; gRPC is the thin layer above: messages with a length before them, metadata in header
fields, a status in the trailers. A call costs its server 23 us and its client 15 (ADR 22).

    link.py       one connection: bytes in, events out, one write for each turn of the loop
    messages.py   cuts what arrives into messages
    headers.py    metadata, time limits and endings as header fields
    server.py     serves handlers as grpc.aio.server does; served.py is one call of it
    method.py     how a method is served, and what its handler may raise
    channel.py    calls a target; calling.py is one call of it
"""
