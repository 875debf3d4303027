"""The node's DNS server: names of Services and pods, and everything else from the host's own servers.

    supervisor.py   holds the sockets, forks the server, and forks it again when it ends
    server.py       the server: an unprivileged process that answers on those sockets
    answers.py      what a question's answer is, from the zone (pure)
    zone.py         the zone as plain values, and the file that it is read from
    forward.py      questions about other names: the upstream servers and the cache of their answers
    loops.py        notices that the upstream servers ask this one
    stream.py       DNS over TCP     wire.py   the bytes of an answer
    client.py       the daemon's side: starts the supervisor, publishes zones, reads counters

The server goes on while the daemon is down, and the sockets outlive the server: a query that arrives while the server
starts again waits in the socket. Only the supervisor and the server import dnspython.
"""
